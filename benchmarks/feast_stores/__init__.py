"""Feast stores that the benchmark `features` and the tests of the feature store compare."""
