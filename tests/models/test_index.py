"""The vector index, compared with brute-force search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.index.build import num_probes
from models.index.config import IndexConfig
from models.index.faiss_index import VectorIndex


def vectors_of(rng: np.random.Generator, n: int, dim: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(n + 1, dim)).astype(np.float32)
    vectors[0] = 0
    return vectors


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 50), st.sets(st.integers(1, 40)), st.integers(0, 2**32 - 1)
)
def test_exact_search_is_brute_force_without_the_excluded(n, k, excluded, seed):
    rng = np.random.default_rng(seed)
    vectors = vectors_of(rng, n)
    query = rng.normal(size=(1, 8)).astype(np.float32)
    exclude = np.array(sorted(i for i in excluded if i <= n), dtype=np.int64)
    found = VectorIndex.build(vectors).search(query, k, exclude=[exclude])
    scores = vectors @ query[0]
    allowed = np.setdiff1d(np.arange(1, n + 1), exclude)
    expected = allowed[np.argsort(-scores[allowed], kind="stable")][:k]
    assert found.item_idx.shape == (1, k)
    assert found.item_idx[0, : len(expected)].tolist() == expected.tolist()
    assert not found.item_idx[0, len(expected) :].any()
    assert np.isneginf(found.score[0, len(expected) :]).all()
    np.testing.assert_allclose(
        found.score[0, : len(expected)], scores[expected], rtol=1e-4, atol=1e-5
    )


def clustered(n: int, dim: int = 32, clusters: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters, dim))
    vectors = centres[rng.integers(clusters, size=n + 1)] + 0.3 * rng.normal(size=(n + 1, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.mark.parametrize(("kind", "built"), [("auto", "ivf"), ("hnsw", "hnsw")])
def test_a_large_catalogue_is_searched_approximately_and_its_recall_is_measured(
    tmp_path, kind, built
):
    vectors = clustered(6_000)
    index = VectorIndex.build(vectors, config=IndexConfig(kind=kind, exact_up_to=1_000))
    assert index.kind == built
    queries = vectors[1:51]
    recall = index.measure_recall(queries, k=100)
    assert 0.95 <= recall <= 1
    # Recompute recall: the share of the exact top 100.
    true = np.argsort(-(queries @ vectors[1:].T), axis=1)[:, :100] + 1
    found = index.search(queries, 100).item_idx
    by_hand = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(true, found, strict=True)])
    assert recall == pytest.approx(by_hand, abs=0.01)
    index.save(tmp_path / "index.faiss")
    again = VectorIndex.load(tmp_path / "index.faiss")
    assert again.kind == built
    assert np.array_equal(again.vectors, vectors[1:])
    assert np.array_equal(again.search(queries, 100).item_idx, found)
    shared = VectorIndex.load(tmp_path / "index.faiss", index.config, vectors=vectors)
    assert np.array_equal(shared.search(queries, 100).item_idx, found)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"exact_up_to": 99}, "ivf"),
        ({"exact_up_to": 100}, "exact"),
        ({"kind": "hnsw"}, "hnsw"),
        ({"kind": "ivf", "lists": 200}, "ivf"),
        ({"kind": "exact", "exact_up_to": 0}, "exact"),
    ],
)
def test_the_configuration_decides_the_type(config, kind, tmp_path):
    index = VectorIndex.build(clustered(100), config=IndexConfig(**config))
    assert index.kind == kind
    index.save(tmp_path / "index.faiss")
    assert VectorIndex.load(tmp_path / "index.faiss", index.config).kind == kind


def test_a_search_with_many_exclusions_does_not_change_the_index(tmp_path):
    """A search with many exclusions uses a larger ef_search only for itself."""
    vectors = clustered(3_000)
    config = IndexConfig(exact_up_to=1_000, ef_search=16)
    index = VectorIndex.build(vectors, config=config)
    index.save(tmp_path / "before.faiss")
    queries = vectors[1:21]
    exclude = [np.arange(1, 2_900)] * len(queries)
    found = index.search(queries, 10, exclude=exclude)
    assert (found.item_idx >= 2_900).all()
    index.save(tmp_path / "after.faiss")
    assert (tmp_path / "before.faiss").read_bytes() == (tmp_path / "after.faiss").read_bytes()


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("share", [1.0, 0.97, 0.9, 0.3, 0.05, 0.01, 0.002])
def test_filters_of_any_width_leave_k_items_and_almost_the_exact_ones(kind, share):
    """Each way to search: exact, all scores with a mask, filtered, unfiltered and dropped."""
    vectors = clustered(6_000)
    index = VectorIndex.build(vectors, config=IndexConfig(kind=kind))
    rng = np.random.default_rng(3)
    blocked = rng.random(len(vectors)) >= share
    blocked[0] = True
    recalls = []
    for query in vectors[1:31]:
        seen = rng.integers(1, len(vectors), size=50)
        found = index.search(query[None], 10, exclude=[seen], blocked=blocked).item_idx[0]
        allowed = ~blocked
        allowed[seen] = False
        rows = np.flatnonzero(allowed)
        best = rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:10]]
        assert allowed[found[found > 0]].all()
        assert len(np.unique(found[found > 0])) == min(10, len(rows))
        recalls.append(len(np.intersect1d(best, found)) / len(best))
    assert np.mean(recalls) >= (1.0 if kind == "exact" or share <= 0.01 else 0.97)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_list_is_full_if_the_lists_that_are_read_hold_too_few_items(kind, batch):
    """The allowed items are far from the query, in lists that a search reads last."""
    vectors = clustered(6_000)
    index = VectorIndex.build(vectors, config=IndexConfig(kind=kind, lists=60, probes=1))
    query = vectors[[1]]
    blocked = np.ones(len(vectors), dtype=bool)
    far = np.argsort(vectors[1:] @ query[0], kind="stable")[:1_000] + 1
    blocked[far] = False
    found = index.search(np.repeat(query, batch, axis=0), 50, blocked=blocked)
    assert (found.item_idx > 0).all()
    assert np.isin(found.item_idx, far).all()


def test_more_lists_are_read_if_fewer_items_are_allowed():
    vectors = clustered(6_000)
    index = VectorIndex.build(vectors, config=IndexConfig(kind="ivf", lists=100, probes=4))
    assert num_probes(index.index, 10, share=1.0) == 4
    assert num_probes(index.index, 10, share=0.25) == 8
    assert (
        num_probes(index.index, 300, share=0.5) == 40
    )  # 4 x 300 items in lists of 60, half of them allowed
    assert num_probes(index.index, 6_000, share=1.0) == 100


def test_a_filter_holds_for_every_query_of_a_batch():
    vectors = clustered(3_000)
    for config in (IndexConfig(), IndexConfig(exact_up_to=100)):
        index = VectorIndex.build(vectors, config=config)
        for share in (0.5, 0.004):
            blocked = np.random.default_rng(0).random(len(vectors)) >= share
            blocked[0] = True
            seen = [np.arange(1, 1 + 40 * n) for n in range(5)]
            together = index.search(vectors[1:6], 5, exclude=seen, blocked=blocked)
            for row, (query, items) in enumerate(zip(vectors[1:6, None], seen, strict=True)):
                alone = index.search(query, 5, exclude=[items], blocked=blocked)
                found = together.item_idx[row]
                assert not blocked[found[found > 0]].any()
                assert not np.isin(found, items).any()
                assert found.tolist() == alone.item_idx[0].tolist()


def test_searching_does_not_change_the_threads_of_torch():
    before = torch.get_num_threads()
    index = VectorIndex.build(clustered(100))
    for batch in (1, 64):
        index.search(clustered(batch)[1:], 5)
    assert torch.get_num_threads() == before


def test_one_query_gets_what_it_gets_in_a_batch():
    vectors = clustered(2_000)
    for config in (IndexConfig(), IndexConfig(exact_up_to=100)):
        index = VectorIndex.build(vectors, config=config)
        together = index.search(vectors[1:65], 10)
        for row in (0, 20, 63):
            alone = index.search(vectors[1 + row : 2 + row], 10)
            assert alone.item_idx[0].tolist() == together.item_idx[row].tolist()
            np.testing.assert_allclose(alone.score[0], together.score[row], rtol=1e-4)


def test_any_of_several_items_with_equal_scores_counts_as_found():
    rng = np.random.default_rng(0)
    distinct = np.repeat(rng.normal(size=(30, 64)), 150, axis=0)
    vectors = np.zeros((len(distinct) + 1, 64), np.float32)
    vectors[1:] = distinct * (1 + 1e-7 * rng.normal(size=(len(distinct), 1)))  # rounding error
    index = VectorIndex.build(vectors, config=IndexConfig(kind="ivf", lists=30))
    assert index.measure_recall(vectors[1::150]) == 1.0


def test_an_exact_index_has_recall_one():
    vectors = clustered(500)
    assert VectorIndex.build(vectors).measure_recall(vectors[1:20], k=50) == 1.0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros(3, dtype=np.float32), r"shape \(3,\), want \(N \+ 1, D\)"),
        (np.array([[0, 0], [np.nan, 1]], dtype=np.float32), "1 vectors are not finite"),
        (np.zeros((1, 4), dtype=np.float32), "there is no item"),
    ],
)
def test_bad_vectors_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        VectorIndex.build(vectors)


def test_k_and_exclusions_that_do_not_fit_are_refused():
    index, queries = VectorIndex.build(clustered(10)), clustered(2)[1:]
    with pytest.raises(ValueError, match="k is 0, want at least 1"):
        index.search(queries, 0)
    with pytest.raises(ValueError, match="1 exclusions for 2 queries"):
        index.search(queries, 2, exclude=[np.array([1])])


def test_a_query_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 3\), want \(B, 32\)"):
        VectorIndex.build(clustered(10)).search(np.zeros((1, 3), dtype=np.float32), 2)


def test_a_file_that_is_no_index_is_refused(tmp_path):
    path = tmp_path / "index.faiss"
    path.write_bytes(b"not an index at all")
    with pytest.raises(ValueError, match="cannot be read as a FAISS index"):
        VectorIndex.load(path)
