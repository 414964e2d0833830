"""Rankers of boosted trees, and their scoring without LightGBM."""
