"""Reads lists that were shown to users, as training requests of rankers (`labels = "shown"`).

A list is a request whose candidates are the shown items. Its labels are the items that the user
chose from it. Features are those of any request: as of the list's time, over all candidates that
the sources find then.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flows.runtime.configuration import RunConfig
from flows.training.assemble import RunData
from models.queries import Candidates
from shortlist import columns as c
from shortlist.lake.shown_lists import ASKED, CHOSEN, PROPENSITY
from shortlist.splits import Requests

SHOWN = "shown"
"""Name of the lists among a run's windows, and of the source of their items."""
MIN_CHOSEN = 200
"""Minimum number of lists with a chosen item; with fewer, rankers learn from candidates."""
MAX_POSITION = 100
"""Items at later positions are left out."""


@dataclass(frozen=True)
class ShownLists:
    """Shown lists as requests. Shapes: B lists, P positions."""

    requests: Requests
    items: Candidates
    """(B, P) item_idx by position, 0 for a position without a known item; the score is the logged
    propensity, NaN if there is none."""


def read_shown(run_data: RunData, config: RunConfig, window: str) -> ShownLists | None:
    """Return lists that were shown in a window, at most `max_requests_per_user` of each user.

    None if fewer than MIN_CHOSEN lists have a chosen item.
    """
    assert run_data.lake is not None, "a run has a lake"
    since, until = run_data.windows[window]
    types = config.data.target_events
    table = run_data.lake.shown_lists(since=since, until=until, chosen_by=types)
    lists = _sampled(table, config) if table.num_rows else []
    chosen = sum(bool(rows.column(CHOSEN).to_numpy(zero_copy_only=False).any()) for rows in lists)
    if chosen < MIN_CHOSEN:
        print(
            f"{chosen} shown lists with a chosen item in the window {window}, want {MIN_CHOSEN}:"
            " rankers learn from the sources' candidates"
        )
        return None
    print(f"{len(lists):,} shown lists in the window {window}, {chosen:,} with a chosen item")
    return _as_requests(run_data, lists)


def _sampled(table: pa.Table, config: RunConfig) -> list[pa.Table]:
    """Split the rows into lists; draw up to `max_requests_per_user` of each user by the run's seed.

    Args:
        table: result of `Lake.shown_lists`; the rows of a list are contiguous.
    """
    users = table.column(c.USER_ID).to_numpy().astype(str)
    names = table.column(c.REQUEST_ID).to_numpy().astype(str)
    new = (users[1:] != users[:-1]) | (names[1:] != names[:-1])
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    ends = np.append(starts[1:], len(users))
    rng = np.random.default_rng([config.seed, *SHOWN.encode()])
    order = rng.permutation(len(starts))
    owner = users[starts][order]
    place = np.zeros(len(order), dtype=np.int64)  # how many drawn lists of the user come before
    by_user = np.argsort(owner, kind="stable")
    _, first, count = np.unique(owner[by_user], return_index=True, return_counts=True)
    place[by_user] = np.arange(len(order)) - np.repeat(first, count)
    kept = np.sort(order[place < config.split.max_requests_per_user])
    return [table.slice(starts[i], ends[i] - starts[i]) for i in kept]


def _as_requests(run_data: RunData, lists: list[pa.Table]) -> ShownLists:
    encode = run_data.catalogue.vocab.encode
    width = min(max(int(rows.column(c.POSITION).to_numpy().max()) for rows in lists), MAX_POSITION)
    item_idx = np.zeros((len(lists), width), dtype=np.int64)
    propensity = np.full((len(lists), width), np.nan, dtype=np.float32)
    users, at, chosen, contexts = [], [], [], []
    for row, rows in enumerate(lists):
        ids = rows.column(c.ITEM_ID).to_pylist()
        place = rows.column(c.POSITION).to_numpy() - 1
        inside = place < width
        item_idx[row, place[inside]] = encode(ids)[inside]
        propensity[row, place[inside]] = rows.column(PROPENSITY).to_numpy()[inside]
        users.append(rows.column(c.USER_ID)[0].as_py())
        at.append(rows.column(ASKED)[0].as_py())
        taken = rows.column(CHOSEN).to_pylist()
        chosen.append([item for item, is_taken in zip(ids, taken, strict=True) if is_taken])
        contexts.append((rows.column(c.SURFACE)[0].as_py(), rows.column(c.DEVICE)[0].as_py()))
    requests = Requests(users, np.array(at, dtype=np.int64), chosen, chosen, contexts)
    return ShownLists(requests, Candidates(item_idx, propensity))
