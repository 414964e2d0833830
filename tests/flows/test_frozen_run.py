"""A run reads the lake as of its start: later events, items and users have no effect on it."""

import json
import time

import numpy as np
import pytest

from flows.featurize import featurize
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run, RunError
from flows.runtime.steps import Steps
from flows.training.assemble import load_run_data
from flows.training.windows import read_windows
from shortlist.contracts import ITEMS
from shortlist.lake import LakeError
from shortlist.lake.leases import LEASE_DAYS, end_lease, held_by_another, leased_versions
from shortlist.lake.snapshot import KEPT_SNAPSHOTS
from tests.flows.conftest import DAY, START, House, event, item

CONFIG = RunConfig.model_validate(
    {
        "name": "small",
        "data": {"source": "movielens-100k", "clock": "replay"},
        "train": {"sources": [{"kind": "popularity"}], "rankers": []},
    }
)
EVENTS = [event(i, user_id=f"u{i % 7}", item_id=f"i{i % 20}") for i in range(60)]
ITEMS_THERE = [item(i) for i in range(20)]


@pytest.fixture
def started(house: House) -> Run:
    house.validate(EVENTS, ITEMS_THERE)
    until = CONFIG.clock(house.settings).now()
    featurize(house.settings, CONFIG.data.target_events, until=until)
    return Run.start(house.settings, CONFIG)


def commit(house: House, number: int) -> None:
    """Ingest a later event of a new item, and a changed title of a known item."""
    at = START + (60 + number) * DAY
    rows = [event(100 + number, event_timestamp=at, item_id=f"new{number}")]
    house.validate(rows, [item(0, title=f"T{number}"), {**item(0), "item_id": f"new{number}"}], [])


def test_commits_after_the_start_change_no_window_no_vocabulary_and_no_request(
    house: House, started: Run
) -> None:
    names = ("ranker_train", "validation", "test")
    run_data = load_run_data(house.settings, started)
    ticks, _ = read_windows(started.states(house.settings), run_data, CONFIG, windows=names)
    for number in range(KEPT_SNAPSHOTS + 1):
        commit(house, number)
    # Imported history changes earlier states, so all states are rebuilt.
    house.validate(
        [event(i, event_timestamp=START - DAY + i, item_id="i3") for i in range(200, 240)]
    )
    until = CONFIG.clock(house.settings).now()
    featurize(house.settings, CONFIG.data.target_events, until=until)
    assert house.lake.items().num_rows > len(run_data.catalogue.vocab.ids)

    again = load_run_data(house.settings, started)
    assert again.interactions.equals(run_data.interactions)
    assert again.users.equals(run_data.users)
    assert again.windows == run_data.windows
    assert again.catalogue.vocab.ids == run_data.catalogue.vocab.ids
    now, _ = read_windows(house.settings, again, CONFIG, windows=names)
    assert not np.array_equal(
        ticks["test"][0].items.state["item_events"], now["test"][0].items.state["item_events"]
    )
    reread, _ = read_windows(started.states(house.settings), again, CONFIG, windows=names)
    for name in names:
        assert len(ticks[name]) == len(reread[name]) > 0
        for before, after in zip(ticks[name], reread[name], strict=True):
            assert before.queries.user_ids == after.queries.user_ids
            np.testing.assert_array_equal(before.queries.history, after.queries.history)
            np.testing.assert_array_equal(before.queries.at, after.queries.at)
            for column, values in before.items.state.items():
                np.testing.assert_array_equal(values, after.items.state[column], err_msg=column)
            for wanted, found in zip(before.relevant, after.relevant, strict=True):
                np.testing.assert_array_equal(wanted, found)


def test_the_run_says_where_its_data_ends_and_keeps_its_catalogue(
    house: House, started: Run
) -> None:
    assert started.data_end == START + 59 * DAY + 1
    assert started.windows["test"][1] == started.data_end
    assert started.items.schema.names == ITEMS.names
    commit(house, 0)
    assert Run.open(house.settings, started.run_id).data_end == START + 59 * DAY + 1


def test_the_snapshot_goes_when_the_run_has_ended(house: House, started: Run) -> None:
    for number in range(KEPT_SNAPSHOTS):
        commit(house, number)
    assert started.lake(house.settings).interactions().num_rows == 60
    started.end(house.settings)
    commit(house, KEPT_SNAPSHOTS)
    with pytest.raises(LakeError, match="the snapshot was removed; start a new run"):
        started.lake(house.settings).interactions()


