"""Parts of the benchmarks `sequence` and `sequence_speed`."""
