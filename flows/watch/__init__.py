"""Gathers what monitoring judges: live traffic with outcomes, freshness, errors and skew."""
