"""Readers of what the service wrote: posted events and items, and the serving log."""
