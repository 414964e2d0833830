"""Feast stores, with functions to measure them.

`shortlist bench features` and the tests of the feature store compare them.
"""
