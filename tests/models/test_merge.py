"""Merging the lists of several sources; expected values are computed by hand."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.queries import Candidates, mask_left_out, top_k
from models.recommend.chain import fused_score
from models.recommend.merge import merge
from tests.models.small_data import queries_of


def candidates(rows: list[list[int]]) -> Candidates:
    item_idx = np.array(rows, dtype=np.int64)
    return Candidates(item_idx=item_idx, score=np.where(item_idx > 0, 1.0, -np.inf))


def test_union_keeps_each_item_once_with_its_rank_in_every_source():
    merged = merge(
        {"a": candidates([[5, 2, 0], [1, 0, 0]]), "b": candidates([[2, 7, 9], [0, 0, 0]])}
    )
    assert merged.item_idx.tolist() == [[2, 5, 7, 9], [1, 0, 0, 0]]
    assert merged.ranks["a"].tolist() == [[2, 1, 0, 0], [1, 0, 0, 0]]
    assert merged.ranks["b"].tolist() == [[1, 0, 2, 3], [0, 0, 0, 0]]


def test_the_sources_that_found_each_candidate():
    found = {"a": [[5, 2]], "b": [[2, 5]], "c": [[5, 9]]}
    merged = merge({name: candidates(rows) for name, rows in found.items()})
    # Ranks of items 2, 5, 9: in a 2, 1, none; in b 1, 2, none; in c none, 1, 2.
    assert merged.item_idx.tolist() == [[2, 5, 9]]
    assert merged.found_by()[0].tolist() == [
        [True, True, False],
        [True, True, True],
        [False, False, True],
    ]


def test_fusion_is_the_sum_of_reciprocal_ranks():
    merged = merge({"a": candidates([[5, 2]]), "b": candidates([[2, 7]])})
    expected = [[1 / (60 + 2) + 1 / (60 + 1), 1 / (60 + 1), 1 / (60 + 2)]]  # items 2, 5, 7
    np.testing.assert_allclose(fused_score(merged), expected, rtol=1e-6)


def test_lists_of_different_lengths_are_merged():
    merged = merge({"a": candidates([[5]]), "b": candidates([[2, 5, 0]])})
    assert merged.item_idx.tolist() == [[2, 5]]
    assert merged.ranks["a"].tolist() == [[0, 1]]


def test_nothing_found_by_anyone_gives_an_empty_shortlist():
    merged = merge({"a": candidates([[0, 0]]), "b": candidates([[0, 0]])})
    assert merged.item_idx.shape == (1, 0)


LISTS = st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True)


@given(st.lists(LISTS, min_size=1, max_size=4))
def test_every_source_finds_its_own_list_again(lists: list[list[int]]):
    width = max(len(items) for items in lists)
    found = {
        str(s): candidates([items + [0] * (width - len(items))]) for s, items in enumerate(lists)
    }
    merged = merge(found)
    real = merged.item_idx[0][merged.item_idx[0] > 0]
    assert sorted(real) == sorted({item for items in lists for item in items})
    for s, items in enumerate(lists):
        ranks = merged.ranks[str(s)][0]
        order = np.argsort(np.where(ranks > 0, ranks, np.inf), kind="stable")[: len(items)]
        assert merged.item_idx[0][order].tolist() == items


def test_top_k_breaks_ties_by_the_smaller_index_and_turns_items_left_out_into_padding():
    scores = np.array([[9.0, 1.0, 3.0, 3.0, 2.0, 8.0]])
    queries = replace(queries_of([[4]]), blocked=np.isin(np.arange(6), [0, 5]))
    best = top_k(mask_left_out(scores, queries), 4)
    assert best.item_idx.tolist() == [[2, 3, 1, 0]]
    assert best.score.tolist() == [[3.0, 3.0, 1.0, -np.inf]]
