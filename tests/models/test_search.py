"""Search: the full-text index, query vectors that learn from searches, and the ordered answer."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import registry
from models.content.config import ContentFeatures
from models.content.fusion import ContentConfig, ContentModel
from models.data import Validation
from models.recommend.search import VECTORS, WORDS, match
from models.search.pairs import SearchPairs
from models.search.text_index import TextIndex, plain_words
from models.search.weights import SearchWeights
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource
from shortlist import columns as c
from shortlist.behaviour.refusals import Refusals
from shortlist.features.terms import words_of
from shortlist.http.api import Filters, SearchRequest
from shortlist.items.catalogue import Catalogue
from tests.models.recommenders import AT, Clicks, recommender_of, with_new
from tests.models.small_data import catalogue_of, queries_of, training_data

OPTIONS = TrainingOptions(seed=3, num_threads=1)
WORDS_OF_ITEMS = ("tea", "green", "black", "cup", "pot", "café")
TEXTS = st.lists(st.lists(st.sampled_from(WORDS_OF_ITEMS), max_size=6).map(" ".join), max_size=12)


def bm25(query: list[str], texts: list[str]) -> dict[int, float]:
    """Return {row: BM25 score} of matching rows, with k1 = 1.2 and b = 0.75."""
    rows = [text.split() for text in texts]
    mean = sum(map(len, rows)) / max(len(rows), 1)
    scores: dict[int, float] = {}
    for word in dict.fromkeys(query):
        holders = [row for row, words in enumerate(rows) if word in words]
        idf = math.log((len(rows) - len(holders) + 0.5) / (len(holders) + 0.5))
        idf = max(idf, 1e-6)
        for row in holders:
            count = Counter(rows[row])[word]
            norm = 1.2 * (1 - 0.75 + 0.75 * len(rows[row]) / mean)
            scores[row] = scores.get(row, 0) + idf * count * 2.2 / (count + norm)
    return scores


@given(texts=TEXTS, query=st.lists(st.sampled_from(WORDS_OF_ITEMS), min_size=1, max_size=3))
def test_scores_are_those_of_bm25(texts, query):
    index = TextIndex(["", *texts])
    found = index.search(" ".join(query), k=100, allowed=np.ones(len(texts) + 1, dtype=bool))
    expected = {row + 1: score for row, score in bm25(query, texts).items()}
    assert dict(zip(found.item_idx[0].tolist(), found.score[0].tolist(), strict=True)) == (
        pytest.approx(expected, rel=1e-4, abs=1e-5)
    )
    assert (np.diff(found.score[0]) <= 0).all()


@given(before=TEXTS, after=TEXTS, blocked=st.sets(st.integers(1, 12)), k=st.integers(0, 5))
def test_a_changed_catalogue_and_filters_give_what_a_new_index_gives(before, after, blocked, k):
    changed = TextIndex(["", *after], before=TextIndex(["", *before]))
    new = TextIndex(["", *after])
    allowed = np.ones(len(after) + 1, dtype=bool)
    allowed[[row for row in blocked if row <= len(after)]] = False
    found, expected = (index.search("green tea", k=k, allowed=allowed) for index in (changed, new))
    assert sorted(found.score[0]) == pytest.approx(sorted(expected.score[0]), rel=1e-4, abs=1e-5)
    matching = {row + 1 for row in bm25(["green", "tea"], after)} - blocked
    assert len(found.item_idx[0]) == min(k, len(matching))
    assert set(found.item_idx[0].tolist()) <= matching


def test_case_and_accents_do_not_matter_and_query_syntax_has_no_meaning():
    index = TextIndex(["", "Café Crème", "NOT a match", 'a "quoted" (text)'])
    allowed = np.ones(4, dtype=bool)

    def found(query: str) -> list[int]:
        return index.search(query, k=5, allowed=allowed).item_idx[0].tolist()

    assert found("CAFE creme") == [1]
    assert found('not "') == [2]
    assert found('") OR text:quoted*') == [3]
    assert found("-- ;") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("İstanbul rehberi", "istanbul"),
        ("İstanbul rehberi", "İSTANBUL"),
        ("हिन्दी किताब", "हिन्दी"),
        ("Ёлка", "елка"),
        ("Ｓｏｎｙ ｔｖ", "sony"),
        ("ﬁne tea", "fine"),
        ("東京 案内", "東京"),
    ],
)
def test_words_of_other_alphabets_match_and_are_named(text, query):
    allowed = np.ones(3, dtype=bool)
    index = TextIndex(["", text, "something else"])
    assert index.search(query, k=5, allowed=allowed).item_idx[0].tolist() == [1]
    assert set(plain_words(query)) <= set(plain_words(text))


QUICK = OptimiserConfig(learning_rate=1e-2, warmup_steps=0, num_epochs=10)
ITEMS = 24
"""Items 1 to 12 are called blue, the others red. Users of one colour choose only that colour."""


def shop(*, pairs: SearchPairs | None = None):
    names = ["blue" if i < ITEMS // 2 else "red" for i in range(ITEMS)]
    items = catalogue_of([[]] * ITEMS).items
    titles = pa.array([f"{name} thing {i}" for i, name in enumerate(names)])
    items = items.set_column(items.schema.get_field_index(c.TITLE), c.TITLE, titles)
    rng = np.random.default_rng(0)
    blue, red = np.arange(1, ITEMS // 2 + 1), np.arange(ITEMS // 2 + 1, ITEMS + 1)
    histories = [rng.permutation((blue, red)[user % 2])[:8].tolist() for user in range(60)]
    data = training_data(Catalogue.from_items(items), histories)
    if pairs is not None:
        data = replace(data, read_searches=lambda: pairs)
    config = ContentConfig(
        features=ContentFeatures(text="tfidf", text_dim=16),
        embedding_dim=16,
        batch_size=16,
        num_negatives=32,
        optimiser=QUICK,
    )
    source = registry.fit(config, data, Validation([]), OPTIONS)
    assert isinstance(source, VectorSource)
    return data, source


@pytest.fixture(scope="module")
def colours():
    return shop()


def ids(slate) -> list[str]:
    return [item.item_id for item in slate.items]


def recommender(colours, **more):
    data, source = colours
    return recommender_of((data.catalogue, {"content": source}), "content", **more)


def test_words_and_vectors_find_items_and_the_answer_says_how(colours):
    slate = recommender(colours).search(SearchRequest(query="Blue thing", k=5), at=AT)
    assert len(slate.items) == 5
    assert all("blue" in item.title for item in slate.items)
    assert {way for item in slate.items for way in item.sources} == {WORDS, VECTORS}
    assert slate.items[0].reason == "has: blue, thing"
    assert [item.rank for item in slate.items] == [1, 2, 3, 4, 5]
    assert not slate.user_known
    assert not slate.skipped_stages


def test_filters_exclusions_and_availability_hold_and_consumed_items_may_be_found(colours):
    items = colours[0].catalogue.items
    gone = pa.array([i != 3 for i in range(ITEMS)])
    items = items.set_column(items.schema.get_field_index(c.AVAILABLE), c.AVAILABLE, gone)
    reader = Clicks([("u", "i001", AT - 10)])
    model = recommender(colours, items=items, reader=reader)
    request = SearchRequest(query="blue", user_id="u", k=50, exclude=["i002"])
    found = ids(model.search(request, at=AT))
    assert "i001" in found  # consumed
    assert not {"i002", "i004"} & set(found)  # excluded, unavailable
    nothing = request.model_copy(update={"filters": Filters(categories=["no such"])})
    assert model.search(nothing, at=AT).items == []


def test_refused_items_are_not_found(colours):
    class Refuses(Clicks):
        def read(self, user_ids, context_ids, at):
            rows = super().read(user_ids, context_ids, at)
            return replace(rows, refusals=[Refusals(("i001",), (AT - 5,)) for _ in user_ids])

    model = recommender(colours, reader=Refuses([("u", "i002", AT - 10)]))
    found = ids(model.search(SearchRequest(query="blue", user_id="u", k=50), at=AT))
    assert "i002" in found
    assert "i001" not in found


def test_nothing_is_found_for_unknown_words_or_without_any_way(colours):
    model = recommender(colours)
    assert model.search(SearchRequest(query="qwertz"), at=AT).items == []
    model.health.switched_off = frozenset({WORDS, VECTORS})
    slate = model.search(SearchRequest(query="blue"), at=AT)
    assert slate.items == []
    assert slate.skipped_stages == [WORDS, VECTORS]


def test_content_without_text_is_searched_by_words_alone(colours):
    data, _ = colours
    config = ContentConfig(
        features=ContentFeatures(text="none"), embedding_dim=8, optimiser=QUICK, num_negatives=8
    )
    items = data.catalogue.items
    kinds = pa.array([["a"], ["b"]] * (ITEMS // 2), pa.list_(pa.string()))
    items = items.set_column(items.schema.get_field_index(c.CATEGORIES), c.CATEGORIES, kinds)
    given = replace(data, catalogue=Catalogue.from_items(items))
    source = registry.fit(config, given, Validation([]), OPTIONS)
    model = recommender_of((given.catalogue, {"content": source}), "content")
    slate = model.search(SearchRequest(query="blue", k=3), at=AT, wait=False)
    assert [item.sources for item in slate.items] == [[WORDS]] * 3
    assert not slate.skipped_stages


def test_a_new_item_is_found_by_its_words_and_its_vector(colours):
    new = {c.ITEM_ID: "posted", c.TITLE: "blue turquoise"}
    model = recommender(colours, items=with_new(colours[0].catalogue.items, new))
    first, *_ = model.search(SearchRequest(query="turquoise", k=3), at=AT).items
    assert first.item_id == "posted"
    found = model.search(SearchRequest(query="blue", k=50), at=AT).items
    (posted,) = [item for item in found if item.item_id == "posted"]
    assert set(posted.sources) == {WORDS, VECTORS}


def test_query_vectors_learn_words_that_no_item_has():
    """People who search for `sky` choose items 1 to 3, for `rose` items 13 to 15."""
    rng = np.random.default_rng(0)
    sky = rng.random(600) < 0.5
    items = np.where(sky, rng.integers(1, 4, size=600), rng.integers(13, 16, size=600))
    words = np.where(sky, "sky", "rose")
    _, source = shop(pairs=SearchPairs(words.tolist(), items))
    notes = source.notes["queries"]
    assert notes["pairs"] == 600
    assert notes["ndcg@10"] > notes["ndcg@10 untrained"] + 0.1
    model = source.model
    assert isinstance(model, ContentModel)
    scores = model.encode_texts(["sky", "rose"]) @ source.item_vectors[1:].T
    half = ITEMS // 2
    assert scores[0, :half].mean() > scores[0, half:].mean()
    assert scores[1, half:].mean() > scores[1, :half].mean()
    plain = model.without_query_map().encode_texts(["sky"])
    assert not np.allclose(plain, model.encode_texts(["sky"]))


def test_a_saved_source_encodes_queries_as_before(tmp_path):
    rng = np.random.default_rng(0)
    data, source = shop(pairs=SearchPairs(["thing 1"] * 400, rng.integers(1, 5, size=400)))
    assert source.model.query_map is not None
    (tmp_path / "content").mkdir()
    source.save(tmp_path / "content")
    loaded = registry.load("content", tmp_path / "content", data.catalogue)
    for query in ("thing 1", "blue"):
        assert np.array_equal(
            loaded.model.encode_texts([query]), source.model.encode_texts([query])
        )


def test_few_searches_or_searches_without_a_pattern_train_no_map():
    rng = np.random.default_rng(0)
    few = SearchPairs(["blue"] * 20, rng.integers(1, 5, size=20))
    assert shop(pairs=few)[1].model.query_map is None
    noise = SearchPairs(["blue"] * 400, rng.integers(13, 25, size=400) * 0)  # unknown items
    assert shop(pairs=noise)[1].model.query_map is None


@pytest.mark.parametrize("query", ["", "   ", "!?", "\n-\t"])
def test_a_query_without_words_is_refused(query):
    with pytest.raises(ValueError, match="no letter or digit"):
        SearchRequest(query=query)


def test_the_chains_order_counts_with_its_weight(colours):
    """The chain has no ranker, so its order is by fusion of its sources, here a fixed one."""
    data, source = colours
    liked = np.zeros(ITEMS + 1, dtype=np.float32)
    liked[20] = 1.0

    class Taste:
        name = "taste"

        def retrieve(self, queries, items, *, k):
            raise AssertionError("a search doesn't ask the chain's sources for candidates")

        def score(self, queries, items, candidates):
            return liked[candidates]

    model = recommender_of(
        (data.catalogue, {"content": source, "taste": Taste()}), "content", "taste"
    )
    chain = model.view.chain
    chain.ranker = FirstScore(list(chain.schema.names).index("taste:score"))
    request = SearchRequest(query="thing", k=ITEMS)
    queries, rows = queries_of([[]]), ["thing"]
    no_profile = np.zeros((1, 0), dtype=np.int64)
    queries = replace(queries, seen=[np.zeros(0, dtype=np.int64)], profile=no_profile)
    index = TextIndex(chain.catalogue.texts)

    def place(weight: float) -> int:
        matches = match(chain, lambda: index, queries, model.items, rows)
        found = matches.best(SearchWeights(personal=weight), k=ITEMS)
        return found.item_idx[0].tolist().index(20)

    assert place(100.0) == 0
    assert place(0) > 0
    assert len(model.search(request, at=AT).items) == ITEMS


class FirstScore:
    """A ranker whose score is one column of the features."""

    def __init__(self, column: int):
        self.column = column

    def predict(self, x, item_idx, requests):
        return x[:, self.column]


@settings(max_examples=20)
@given(query=st.text(min_size=1, max_size=200))
def test_any_text_gets_an_answer_or_a_clear_refusal(colours, query):
    if words_of(query):
        recommender(colours).search(SearchRequest(query=query), at=AT)
    else:
        with pytest.raises(ValueError, match="no letter or digit"):
            SearchRequest(query=query)
