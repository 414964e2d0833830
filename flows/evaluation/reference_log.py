"""Writes the lists of the test window as a serving log, with which monitoring compares traffic."""

import pyarrow as pa

from flows.training.assemble import EvaluationBatch
from models.recommend.chain import Chain, Ranked
from models.recommend.rules import RULES_VERSION
from shortlist.contracts import SERVING_LOG


def reference_log(
    ranked: list[Ranked], ticks: list[EvaluationBatch], chain: Chain, *, k: int
) -> pa.Table:
    """Convert the chain's test lists to the SERVING_LOG contract.

    Args:
        ranked: lists and features of the requests, one entry for each batch in `ticks`.
        k: maximum length of a list.
    """
    names = chain.source_names
    ids = chain.catalogue.vocab.ids
    rows = [
        {
            "request_id": f"test-{int(tick.queries.at[row])}-{user_id}",
            "release_id": "unpublished",
            "pack_id": tick.items.pack_id,
            "arm": "main",
            "user_id": user_id,
            "context_id": tick.context_ids[row],
            "event_timestamp": int(tick.queries.at[row]),
            "user_as_of": int(tick.queries.history_time[row].max()),
            "delta_epoch": 0,
            "rules_version": RULES_VERSION,
            "skipped_stages": [],
            "item_id": ids[best.item_idx[row, position] - 1],
            "position": position + 1,
            "source": names[best.source[row, position]],
            "score": float(best.score[row, position]),
            "propensity": float(best.propensity[row, position]),
            "features": best.features[row, position],
        }
        for tick, best in zip(ticks, ranked, strict=True)
        for row, user_id in enumerate(tick.queries.user_ids)
        for position in range(min(k, int((best.item_idx[row] > 0).sum())))
    ]
    columns = {}
    for field in SERVING_LOG:
        values = [row.get(field.name) for row in rows]
        if pa.types.is_timestamp(field.type):
            columns[field.name] = pa.array(values, pa.int64()).cast(field.type)
        else:
            columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=SERVING_LOG)
