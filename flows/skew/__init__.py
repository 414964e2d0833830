"""The work of the skew check: served features against recomputed ones."""
