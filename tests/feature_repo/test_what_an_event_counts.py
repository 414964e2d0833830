"""The rules of shortlist/behaviour/counting.py (which events count, and when) agree in all paths.

Batch SQL, base row plus tail, and training are compared on random streams of events.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows.training.assemble import RunData, training_data
from models.recommend.hydrate import empty_rows
from models.retrieval.requests import RequestExamples
from shortlist.behaviour.counting import ListRules
from shortlist.behaviour.refusals import refuses
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import ITEMS, USERS
from shortlist.feature_store import Tail, build_states
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.feature_store.online.tail import known_at
from shortlist.features.finalize import (
    USER_FEATURES,
    USER_TARGET_FEATURES,
    RequestRows,
    finalize_user,
)
from shortlist.features.profiles import ProfileEncoder
from shortlist.lake import Lake
from shortlist.splits import split_windows
from tests.examples import examples
from tests.feature_repo.posted import (
    END,
    START,
    USERS_HERE,
    batch_rows,
    posted_events,
    table_of,
    targets_here,
)
from tests.feature_repo.streams import assert_same
from tests.models.small_data import catalogue_of


def lake_of(events: list[dict[str, Any]], folder: Path) -> Lake:
    """Return a lake with all events, of which some were published twice."""
    lake = Lake(folder / "lake")
    items = [
        {"item_id": f"i00{i}", "title": "", "categories": [], "available": True} for i in (1, 2, 3)
    ]
    users = [{"user_id": user, "attributes": []} for user in USERS_HERE]
    known = pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(users, schema=USERS)
    lake.publish("first", table_of(events), *known)
    again = [event for event in events if event["again"]]
    if again:
        lake.publish("again", table_of(again), *known)
    return lake


@settings(max_examples=examples(30), deadline=None, phases=[Phase.generate])
@given(
    events=posted_events,
    targets=targets_here,
    lists=st.sampled_from([ListRules(), ListRules(once=False, low_rating=1.0)]),
    cuts=st.lists(st.integers(0, 40 * 24), min_size=1, max_size=2),
)
def test_batch_tail_and_training_count_alike(events, targets, lists, cuts) -> None:
    events = sorted(events, key=lambda event: event["received_at"])
    events = [event | {"event_id": str(i)} for i, event in enumerate(events)]
    counted = [event for event in events if event["event_type"] in targets]
    if not counted:
        return
    edges = {known_at(event) + d for event in events for d in (-1, 0, 1)}
    moments = [(user, at) for user in USERS_HERE for at in sorted(edges | {END})]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lake = lake_of(events, folder)
        files = lake.interaction_files()

        def build(name: str, until: int) -> Path:
            build_states(
                files,
                lake.users(),
                folder=folder / name,
                target_events=targets,
                until=until,
                lists=lists,
            )
            return folder / name

        batch = batch_rows(build("all", END), moments)
        assert [*batch.user["user_events"]] == [
            sum(e["user_id"] == user and known_at(e) <= at for e in counted) for user, at in moments
        ]
        assert_lists(events, targets, lists, batch, moments)
        assert_tail_agrees(events, targets, lists, batch, moments, cuts, build, folder)
        assert_training_agrees(lake, targets, lists, folder / "all")


def assert_lists(events, targets, lists: ListRules, batch, moments) -> None:
    """Compare batch histories and refusals with a direct computation, event by event."""
    for row, (user, at) in enumerate(moments):
        known = [e for e in events if e["user_id"] == user and known_at(e) <= at and e["item_id"]]
        known.sort(key=lambda event: (known_at(event), event["event_timestamp"]))
        refused: dict[str, bool] = {}
        for e in known:
            says = refuses(e["event_type"], e["value"], low_rating=lists.low_rating)
            if says is not None:
                refused[e["item_id"]] = says
        assert {*batch.refusals[row].items} == {item for item, says in refused.items() if says}
        chosen = [e["item_id"] for e in known if e["event_type"] in targets]
        assert sorted(batch.history_items[row]) == sorted({*chosen} if lists.once else chosen)


def assert_tail_agrees(events, targets, lists, batch, moments, cuts, build, folder: Path) -> None:
    """The base row of an earlier cut, with the tail folded in, equals the batch state."""
    for number, cut in enumerate(sorted(START + hours * HOUR for hours in cuts)):
        tail = Tail(folder / f"tail{number}")
        tail.insert(events)
        assert tail.insert([event for event in events if event["again"]]) == []
        later = [(user, at) for user, at in moments if at >= cut]
        users, at = [user for user, _ in later], np.array([at for _, at in later])
        base, stamp = empty_rows(users, [""] * len(users), at), 0
        if any(known_at(e) <= cut and e["event_type"] in targets for e in events):
            tail.covered(cut)
            base, stamp = (
                batch_rows(build(f"cut{number}", cut), [(user, cut) for user in users]),
                cut,
            )
            base = RequestRows(**vars(base) | {"at": at})
        stamps = {view: np.full(len(users), stamp) for view in USER_VIEWS}
        folded = fold(
            base, stamps, tails=tail.read(users), target_events=frozenset(targets), lists=lists
        )
        tail.close()
        wanted = batch.take(np.array([i for i, (_, at) in enumerate(moments) if at >= cut]))
        assert_same(folded, wanted)


def assert_training_agrees(lake: Lake, targets, lists: ListRules, features: Path) -> None:
    """Features and histories of training requests equal those computed from the batch states."""
    interactions = lake.interactions(event_types=targets)
    run_data = RunData(
        interactions=interactions,
        asked=np.zeros(interactions.num_rows, dtype=np.int64),
        users=lake.users(),
        catalogue=catalogue_of([[]] * 3),
        windows=split_windows(np.arange(100), (0.6, 0.1, 0.1, 0.1)),
        repeat_after=None if lists.once else 0,
    )
    data = training_data(run_data, ProfileEncoder.fit([{}]), end=END)
    examples = RequestExamples(data, max_history=50, rng=np.random.default_rng(0))
    requests = [
        (data.user_ids[user], int(at))
        for user, at in zip(examples.user_row, examples.at, strict=True)
    ]
    if not requests:
        return
    served = batch_rows(features, requests)
    names = USER_FEATURES[: len(USER_TARGET_FEATURES)]
    for column, name in enumerate(names):
        np.testing.assert_allclose(
            examples.user_features[:, column],
            finalize_user(served)[:, column],
            rtol=1e-5,
            atol=1e-9,
            err_msg=name,
        )
    queries = examples.queries(np.arange(len(requests)))
    encode = data.catalogue.vocab.encode
    for row in range(len(requests)):
        items = encode(served.history_items[row])
        kept, n = items > 0, int((queries.history[row] > 0).sum())
        assert queries.history[row, :n].tolist() == items[kept].tolist()
        assert queries.history_time[row, :n].tolist() == served.history_times[row][kept].tolist()
        assert queries.history_type[row, :n].tolist() == served.history_types[row][kept].tolist()
        np.testing.assert_array_equal(
            queries.history_value[row, :n], served.history_values[row][kept]
        )
