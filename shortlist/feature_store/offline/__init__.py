"""The offline store: point-in-time joins in DuckDB behind Feast's interface."""
