"""Ranking features: the columns that rankers read."""
