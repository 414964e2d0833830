"""Work of the flow evaluate: metrics, the comparison with the champion, checks of the refit."""
