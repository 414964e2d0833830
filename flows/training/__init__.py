"""Work of the flow train: data, sources, rankers, choice of the chain, refit."""
