"""New items, and users with short histories."""
