"""Stores the test window's figures per user and per request, for comparisons across runs."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from flows.evaluation.judge import ITEM_SLICES, Lists, Slice, user_groups
from flows.runtime.configuration import EvaluateConfig
from flows.training.assemble import EvaluationBatch
from shortlist.behaviour.value import NAMES, amounts_at, discounted
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import intra_list_diversity, mrr, ndcg, novelty, precision, recall

OF = " of "
"""Separates metric and slice in the name of a column, such as `ndcg@10 of tail_items`."""
DISCOUNTED = " discounted"
"""End of the name of a column with an outcome's amounts, discounted by position as in DCG."""


def ndcg_of_users(methods: dict[str, Lists], ticks: list[EvaluationBatch], *, k: int) -> pa.Table:
    """Return the mean nDCG@k of each user under each method, for comparisons across runs.

    Columns: user_id, method, ndcg.
    """
    users = np.array([user for tick in ticks for user in tick.queries.user_ids])
    relevant = [wanted for tick in ticks for wanted in tick.relevant]
    parts = []
    for name, lists in methods.items():
        values = ndcg(lists.item_idx, relevant, k=k)
        kept = ~np.isnan(values)
        ids, row = np.unique(users[kept], return_inverse=True)
        mean = np.bincount(row, weights=values[kept]) / np.bincount(row)
        parts.append(pa.table({"user_id": ids, "method": [name] * len(ids), "ndcg": mean}))
    return pa.concat_tables(parts)


def request_figures(
    lists: Lists,
    ticks: list[EvaluationBatch],
    catalogue: Catalogue,
    item_counts: np.ndarray,
    slices: Mapping[str, Slice],
    config: EvaluateConfig,
) -> pa.Table:
    """Return the figures of each request under one method.

    Columns: user_id, at (microseconds), relevant (number of relevant items), group (see
    `user_groups`), items (the first k item_idx), metrics, metrics of item slices, and the amount of
    each outcome that occurs in the window, plain and discounted by position.
    """
    k, depth = config.list_size, max(config.ks)
    shown = lists.item_idx[:, :k]
    relevant = [wanted for tick in ticks for wanted in tick.relevant]
    next_set = [wanted for tick in ticks for wanted in tick.next_set]
    metrics = {
        f"ndcg@{k}": ndcg(lists.item_idx, relevant, k=k),
        f"recall@{depth}": recall(lists.item_idx, relevant, k=depth),
        f"precision@{k}": precision(lists.item_idx, relevant, k=k),
        f"mrr@{depth}": mrr(lists.item_idx, next_set, k=depth),
        f"diversity@{k}": intra_list_diversity(shown, catalogue.category_matrix),
        f"novelty@{k}": novelty(shown, item_counts),
    }
    for name in ITEM_SLICES:
        wanted = slices[name].relevant
        metrics[f"ndcg@{k}{OF}{name}"] = ndcg(lists.item_idx, wanted, k=k)
        metrics[f"recall@{depth}{OF}{name}"] = recall(lists.item_idx, wanted, k=depth)
    return pa.table(
        {
            "user_id": [user for tick in ticks for user in tick.queries.user_ids],
            "at": np.concatenate([tick.queries.at for tick in ticks]),
            "relevant": np.array([len(wanted) for wanted in relevant], dtype=np.int32),
            "group": user_groups(ticks),
            "items": pa.array(list(shown.astype(np.int32)), pa.list_(pa.int32())),
        }
        | {
            name: values.astype(np.float32)
            for name, values in (metrics | outcome_amounts(shown, ticks)).items()
        }
    )


def outcome_amounts(shown: np.ndarray, ticks: list[EvaluationBatch]) -> dict[str, np.ndarray]:
    """Return the amount of each outcome in the shown lists, plain and discounted by position.

    Outcomes that no user of the window had are left out.

    Args:
        shown: (B, K) item_idx of all requests in `ticks`, which have outcomes.
    """
    k = shown.shape[1]
    outcomes = [pair for tick in ticks for pair in tick.outcomes or []]
    occurs = np.any([amounts.any(0) for _, amounts in outcomes if len(amounts)], axis=0)
    amounts = amounts_at(shown, outcomes)
    found = {}
    for column in np.flatnonzero(occurs):
        of_outcome, name = amounts[..., column], f"{NAMES[column]}@{k}"
        found[name] = of_outcome.sum(1)
        found[name + DISCOUNTED] = discounted(of_outcome)
    return found
