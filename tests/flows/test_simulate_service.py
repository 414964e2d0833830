"""The closed loop over HTTP: posted events and their order, the nightly ingest, a dead service.

A stand-in replaces the service here; `shortlist simulate` uses a real one.
"""

import itertools
import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from flows.closed_loop.arms import (
    DEFAULT_IN_PROCESS,
    DEFAULT_OVER_HTTP,
    in_process_problem,
    over_http_problem,
    parse_arms,
)
from flows.closed_loop.nights import drop_unfinished_events, ingest_night, run_config
from flows.closed_loop.service_loop import ServiceLoop
from flows.closed_loop.service_policy import EventPoster, ServicePolicy, event_batches
from flows.closed_loop.setting import Schedule, Setting
from flows.releases.service_process import free_port
from flows.simulate import open_setting, simulate_in_process, simulate_with_service
from shortlist.config import ConfigError, Settings
from shortlist.http.api import Item, RecommendRequest, RecommendResponse
from shortlist.http.client import ServiceError, ShortlistClient
from simulation.day import ShownPages, simulate_day
from simulation.source import stage_simulated
from simulation.state import State

SCHEDULE = Schedule(warm_days=3, shadow_days=0)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    cache = tmp_path_factory.mktemp("cache")
    return open_setting("tiny", days=3, schedule=SCHEDULE, cache=cache)


class Recorder:
    """Stand-in for the HTTP client: records posts; all responses show the first items."""

    def __init__(self, item_ids: list[str]):
        self.item_ids = item_ids
        self.requests: list[RecommendRequest] = []
        self.posts: list[list] = []

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        self.requests.append(request)
        items = [
            Item(item_id=item_id, title="", score=1.0, rank=rank, source="item_knn")
            for rank, item_id in enumerate(self.item_ids[: request.k - 2], start=1)
        ]
        return RecommendResponse(
            request_id=f"{request.user_id}@{request.at}",
            release_id="r",
            user_known=True,
            items=items,
            at=request.at or 0,
        )

    def events(self, events) -> None:
        self.posts.append(list(events))


@pytest.fixture(scope="module")
def told(setting) -> SimpleNamespace:
    """The record of day 3, with a service whose release contains only the first 150 items."""
    state = State.fresh(setting.world, 0, setting.world.num_users)
    for day in range(3):
        simulate_day(setting.world, state, day)
    recorder = Recorder(setting.item_ids)
    policy = ServicePolicy(setting, cast(ShortlistClient, recorder))
    poster = EventPoster(setting, policy, known_items=150)
    rounds: list[ShownPages] = []

    def watch(shown: ShownPages) -> None:
        rounds.append(shown)
        poster(shown)

    parts = simulate_day(setting.world, state, 3, policy=policy, watch=watch)
    poster.post(parts[0])
    return SimpleNamespace(recorder=recorder, poster=poster, rounds=rounds, parts=parts)


def test_a_page_is_asked_for_its_own_moment_and_filled_as_answered(setting, told):
    first = told.rounds[0]
    home = np.flatnonzero(first.page.topic < 0)
    asked = {request.user_id: request for request in told.recorder.requests[: len(home)]}
    for row in home:
        request = asked[setting.user_ids[first.page.user[row]]]
        assert request.at == first.page.at[row]
        assert request.context.device == ("phone" if first.page.phone[row] else "desktop")
        assert first.item[row].tolist() == [*range(8), -1, -1], "two places stay empty"


def test_events_come_in_order_and_name_the_list_of_the_service(setting, told):
    posts = told.recorder.posts
    assert all(len(post) <= 1_000 for post in posts)
    for post in posts:
        times = [event.event_timestamp for event in post]
        assert times == sorted(times)
    events = [event for post in posts for event in post]
    home = [event for event in events if event.surface == "home" and event.request_id]
    assert home
    assert all(event.request_id.startswith(f"{event.user_id}@") for event in home)
    searched = [event for event in events if event.surface == "search"]
    assert searched
    assert not any("@" in event.request_id for event in searched)


def test_events_of_items_the_release_does_not_know_are_kept_for_the_night(setting, told):
    events = [event for post in told.recorder.posts for event in post]
    assert all(setting.item_rows[event.item_id] < 150 for event in events)
    kept = [row for table in told.poster.kept for row in table.to_pylist()]
    assert kept
    assert all(setting.item_rows[row["item_id"]] >= 150 for row in kept)
    ids = [event.event_id for event in events] + [row["event_id"] for row in kept]
    caused = sum(len(part) for part in told.parts)
    assert len(set(ids)) == len(ids) == caused, "each event once, here or there"


def test_posts_are_no_longer_than_the_api_takes(setting, told):
    events = [shown.events for shown in told.rounds] * 2
    tables = [setting.publisher.interactions(one, ingested_at=0) for one in events]
    posts = list(event_batches(pa.concat_tables(tables)))
    assert len(posts) > 1
    assert all(len(post) == 1_000 for post in posts[:-1])
    assert sum(len(post) for post in posts) == sum(len(one) for one in events)


def test_an_unfinished_day_leaves_the_inbox(tmp_path):
    settings = Settings(home=tmp_path)
    folder = settings.events / "date=2026-01-01"
    folder.mkdir(parents=True)
    lines = [json.dumps({"event_id": str(t), "event_timestamp": t}) + "\n" for t in (1, 5, 9)]
    (folder / "1-1.jsonl").write_text("".join(lines) + '{"event_id": "torn')
    drop_unfinished_events(settings, since=6)
    assert (folder / "1-1.jsonl").read_text() == "".join(lines[:2])


