"""Figures of live traffic: outcomes joined with what was shown, estimates with errors."""
