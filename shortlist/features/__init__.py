"""Features: stored states, `finalize`, feature descriptions and the item-feature file (pack)."""