def test_a_service_that_is_down_is_one_clear_sentence(setting):
    url = f"http://127.0.0.1:{free_port()}"
    with ShortlistClient(url, timeout=2) as client:
        policy = ServicePolicy(setting, client)
        state = State.fresh(setting.world, 0, setting.world.num_users)
        with pytest.raises(
            ServiceError, match=r"does not answer .* start it with `shortlist serve`"
        ):
            simulate_day(setting.world, state, 0, policy=policy)


def test_the_pipeline_learns_from_the_days_before_the_arm_takes_over(setting):
    config = run_config(setting, parse_arms("chain+mmr")[0])
    assert config.data.simulated is not None
    assert config.data.simulated.log_days == SCHEDULE.start
    assert config.data.simulated.days == setting.world.config.days
    assert {source.kind for source in config.train.sources} >= {"item_knn", "content"}
    assert config.train.rerank is not None
    assert [ranker.kind for ranker in config.train.rankers] == ["lambdamart"]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("chain+explore", "a release does not explore yet; want --in-process"),
        ("oracle,value", r"'value': its ranker runs in process only, over HTTP .*; want chain, or"),
        ("value+explore", "want chain, or --in-process"),
        ("clicks+mmr", r"want chain\+mmr, or --in-process"),
    ],
)
def test_what_a_release_cannot_be_is_refused_before_anything_runs(setting, tmp_path, arms, message):
    """Arms that a served release can't represent are refused before the simulation starts."""
    with pytest.raises(ConfigError, match=message):
        simulate_with_service(setting, parse_arms(arms), folder=tmp_path, report=print)
    assert not list(tmp_path.iterdir())


def test_the_pipelines_ranker_is_refused_in_process(setting, tmp_path):
    with pytest.raises(ConfigError, match="runs over HTTP only; want clicks or value"):
        simulate_in_process(setting, parse_arms("chain"), folder=tmp_path, report=print)


def test_the_usual_arms_are_possible_and_differ(setting):
    for usual, why_not in (
        (DEFAULT_IN_PROCESS, in_process_problem),
        (DEFAULT_OVER_HTTP, over_http_problem),
    ):
        assert [why_not(arm) for arm in parse_arms(usual)] == [None] * 4
    trained = [
        run_config(setting, arm).train for arm in parse_arms(DEFAULT_OVER_HTTP) if arm.learns
    ]
    assert all(one != other for one, other in itertools.combinations(trained, 2))


def test_a_service_that_dies_names_its_log_and_what_to_do(setting, tmp_path, monkeypatch):
    @contextmanager
    def dead(*, log, clock):
        yield f"http://127.0.0.1:{free_port()}"

    loop = ServiceLoop(setting, parse_arms("item_knn")[0], tmp_path)
    monkeypatch.setattr("flows.closed_loop.service_loop.running_service", dead)
    monkeypatch.setattr(
        "flows.closed_loop.service_loop.release_info", lambda settings: {"items": 9}
    )
    monkeypatch.setattr("flows.featurize.featurize", lambda *args, **kwargs: None)
    config = run_config(setting, loop.arm)
    with pytest.raises(ServiceError, match=r"see .*service\.log; run the same command") as raised:
        loop._serve(Settings(home=tmp_path), tmp_path, config.data, print)
    assert "shortlist serve" not in str(raised.value)


def test_a_world_of_several_chunks_is_no_closed_loop(tmp_path):
    """The closed loop needs all users of a world in one chunk."""
    path = tmp_path / "wide.toml"
    path.write_text('name = "wide"\nchunk = 50\n[population]\nusers = 100\n')
    with pytest.raises(ConfigError, match=r"has [0-9]+ users, want at most `chunk`"):
        open_setting(str(path), days=1, cache=tmp_path)


def test_a_night_brings_posts_kept_events_and_arrivals_into_lake_and_features(
    setting, told, tmp_path
):
    from flows.validate import ValidateConfig, validate_batch
    from shortlist.datasets import stage_source
    from shortlist.feature_store import latest_pack
    from shortlist.lake import Lake

    settings = Settings(home=tmp_path)
    data = run_config(setting, parse_arms("item_knn")[0]).data
    readers = {"simulated": stage_simulated}
    first = stage_source(data, settings, now=1, readers=readers)
    before = validate_batch(settings, first.batch_id, ValidateConfig(), clock="replay")
    inbox = settings.events / "date=2026-01-01" / "1-1.jsonl"
    inbox.parent.mkdir(parents=True)
    posted = [event for post in told.recorder.posts for event in post]
    lines = [event.model_dump_json(exclude_none=True) + "\n" for event in posted]
    inbox.write_text("".join(lines))
    ingest_night(setting, settings, data, told.poster.kept, day=3)
    lake, world = Lake(settings.lake), setting.world
    assert lake.items().num_rows == world.items_on(4) > world.items_on(3)
    assert latest_pack(settings.packs).as_of == world.midnight(4)
    caused = sum(len(part) for part in told.parts)
    assert lake.interactions().num_rows == before["accepted"] + caused
    ingest_night(setting, settings, data, [], day=4)  # only new items arrive
    assert lake.interactions().num_rows == before["accepted"] + caused
    assert lake.items().num_rows == world.items_on(5)
    assert latest_pack(settings.packs).as_of == world.midnight(5)
    assert lake.users().num_rows == world.users_on(5)
