"""Work of the flows train and evaluate: data, sources, rankers, choice of the chain, refit."""
