"""Online store: stored states (base rows), newer posted events (the tail), materialization."""