def test_a_lease_outlives_its_process_by_a_week(house: House, started: Run) -> None:
    root = house.settings.lake
    path = root / "leases" / f"{started.run_id}.json"
    lease = json.loads(path.read_text())
    dead = lease | {"pid": 2**22 + 1}  # above the kernel's largest process id
    path.write_text(json.dumps(dead))
    assert leased_versions(root) == {1}
    week_ago = int(time.time()) - LEASE_DAYS * 86_400 - 1
    path.write_text(json.dumps(lease | {"since": week_ago}))
    assert leased_versions(root) == {1}  # this process is alive
    path.write_text(json.dumps(dead | {"since": week_ago}))
    assert leased_versions(root) == set()
    assert not path.exists()
    end_lease(root, started.run_id)  # does nothing without a lease


def test_frozen_states_go_with_the_lease(house: House, started: Run) -> None:
    """A run's frozen states are removed with its lease, at its end or when the next run starts."""
    assert started.states(house.settings).features.is_dir()
    started.end(house.settings)
    assert started.states(house.settings) == house.settings
    killed = Run.start(house.settings, CONFIG)
    end_lease(house.settings.lake, killed.run_id)  # as if LEASE_DAYS had passed
    assert killed.states(house.settings) != house.settings
    living = Run.start(house.settings, CONFIG)
    assert killed.states(house.settings) == house.settings
    assert living.states(house.settings).features.is_dir()


def test_runs_of_the_same_second_are_two_runs_in_their_order(house: House, started: Run) -> None:
    more = [Run.start(house.settings, CONFIG) for _ in range(3)]
    ids = [run.run_id for run in (started, *more)]
    assert len(set(ids)) == 4
    assert ids == sorted(ids)
    assert Run.open(house.settings) == more[-1]


def test_a_start_that_fails_leaves_no_run(house: House) -> None:
    house.validate(EVENTS[:2], ITEMS_THERE)
    with pytest.raises(ValueError, match="is empty"):
        Run.start(house.settings, CONFIG)
    with pytest.raises(RunError, match="no run there yet"):
        Run.open(house.settings)


def test_a_run_has_its_folder_before_it_reads_anything(house: House) -> None:
    """A run that was killed before it was frozen can be opened by its id and frozen later."""
    run = Run.create(house.settings, CONFIG)
    with pytest.raises(RunError, match="no run there yet"):
        Run.open(house.settings)
    house.validate(EVENTS, ITEMS_THERE)
    featurize(house.settings, CONFIG.data.target_events, until=START + 60 * DAY)
    again = Run.open(house.settings, run.run_id)
    assert (again.config, again.is_frozen) == (CONFIG, False)
    again.freeze(house.settings)
    assert Run.open(house.settings, of="small") == run
    edges = again.windows
    house.validate([event(90, event_timestamp=START + 90 * DAY)], [], [])
    again.freeze(house.settings)
    assert (again.windows, leased_versions(house.settings.lake)) == (edges, {1})
    with pytest.raises(RunError, match="no run of configuration 'other'"):
        Run.open(house.settings, of="other")
    with pytest.raises(RunError, match="is of configuration 'small', not 'other'"):
        Run.open(house.settings, run.run_id, of="other")


def test_a_run_that_another_process_works_on_is_not_ended(house: House, started: Run) -> None:
    assert not held_by_another(house.settings.lake, started.run_id)
    path = house.settings.lake / "leases" / f"{started.run_id}.json"
    lease = json.loads(path.read_text())
    path.write_text(json.dumps(lease | {"pid": 1}))
    assert held_by_another(house.settings.lake, started.run_id)
    path.write_text(json.dumps(lease | {"pid": 2**22 + 1}))
    assert not held_by_another(house.settings.lake, started.run_id)


def test_a_resumed_run_skips_what_is_finished_and_keeps_its_order(house: House) -> None:
    run = Run.create(house.settings, CONFIG)
    done: list[str] = []

    def step(name: str) -> dict[str, str]:
        done.append(name)
        if name == "evaluate" and done.count("evaluate") == 1:
            raise OSError("disk full")
        return {"made_by": name}

    first = Steps(run)
    first.perform("ingest", step, "ingest")
    first.perform("train", step, "train")
    with pytest.raises(OSError, match="disk full"):
        first.perform("evaluate", step, "evaluate")

    second = Steps(run)
    assert second.perform("train", step, "train") == {"made_by": "train"}
    second.perform("evaluate", step, "evaluate")
    assert done == ["ingest", "train", "evaluate", "evaluate"]
    assert second.result("ingest") == {"made_by": "ingest"}
    assert second.result("validate") is None
    assert list(Steps(run).seconds) == ["ingest", "train", "evaluate"]
    second.redo("train", step, "train")
    assert done[-1] == "train"
    assert list(Steps(run).seconds) == ["ingest", "train"]  # redoing a step drops later steps
