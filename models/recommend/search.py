"""Search: finds items by the words of a query and by its vector, and orders them for the user.

Two rankings are computed over the items that may be shown: BM25 over the items' texts, and the
inner product with the query's vector in the space of the content source. The ranker orders their
union for the user, as if the user had just searched. Weighted reciprocal rank fusion (Cormack et
al. 2009) combines the three rankings. Items that the user consumed may be found again.

Shapes: B requests (one search each), C candidates, N items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.content.fusion import ContentModel
from models.queries import Candidates, Queries
from models.ranking.features.sources import reciprocal
from models.recommend.chain import Chain
from models.recommend.cold_start.new_items import CONTENT, best_of
from models.recommend.merge import Shortlist, merge
from models.recommend.stages import Run, strictly
from models.search.text_index import TextIndex
from models.search.weights import SearchWeights
from models.vector_source import VectorSource
from shortlist.columns import MICROSECONDS_PER_SECOND
from shortlist.features.finalize import RequestRows
from shortlist.features.pack import ItemState

WORDS, VECTORS = "search_words", "search_vectors"
"""Names of the two ways to find items; also the names of their stages."""
DEPTH = 200
"""Number of items that each of them finds."""
REPEATED = 60 * MICROSECONDS_PER_SECOND
"""If the user's last search has the same query and is not older, the search isn't added again."""


@dataclass(frozen=True)
class Found:
    """Items found for B queries, best first, padded with item_idx 0."""

    item_idx: np.ndarray  # (B, k) int64
    score: np.ndarray  # (B, k) float32, of the fusion
    found_by: list[list[tuple[str, ...]]]  # B lists of k: the ways that found the item, best first


def with_search(rows: RequestRows, texts: Sequence[str]) -> RequestRows:
    """Return the users' states with a search just before each request."""
    searches = []
    for state, text, at in zip(rows.searches, texts, rows.at.tolist(), strict=True):
        last = state.queries[-1] if state.queries else None
        if last != text or at - state.last_time > REPEATED:
            state = state.with_search(text, timestamp=at - MICROSECONDS_PER_SECOND)
        searches.append(state)
    return replace(rows, searches=searches)


@dataclass(frozen=True)
class Matches:
    """Candidates of B searches, and their places in the three orders."""

    shortlist: Shortlist  # ranks of WORDS and VECTORS, 0 where that way didn't find the item
    personal: np.ndarray | None
    """(B, C) float32 places in the ranker's order, from 1; None: the ranker was skipped."""

    def best(self, weights: SearchWeights, *, k: int) -> Found:
        """Return the best k candidates of each search by weighted reciprocal rank fusion."""
        ranks = self.shortlist.ranks
        score = np.zeros(self.shortlist.item_idx.shape)
        for name, weight in ((WORDS, weights.words), (VECTORS, weights.vectors)):
            if name in ranks:
                score += reciprocal(ranks[name], weight=weight)
        if self.personal is not None:
            score += reciprocal(self.personal, weight=weights.personal)
        score = np.where(self.shortlist.item_idx > 0, score, -np.inf).astype(np.float32)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        row = np.arange(len(order))[:, None]
        places = {name: of[row, order] for name, of in ranks.items()}
        found_by = _found_by(places, shape=order.shape)
        return Found(self.shortlist.item_idx[row, order], score[row, order], found_by)


