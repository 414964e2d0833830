"""Feast stores that `shortlist bench features` and the tests of the feature store compare."""
