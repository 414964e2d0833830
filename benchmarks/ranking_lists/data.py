"""Turns the log into ranking data: one request for each shown list, split by sessions."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.ranking_lists.features import Features
from benchmarks.ranking_lists.log import Action, Log
from models.ranking.protocol import RankingData
from models.ranking.requests import MAX_HISTORY, History
from models.ranking.schema import Columns
from shortlist.datasets import DatasetError

NUM_PLATFORMS = 30
WINDOWS = ("train", "validation", "test")


@dataclass(frozen=True)
class Lists:
    """The lists of one window, with the scores of the methods that learn nothing."""

    data: RankingData
    sessions: list[str]
    fixed: dict[str, np.ndarray]  # method -> (R,) scores


def make_lists(log: Log) -> dict[str, Lists]:
    """Return {window: its lists}.

    Raises:
        DatasetError: a window has no list.
    """
    counts = Counter(a.platform for a in log.actions if log.window[a.session] == 0)
    features = Features([name for name, _ in counts.most_common(NUM_PLATFORMS)])
    parts: dict[int, _Part] = {number: _Part() for number in range(len(WINDOWS))}
    for action in log.actions:
        found = features.see(action)
        if found is not None:
            parts[int(log.window[action.session])].add(action, *found)
    for number, name in enumerate(WINDOWS):
        if not parts[number].group:
            raise DatasetError(
                f"trivago: no list was clicked in the {name} window, want more sessions"
            )
    return {name: parts[number].lists(features.codes) for number, name in enumerate(WINDOWS)}


class _Part:
    """Collects the lists of a window."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.x: list[np.ndarray] = []
        self.items: list[np.ndarray] = []
        self.label: list[np.ndarray] = []
        self.group: list[int] = []
        self.sessions: list[str] = []
        self.events: list[list[tuple[int, int, int]]] = []

    def add(
        self, action: Action, columns: dict[str, np.ndarray], events: list[tuple[int, int, int]]
    ) -> None:
        """Add a list with its features and the (item, time, code) of its user's events."""
        self.names = tuple(columns)
        self.x.append(np.column_stack(list(columns.values())).astype(np.float32))
        self.items.append(np.array(action.shown))
        self.label.append(self.items[-1] == action.item)
        self.group.append(len(action.shown))
        self.sessions.append(str(action.session))
        self.events.append([(i, action.time - t, code) for i, t, code in events])

    def lists(self, codes: tuple[tuple[str, int], ...]) -> Lists:
        count = len(self.group)
        triples = np.zeros((3, count, MAX_HISTORY), dtype=np.int64)
        for row, events in enumerate(self.events):
            if events:
                triples[:, row, : len(events)] = np.array(events).T
        x = np.concatenate(self.x)
        at = {name: column for column, name in enumerate(self.names)}
        last = (x[:, at["recency_rank"]] == 0) * 100.0
        return Lists(
            data=RankingData(
                x=x,
                item_idx=np.concatenate(self.items),
                label=np.concatenate(self.label).astype(np.float32),
                group=np.array(self.group),
                users=self.sessions,
                num_relevant=np.ones(count, dtype=np.int64),
                schema=Columns(self.names, codes),
                history=History(triples[0], triples[1].astype(np.float32), triples[2]),
            ),
            sessions=self.sessions,
            fixed={
                "shown_order": -x[:, at["position"]],
                "price_order": -x[:, at["price_rank"]],
                "last_item": last - x[:, at["position"]],
            },
        )