def match(
    chain: Chain,
    index: Callable[[], TextIndex],
    queries: Queries,
    items: ItemState,
    texts: Sequence[str],
    *,
    ways: Sequence[str] = (WORDS, VECTORS),
    run: Run = strictly,
) -> Matches:
    """Find items for B searches, and order them for the users.

    Args:
        index: returns the full-text index of the chain's catalogue.
        queries: the users' requests. `seen` has what must not be found; a search may find consumed
            items.
        texts: B query texts.
        ways: which of WORDS and VECTORS are used.
        run: runs the stages WORDS, VECTORS, and those of the ranker.
    """
    find = {
        WORDS: lambda: _by_words(index(), queries, texts, chain.catalogue.num_items),
        VECTORS: lambda: _by_vectors(chain, queries, texts),
    }
    found = {name: candidates for name in ways if (candidates := run(name, find[name], None))}
    if not found or not any((each.item_idx > 0).any() for each in found.values()):
        none = np.zeros((len(queries), 0), dtype=np.int64)
        return Matches(Shortlist(none, dict.fromkeys(found, none.astype(np.float32))), None)
    shortlist = merge(found)
    return Matches(shortlist, _personal_places(chain, queries, items, shortlist, run=run))


def text_encoder_ready(chain: Chain) -> bool:
    """Return whether queries can be encoded at once; if not, start to load the text encoder."""
    model = _content_model(chain)
    return model is None or model.encoder.load_text_encoder()


def _content_model(chain: Chain) -> ContentModel | None:
    source = chain.sources.get(CONTENT)
    model = source.model if isinstance(source, VectorSource) else None
    return model if isinstance(model, ContentModel) else None


def _by_words(
    index: TextIndex, queries: Queries, texts: Sequence[str], num_items: int
) -> Candidates:
    found = [
        index.search(text, k=DEPTH, allowed=queries.allowed(row, num_items))
        for row, text in enumerate(texts)
    ]
    width = max(each.item_idx.shape[1] for each in found)
    item_idx = np.zeros((len(found), width), dtype=np.int64)
    score = np.full((len(found), width), -np.inf, dtype=np.float32)
    for row, each in enumerate(found):
        size = each.item_idx.shape[1]
        item_idx[row, :size], score[row, :size] = each.item_idx[0], each.score[0]
    return Candidates(item_idx, score)


def _by_vectors(chain: Chain, queries: Queries, texts: Sequence[str]) -> Candidates | None:
    """Return the items nearest to the queries' vectors; None if the content has no text."""
    model = _content_model(chain)
    vectors = None if model is None else model.encode_texts(texts)
    if vectors is None:
        return None
    source = chain.sources[CONTENT]
    assert isinstance(source, VectorSource)
    known = queries.known(chain.num_known)
    found = source.index.search(vectors, DEPTH, exclude=known.seen, blocked=known.blocked)
    new = None if chain.new is None else chain.new.by_vectors(vectors, queries, k=DEPTH)
    found = found if new is None else best_of(found, new, k=DEPTH)
    unknown = ~vectors.any(axis=1, keepdims=True)  # no word of the query is known to the encoder
    return Candidates(np.where(unknown, 0, found.item_idx), np.where(unknown, -np.inf, found.score))


def _personal_places(
    chain: Chain, queries: Queries, items: ItemState, shortlist: Shortlist, *, run: Run
) -> np.ndarray | None:
    """Return the place of each candidate in the ranker's order, from 1; None if it is skipped."""
    given = chain.source_scores(queries, items, shortlist, run=run)
    x = run("ranking_features", lambda: chain.features(queries, items, shortlist, given), None)
    score = None if x is None else run("ranker", lambda: chain.scores(queries, shortlist, x), None)
    if score is None:
        return None
    order = np.argsort(-score, axis=1, kind="stable")
    places = np.empty(order.shape, dtype=np.float32)
    np.put_along_axis(places, order, np.arange(1, order.shape[1] + 1, dtype=np.float32)[None], 1)
    return places


def _found_by(
    ranks: dict[str, np.ndarray], *, shape: tuple[int, ...]
) -> list[list[tuple[str, ...]]]:
    """Return the ways that found each item, the one with the better rank first."""
    out = []
    for row in range(shape[0]):
        places = []
        for column in range(shape[1]):
            own = {name: of[row, column] for name, of in ranks.items() if of[row, column] > 0}
            places.append(tuple(sorted(own, key=own.__getitem__)))
        out.append(places)
    return out
