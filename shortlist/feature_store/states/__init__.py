"""Batch states: computed by SQL over the lake and written as Parquet parts."""
