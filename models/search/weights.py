"""Weights of the rankings that a search combines."""

from pydantic import Field

from shortlist.config import Config


class SearchWeights(Config):
    """Weights in reciprocal rank fusion; a run chooses them on validation if its log has searches.

    A ranking with weight 0 still finds items, but doesn't order them.
    """

    words: float = Field(default=1.0, ge=0)
    """Weight of BM25's order."""
    vectors: float = Field(default=1.0, ge=0)
    """Weight of the order by the inner product with the query's vector."""
    personal: float = Field(default=1.0, ge=0)
    """Weight of the ranker's order for the user."""
