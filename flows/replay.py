"""Replay: sends a demo's held-back events to a real service, as requests and as posted events.

Held-back events are the newest part of an old data set. They are kept out of the lake, to be
replayed as live traffic. A request is answered before any event of its time or later is posted, so
the service never sees the future. A user's earlier events are posted before that user's next
request, so the user's history is complete.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow

from flows.releases.service_process import running_service
from flows.runtime.runs import Run, RunError
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds, sort_by_time
from shortlist.http.api import MAX_EVENTS, Context, Event, RecommendRequest, RecommendResponse
from shortlist.http.client import ShortlistClient
from shortlist.lake import Lake
from shortlist.lake.pages import asked_at
from shortlist.releases.release import ReleaseStore
from shortlist.splits import HORIZON, Requests, draw_requests
from shortlist.validation.hold_back import held_back_events, held_back_files

BEGUN = "replay_begun.json"
"""File in the run's folder that is created when a replay starts to send."""
MAX_LAG = c.MICROSECONDS_PER_HOUR
"""Maximum time in microseconds between the requests of one parallel step.

Events of other users that fall between these requests are posted after the step.
"""


@dataclass(frozen=True)
class SendRequests:
    """Replay step: send requests in parallel."""

    rows: tuple[int, ...]
    """Numbers of the requests in order of time."""


@dataclass(frozen=True)
class PostEvents:
    """Replay step: post the events with numbers `start` to `stop - 1`, in order of time."""

    start: int
    stop: int


@flow(name="replay", log_prints=True)
def replay_flow(run_id: str, url: str | None = None, connections: int = 4) -> dict[str, Any]:
    """Send the held-back events that are not earlier than the home's clock to a service.

    In replay mode the clock is a stored time. It is advanced past the newest event. Writes
    replay.json to the run's folder.

    Args:
        url: address of the service; None: start one for the replay.
        connections: maximum number of parallel requests.

    Raises:
        RunError: no event is held back, or all were sent before.
    """
    settings = Settings()
    run = Run.open(settings, run_id)
    requests, events = replay_window(settings, run)
    release = run.read("release.json", made_by="package")["release_id"]
    steps = plan_replay(
        requests,
        event_users=events.column(c.USER_ID).to_pylist(),
        event_times=microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy(),
        connections=connections,
    )
    print(
        f"replay: {len(requests):,} requests and {events.num_rows:,} events in {len(steps)} steps"
    )
    with ExitStack() as stack:
        if url is None:
            ReleaseStore(settings.releases).open()  # fails early, before a server is started
            url = stack.enter_context(running_service(log=run.path / "service.log", clock="replay"))
        client = stack.enter_context(ShortlistClient(url))
        readiness = client.wait_until_ready()
        run.write(BEGUN, {"requests": len(requests), "events": events.num_rows})
        started = time.perf_counter()
        k = run.config.evaluate.list_size
        traffic = Traffic(client, requests, events, connections=connections, k=k)
        traffic.drive(steps)
        seconds = time.perf_counter() - started
    newest = microseconds(events.column(c.EVENT_TIMESTAMP))[-1].as_py()
    run.config.clock(settings).advance(newest + 1)
    result = traffic.result() | {"release_id": readiness.release_id, "seconds": round(seconds, 1)}
    if readiness.release_id != release:
        print(f"replay: {url} serves {readiness.release_id}, the run made {release}")
    run.write("replay.json", result | {"latency_ms": [round(v, 2) for v in traffic.latency_ms]})
    print(
        f"replay: {result['requests']:,} requests in {seconds:.1f} s, p50 {result['p50_ms']} ms,"
        f" p99 {result['p99_ms']} ms; {result['attributed']:,} of {result['events']:,} events are"
        " about items that a list had shown"
    )
    return result


def replay_window(settings: Settings, run: Run) -> tuple[Requests, pa.Table]:
    """Return the requests to send and the events to post.

    The events are all held-back events at or after the home's clock. If they give more than
    `monitor.max_requests` requests, a random sample is used.
    """
    config = run.config
    now = config.clock(settings).now()
    events = held_back_events(settings, since=now)
    if events.num_rows == 0:
        raise RunError(
            f"{settings.held_back}: no event is later than the home's clock; a replay sends the"
            " events that `data.hold_back` keeps out of the lake, each of them once"
        )
    lake = Lake(settings.lake)
    rng = np.random.default_rng([config.seed, *b"replay"])
    types = pa.array(list(config.data.target_events))
    chosen = events.filter(pc.is_in(events.column(c.EVENT_TYPE), value_set=types))
    known = lake.interactions(until=now, event_types=config.data.target_events)
    targets = sort_by_time(pa.concat_tables([known, chosen]))
    pages = [*lake.interaction_files(), *held_back_files(settings)]
    end = int(microseconds(events.column(c.EVENT_TIMESTAMP))[-1].as_py()) + 1
    drawn = draw_requests(
        targets,
        (now, end),
        rng=rng,
        max_per_user=config.split.max_requests_per_user,
        asked=asked_at(pages, targets, temporary=lake.root),
        repeat_after=config.data.repeat_after,
    )
    size = config.monitor.max_requests
    if len(drawn) > size:
        drawn = drawn.take(np.sort(rng.choice(len(drawn), size=size, replace=False)))
    return drawn, events


