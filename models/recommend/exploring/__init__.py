"""Exploration: random items with known propensities."""
