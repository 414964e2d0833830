"""Work of the skew check: compare served features with recomputed ones."""
