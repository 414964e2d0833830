"""The online store: base rows, the tail of posted events, materialize."""
