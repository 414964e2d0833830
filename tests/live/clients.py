"""Clients of a live test: they request recommendations, post events and check each response.

A user consumes the first item of a list and sometimes refuses the second one.
"""

import random
import threading
import time
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ShortlistClient
from tests.background import in_background

SURFACES = ("home", "search", None)
MOST = 15
"""Maximum number of items that a user consumes, so that the small catalogue suffices."""
PAUSE = 0.3
"""Seconds between two turns of a client. Three clients then use about a third of a core, and the
commands of the trial get the rest.
"""


@dataclass
class Crowd:
    """Clients that run in threads, and a record of their posts and of the responses.

    Args:
        users: each user belongs to one client, so that the user's requests and events are in order.
    """

    url: str
    users: list[str]
    clients: int = 3
    posted: dict[str, Event] = field(default_factory=dict)
    """{event_id: acknowledged event}."""
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    """(start, end, release_id) of each response; times in seconds of time.monotonic."""
    wrong: list[str] = field(default_factory=list)

    def busy(self) -> AbstractContextManager[None]:
        """Send requests and posts until the block ends."""
        return in_background(*(partial(self._work, number) for number in range(self.clients)))

    def _work(self, number: int, over: threading.Event) -> None:
        rng = random.Random(number)
        own = self.users[number :: self.clients]
        consumed: dict[str, list[str]] = defaultdict(list)
        while not over.is_set():
            # A connection stays with one worker, so connect again regularly to reach all workers.
            with ShortlistClient(self.url) as client:
                for _ in range(10):
                    try:
                        self._turn(client, rng, rng.choice(own), consumed)
                    except Exception as error:
                        self.wrong.append(repr(error))
                    if over.wait(PAUSE):
                        break

    def _turn(
        self,
        client: ShortlistClient,
        rng: random.Random,
        user: str,
        consumed: dict[str, list[str]],
    ) -> None:
        start = time.monotonic()
        answer = client.recommend(RecommendRequest(user_id=user, k=5))
        self.answers.append((start, time.monotonic(), answer.release_id))
        shown = [item.item_id for item in answer.items]
        if len(shown) < 5:
            self.wrong.append(f"{user}: {len(shown)} items")
        if again := set(shown) & set(consumed[user]):
            self.wrong.append(f"{user}: consumed or refused and shown again: {sorted(again)}")
        if shown and len(consumed[user]) < MOST:
            events = [
                self._event(user, shown[0], "rating", request_id=answer.request_id, value=4.0)
            ]
            if rng.random() < 0.3:
                # A second rating of the same item.
                events.append(self._event(user, shown[0], "rating", value=5.0))
            if rng.random() < 0.2:
                events.append(self._event(user, f"unheard of {rng.randrange(5)}", "rating"))
            if rng.random() < 0.3:  # from a device whose clock is ahead
                ahead = time.time_ns() // 1_000 + 60_000_000
                events = [event.model_copy(update={"event_timestamp": ahead}) for event in events]
            if rng.random() < 0.05:  # from a device that was offline for long
                late = time.time_ns() // 1_000 - 10 * MICROSECONDS_PER_DAY
                item = f"i{rng.randrange(60) + 1}"
                events.append(self._event(user, item, "rating", value=3.0, event_timestamp=late))
                consumed[user].append(item)
            if rng.random() < 0.2:
                events.append(self._event(user, None, "search", query="a drama"))
            self._post(client, events)
            if rng.random() < 0.3:
                self._post(client, events)  # repeat, as after a lost response
            consumed[user].append(shown[0])
            if rng.random() < 0.2:
                refusal = rng.choice(["hide", "dislike", "return"])
                self._post(client, [self._event(user, shown[1], refusal)])
                consumed[user].append(shown[1])

    def _event(self, user: str, item: str | None, kind: str, **more) -> Event:
        surface = SURFACES[self.users.index(user) % len(SURFACES)]
        return Event(
            event_id=uuid.uuid4().hex,
            user_id=user,
            item_id=item,
            event_type=kind,
            surface=surface,
            **more,
        )

    def _post(self, client: ShortlistClient, events: list[Event]) -> None:
        answer = client.events(events)
        if answer.accepted + answer.duplicates != len(events):
            self.wrong.append(f"{len(events)} posted, {answer}")
        self.posted |= {event.event_id: event for event in events if event.event_id}
