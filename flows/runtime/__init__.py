"""Configuration, runs, steps, progress and retries, used by all flows."""
