"""Offline store: point-in-time joins with DuckDB, as a Feast offline store."""
