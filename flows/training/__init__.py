"""The work of the train flow: sources, chain, rankers, refit."""
