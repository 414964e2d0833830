"""Every feature: states, finalize, descriptions and the item-feature file."""
