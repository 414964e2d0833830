"""Batch states: SQL over the lake, written as Parquet parts."""
