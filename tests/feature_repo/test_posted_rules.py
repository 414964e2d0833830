"""`[data] like_threshold` and `exclude` apply to posted events before and after a refresh.

Each event goes through the inbox into the tail, and into the lake by staging.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows.featurize import featurize
from models.recommend.hydrate import empty_rows
from services.events.event_log import EventLog, excluded_by
from shortlist.behaviour.counting import ListRules
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS
from shortlist.datasets import DataConfig, stage_source
from shortlist.datasets.service.posted import excluded_ids
from shortlist.datasets.service.service_log import load_posted_events
from shortlist.feature_store import OnlineReader, build_states
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.feature_store.online.tail import known_at
from shortlist.lake import Lake, open_staged
from shortlist.lake.staging import staged_events
from tests.examples import examples
from tests.feature_repo.posted import (
    END,
    ITEMS_HERE,
    PEOPLE,
    START,
    USERS_HERE,
    batch_rows,
    posted_events,
    table_of,
)
from tests.feature_repo.streams import assert_same

EXCLUDE = (
    "user_id = 'v' AND event_type <> 'rating'",
    "value > 4.5 OR query = 'about i001'",
    "event_timestamp >= TIMESTAMPTZ '1997-05-20 00:00:00+00' AND surface IS NOT NULL",
)


def data_config(targets: tuple[str, ...], **rules: Any) -> DataConfig:
    return DataConfig(source="service", target_events=targets, impressions=False, **rules)


def take_in(home: Settings, data: DataConfig) -> None:
    """Stage the inbox and publish its rows in the lake, as a refresh does with valid rows."""
    batch = stage_source(data, home, now=END)
    folder, _ = open_staged(home.lake, batch.batch_id)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(
            f"SELECT {', '.join(INTERACTIONS.names)} FROM {staged_events(folder)}"
            " WHERE NOT excluded"
        ).to_arrow_table()
    Lake(home.lake).publish(batch.batch_id, rows.cast(INTERACTIONS), ITEMS_HERE, PEOPLE)


def lines_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events as the service stores them, in the order of arrival."""
    events = sorted(events, key=lambda event: event["received_at"])
    return [
        {
            key: value
            for key, value in (event | {"event_id": str(i)}).items()
            if key != "again" and value is not None and value == value
        }
        for i, event in enumerate(events)
    ]


@settings(max_examples=examples(12), deadline=None, phases=[Phase.generate])
@given(
    events=posted_events,
    targets=st.sampled_from([("like",), ("rating", "like"), ("click", "rating")]),
    low_rating=st.sampled_from([None, 1.0]),
    like_threshold=st.sampled_from([None, 1.0, 4.0]),
    exclude=st.sampled_from([(), EXCLUDE[:1], EXCLUDE[1:]]),
    cut=st.integers(0, 40 * 24),
)
def test_the_tail_counts_what_the_lake_will_hold(
    events, targets, low_rating, like_threshold, exclude, cut
) -> None:
    # Add one event that counts with any rules.
    events = [*events, events[0] | {"event_type": targets[-1], "user_id": "u", "value": 2.0}]
    events[-1] |= {"query": None, "event_timestamp": START, "received_at": START, "item_id": "i002"}
    data = data_config(
        targets, low_rating=low_rating, like_threshold=like_threshold, exclude=exclude
    )
    lines, cut = lines_of(events), START + cut * HOUR
    edges = {known_at(event) + d for event in lines for d in (-1, 0, 1)}
    moments = [(user, at) for user in USERS_HERE for at in sorted(edges | {END}) if at >= cut]
    with tempfile.TemporaryDirectory() as temporary:
        home = Settings(home=Path(temporary))
        Lake(home.lake).publish("first", INTERACTIONS.empty_table(), ITEMS_HERE, PEOPLE)
        log = EventLog(home.events, excluded=lambda rows: excluded_ids(rows, data.exclude))
        assert log.append(lines) == lines
        take_in(home, data)

        def states(name: str, until: int) -> Path:
            lake = Lake(home.lake)
            build_states(
                lake.interaction_files(),
                lake.users(),
                folder=home.home / name,
                target_events=targets,
                until=until,
                lists=data.lists,
            )
            return home.home / name

        users, at = [user for user, _ in moments], np.array([at for _, at in moments])
        base, stamp = empty_rows(users, [""] * len(users), at), 0
        if cut > START:
            log.tail.covered(cut)
            held = batch_rows(states("cut", cut), [(user, cut) for user in users])
            base, stamp = type(held)(**vars(held) | {"at": at}), cut
        folded = fold(
            base,
            {view: np.full(len(users), stamp) for view in USER_VIEWS},
            tails=log.tail.read(users),
            target_events=frozenset(targets),
            lists=data.lists,
        )
        assert_same(folded, batch_rows(states("all", END), moments))
        assert_skew_reads_the_same(home, data)
        log.close()


