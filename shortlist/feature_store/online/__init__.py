"""Online store: states written by a refresh (base rows), and newer posted events (the tail)."""
