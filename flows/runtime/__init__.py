"""Configuration, runs, steps and retries, which every flow uses."""