def assert_skew_reads_the_same(home: Settings, data: DataConfig) -> None:
    """The inbox, as the skew check reads it, has the same events as the lake after ingest."""
    read = load_posted_events(home, now=END, lists=data.lists).interactions
    held = Lake(home.lake).interactions()
    names = ["event_id", "event_type", "user_id"]
    order = [("event_id", "ascending")]
    assert read.select(names).sort_by(order).to_pylist() == (
        held.select(names).sort_by(order).to_pylist()
    )


def test_nothing_changes_for_a_user_when_the_refresh_comes(tmp_path: Path) -> None:
    home = Settings(home=tmp_path)
    rules = {"like_threshold": 4.0, "exclude": ("user_id = 'v' AND value = 5",)}
    data = data_config(("like",), **rules)
    first = {"user_id": "u", "item_id": "i001", "event_type": "like", "value": None}
    first |= {"event_timestamp": START, "received_at": START, "query": None, "event_id": "first"}
    other = first | {"user_id": "v", "event_id": "other"}
    Lake(home.lake).publish("first", table_of([first, other]), ITEMS_HERE, PEOPLE)
    featurize(home, data.target_events, until=START + DAY, lists=data.lists)
    events = [("hide", "i007", None), ("rating", "i007", 5.0), ("rating", "i008", 5.0)]
    lines = [
        {
            **{"event_id": f"{user}{i}", "user_id": user, "item_id": item, "event_type": kind},
            **{"event_timestamp": START + 2 * DAY + i, "received_at": START + 2 * DAY + i},
        }
        | ({} if value is None else {"value": value})
        for user in USERS_HERE
        for i, (kind, item, value) in enumerate(events)
    ]
    log = EventLog(home.events, excluded=excluded_by(home))
    assert log.append(lines) == lines
    assert log.append(lines) == []  # ids of excluded events are remembered too
    log.close()

    def rows():
        return OnlineReader(home).read([*USERS_HERE], ["", ""], np.full(2, START + 3 * DAY))

    before = rows()
    assert before.user["user_events"].tolist() == [3.0, 1.0]
    assert before.history_items == [["i001", "i007", "i008"], ["i001"]]
    assert [held.items for held in before.refusals] == [(), ("i007",)]
    take_in(home, data)
    featurize(home, data.target_events, until=START + 2 * DAY + HOUR, lists=data.lists)
    assert_same(rows(), before)


def test_a_condition_that_cannot_be_evaluated_keeps_no_event_out(tmp_path: Path, caplog) -> None:
    """If an `exclude` condition fails for a post, its events are kept and a warning is logged."""
    home = Settings(home=tmp_path)
    home.feast.mkdir(parents=True)
    (home.feast / "counted.json").write_text(
        '{"target_events": [], "exclude": ["user_id::INT = 3"]}'
    )
    line = {"event_id": "e", "user_id": "u", "item_id": "i", "event_type": "click"}
    assert excluded_by(home)([line]) == frozenset()
    assert "user_id::INT = 3" in caplog.text
    assert excluded_by(home)([line | {"user_id": "3"}]) == {"e"}


def test_a_threshold_makes_likes_of_ratings_alone() -> None:
    """A like is derived only from ratings with a value of at least the threshold."""
    from shortlist.behaviour.counting import with_like

    def types(**event: Any) -> list[str]:
        return [row["event_type"] for row in with_like({"event_id": "e"} | event, 4.0)]

    assert types(event_type="rating", value=4.0) == ["rating", "like"]
    assert types(event_type="rating", value=3.5) == types(event_type="rating") == ["rating"]
    assert types(event_type="rating", value=math.nan) == ["rating"]
    assert types(event_type="review", value=5.0) == ["review"]
    assert list(with_like({"event_type": "rating", "value": 5.0}, ListRules().like_threshold)) == [
        {"event_type": "rating", "value": 5.0}
    ]
