"""Online store: base rows, the tail of posted events, and materialization."""
