"""What events mean: how they count, repeats, refusals, shown items and value."""
