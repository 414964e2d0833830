"""The inbox of posted events, and the limits of a post."""