def plan_replay(
    requests: Requests,
    *,
    event_users: Sequence[str],
    event_times: np.ndarray,
    connections: int,
    max_lag: int = MAX_LAG,
) -> list[SendRequests | PostEvents]:
    """Order requests and events into steps, which are carried out one after another.

    Args:
        requests: sorted by time.
        event_users, event_times: user and time (microseconds) of each event, sorted by time.
        connections: maximum number of requests per step.
        max_lag: maximum time in microseconds between the first and last request of a step.
    """
    steps: list[SendRequests | PostEvents] = []
    batch: list[int] = []
    waiting: set[str] = set()  # users with an event that is due but not posted yet
    num_posted = seen = 0
    for row, (user_id, at) in enumerate(zip(requests.user_ids, requests.at, strict=True)):
        due = int(np.searchsorted(event_times, at))
        waiting.update(event_users[seen:due])
        seen = due
        full = len(batch) == connections
        if batch and (full or user_id in waiting or at - requests.at[batch[0]] > max_lag):
            steps.append(SendRequests(tuple(batch)))
            batch = []
        if not batch and due > num_posted:
            steps.append(PostEvents(num_posted, due))
            num_posted, waiting = due, set()
        batch.append(row)
    if batch:
        steps.append(SendRequests(tuple(batch)))
    if len(event_times) > num_posted:
        steps.append(PostEvents(num_posted, len(event_times)))
    return steps


@dataclass
class Traffic:
    """Carries out the steps of a replay: sends requests and posts events.

    It remembers the request that showed an item to a user. The user's later events about the item
    are posted with the id of that request.
    """

    client: ShortlistClient
    requests: Requests
    events: pa.Table
    connections: int
    k: int
    latency_ms: list[float] = field(default_factory=list)
    shown: dict[tuple[str, str], tuple[str, int, int]] = field(default_factory=dict)
    """(user_id, item_id) -> (request_id, position, at) of the newest list with this item."""
    posted: int = 0
    attributed: int = 0

    def drive(self, steps: Sequence[SendRequests | PostEvents]) -> None:
        with ThreadPoolExecutor(self.connections) as pool:
            for step in steps:
                if isinstance(step, SendRequests):
                    # In order of rows: if two lists show an item, the later one is remembered.
                    for row, (response, ms) in zip(
                        step.rows, pool.map(self.recommend, step.rows), strict=True
                    ):
                        self.latency_ms.append(ms)
                        self.remember(self.requests.user_ids[row], response)
                else:
                    self.post(step)

    def recommend(self, row: int) -> tuple[RecommendResponse, float]:
        """Send one request; return the response and its latency in milliseconds."""
        surface, device = self.requests.contexts[row]
        request = RecommendRequest(
            user_id=self.requests.user_ids[row],
            recent_items=None,
            k=self.k,
            at=int(self.requests.at[row]),
            context=Context(surface=surface, device=device),
        )
        started = time.perf_counter()
        response = self.client.recommend(request)
        return response, (time.perf_counter() - started) * 1_000

    def remember(self, user_id: str, response: RecommendResponse) -> None:
        for item in response.items:
            self.shown[user_id, item.item_id] = (response.request_id, item.rank, response.at)

    def post(self, step: PostEvents) -> None:
        """Post the events of a step in order."""
        columns = self.events.slice(step.start, step.stop - step.start)
        times = microseconds(columns.column(c.EVENT_TIMESTAMP)).to_pylist()
        posts = [self.as_event(row, at) for row, at in zip(columns.to_pylist(), times, strict=True)]
        for start in range(0, len(posts), MAX_EVENTS):
            self.client.events(posts[start : start + MAX_EVENTS])
        self.posted += len(posts)

    def as_event(self, row: dict[str, Any], at: int) -> Event:
        """Return the event to post.

        If a list showed the item to the user in the 24 h before, the event gets the list's
        request_id and position. The event_id doesn't change, so that an event ingested again
        counts once.

        Args:
            row: a held-back event.
            at: its time in microseconds.
        """
        request_id, position, shown_at = self.shown.get(
            (row[c.USER_ID], row[c.ITEM_ID]), (None, None, at)
        )
        if at - shown_at >= HORIZON:
            request_id = position = None
        self.attributed += request_id is not None
        plain = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, c.TEXT, c.QUERY)
        return Event(
            **{name: row[name] for name in plain},
            event_timestamp=at,
            session_id=row[c.SESSION_ID],
            request_id=request_id or row[c.REQUEST_ID],
            position=position or row[c.POSITION],
            surface=row[c.SURFACE],
            device=row[c.DEVICE],
        )

    def result(self) -> dict[str, Any]:
        """Return the counts and the percentiles of the latency in milliseconds."""
        latency = self.latency_ms or [float("nan")]
        return {
            "requests": len(self.latency_ms),
            "events": self.posted,
            "attributed": self.attributed,
        } | {f"p{p}_ms": round(float(np.percentile(latency, p)), 1) for p in (50, 95, 99)}
