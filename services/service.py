"""The HTTP API: a thin BentoML service over one Recommender.

Start it with `shortlist serve`. It serves one release (set of models) to the users of one home, the
folder of a deployment. services/release/locate.py chooses the release, services/http/errors.py
formats error responses.
"""

import asyncio
import gc
import json
import logging
import os
import sys
import time
import uuid
from collections import deque
from dataclasses import asdict
from functools import partial
from typing import Any

import bentoml
from bentoml.exceptions import InvalidArgument
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services import metrics
from services.events.intake import Intake, NotStored
from services.http.doors import ApiKeys, Doors
from services.http.errors import ClearErrors, quiet_client_errors
from services.http.hidden_ids import hide_ids
from services.http.pages import pages
from services.release.beside import Beside
from services.release.heartbeats import Heartbeats
from services.release.hot_swap import HotSwap
from services.release.locate import check_can_serve, find_release, pinned_by
from services.release.serving import Serving
from services.rule_file import RuleFile
from services.serving_log import ServingLog, entry_of, logged_users
from shortlist.behaviour.shown_items import ShownItems
from shortlist.config import ConfigError, Settings
from shortlist.experiment import Experiment
from shortlist.feature_store import ReopeningReader, home_clock
from shortlist.features.pack import FeaturePack, PackError
from shortlist.http.api import (
    EventsRequest,
    EventsResponse,
    ForgetResponse,
    ItemsRequest,
    ItemsResponse,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    RefusedRelease,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)
from shortlist.http.rule_config import RulesInForce
from shortlist.ids import ANONYMOUS
from shortlist.releases.release import Release, ReleaseError

WORKERS = int(os.environ.get("SHORTLIST_WORKERS", "2"))
"""Number of worker processes. Each holds the release's models."""
log = logging.getLogger("bentoml.shortlist")  # child of BentoML's logger, which prints INFO

SWITCH_SECONDS = 0.0005
"""Time after which a thread of a worker lets another one run Python code."""
APPLY_SECONDS = 7.0
"""Maximum time that `/items` waits until lists reflect the changes. If it is too short, the answer
says so, and the lists reflect them later."""
RECENT_USERS = 8
"""Number of recent users for whom a new release answers a request before it serves (warm-up)."""


@bentoml.service(
    name="shortlist",
    # BentoML keeps a timer per request until the timeout. With a short timeout, they are few.
    traffic={"timeout": 10},
    logging={"access": {"enabled": False}},
    # Without an exporter, spans go nowhere, but take a third of BentoML's time per request.
    tracing={"excluded_urls": ".*"},
    workers=WORKERS,
    threads=4,
)
@bentoml.asgi_app(pages)
class RecommenderService:
    """The recommendation API of one home. It serves the promoted release.

    - `POST /recommend`: recommend items to a user or a visitor
    - `POST /search`: find items by a text
    - `POST /similar`: find items similar to an item
    - `POST /events`: store events of users
    - `POST /items`: add, change and delete items
    - `DELETE /users/{id}`: forget a user
    - `GET /status/ready`: release, feature pack (item features) and clock
    - `GET /why/{request_id}`: what made a list, from the serving log
    - `GET /metrics`: Prometheus metrics
    - `GET /console`: pages for people

    Invalid requests get a 4xx status and `{"error": "..."}`, which says what is valid.
    """

    def __init__(self) -> None:
        quiet_client_errors()
        self.settings = Settings()
        self.pinned_by = pinned_by()
        self.recent_users: deque[str] = deque(
            logged_users(self.settings.serving_log, RECENT_USERS), maxlen=RECENT_USERS
        )
        # Imported here because BentoML's supervisor imports this module too and doesn't need torch.
        from models.recommend.stages import StageHealth
        from models.training import one_thread_per_call

        one_thread_per_call()
        # By default, the event loop may wait 5 ms for a computing thread before it sends an answer.
        sys.setswitchinterval(SWITCH_SECONDS)

        self.health = StageHealth()
        self.rules = RulesInForce()
        self.rule_file = RuleFile(self.settings, self.rules)
        self.rule_file.begin()
        self.shown = ShownItems.of(self.settings, days=lambda: self.rules.rules.days_not_shown)
        self.reader = ReopeningReader(self.settings)
        self.hot_swap = HotSwap(
            self.settings,
            self.load,
            follow_releases=self.pinned_by is None,
            switch_off=self.switch_off,
        )
        release = find_release(self.settings)
        about = release.about
        self.clock = home_clock(self.settings, about["clock"], otherwise=about["data_end"])
        self.hot_swap.begin(release)
        self.other_release = Beside(self.settings, self.load)
        ClearErrors.release_id = staticmethod(lambda: self.serving.release_id)
        self.serving_log = ServingLog(self.settings.serving_log, shown=self.shown)
        self.answer_log = ServingLog(self.settings.answer_log)
        self.intake = Intake(self.settings, self.clock)
        # Objects loaded so far live until the end, so full garbage collections can skip them.
        gc.collect()
        gc.freeze()
        self.hot_swap.start()
        self.rule_file.start(lambda rules: self.serving.recommender.prepare_rules(rules))
        self.heartbeats = Heartbeats(self.settings, self.readiness)
        ready = self.readiness()
        log.info("release %s, pack %s, %s clock", ready.release_id, ready.pack_id, ready.clock)

    @property
    def serving(self) -> Serving:
        """The release that is served now.

        A request reads this property once, because a swap may replace the release meanwhile.
        """
        return self.hot_swap.serving

    def switch_off(self, sources: frozenset[str]) -> None:
        """Answer all further requests without these candidate sources."""
        self.health.switched_off = sources

    def load(self, release: Release, pack: FeaturePack) -> Serving:
        """Load a release, and answer requests of recent users with it before it serves."""
        budget = self.settings.request_budget_ms / 1e3
        serving = Serving.load(
            release,
            self.reader,
            pack=pack,
            health=self.health,
            budget=budget,
            rules=self.rules,
            shown=self.shown,
        )
        serving.warm(tuple(self.recent_users), at=self.clock.now())
        return serving

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Check once, before any worker starts, that the service can serve; exit if it can't.

        BentoML would restart a failing worker endlessly.
        """
        try:
            ApiKeys.from_environment()
            check_can_serve(Settings())
        except (ReleaseError, PackError, ConfigError) as error:
            sys.exit(f"error: {error}")

    @bentoml.api(route="/recommend")
    async def recommend(self, request: RecommendRequest, /) -> RecommendResponse:
        """Recommend items to a user (`user_id`) or to a visitor without an id (`recent_items`).

        If both are given, `recent_items` are added to the user's history.

        Unknown users get currently popular items. Items that the user has seen, and items that are
        filtered or excluded, are never in the list. The response is logged under its `request_id`;
        send this id with the events that follow. To get the next page, which repeats no item, send
        `next_cursor` as `cursor`.
        """
        with metrics.SECONDS.labels("recommend").time():
            started = time.perf_counter()
            try:
                serving, arm = self.hot_swap.serving_for(request.user_id, request.arm)
            except KeyError as error:
                raise InvalidArgument(f"arm '{request.arm}': {error.args[0]}") from None
            request_id = uuid.uuid4().hex
            slate = serving.recommend(
                request,
                at=self.now(request.at),
                request_id=request_id,
                explore=self.settings.explore,
            )
            entry = partial(
                entry_of,
                slate,
                request_id=request_id,
                user_id=request.user_id or ANONYMOUS,
                clock=self.clock.kind,
                seconds=time.perf_counter() - started,
                arm=arm,
                forced=request.arm is not None,
            )
            self.serving_log.write(entry)
        metrics.count_slate(slate)
        if request.user_id:
            self.recent_users.append(request.user_id)
        return RecommendResponse(
            request_id=request_id,
            release_id=slate.release_id,
            arm=arm,
            user_known=slate.user_known,
            items=slate.items,
            skipped_stages=slate.skipped_stages,
            rules=slate.rules,
            at=slate.at,
            next_cursor=slate.next_cursor,
        )

    @bentoml.api(route="/similar")
    async def similar(self, request: SimilarRequest, /) -> SimilarResponse:
        """Find items similar to a given item: first by users in common, then by content."""
        with metrics.SECONDS.labels("similar").time():
            serving = self.serving
            refuse_unknown(request.item_id, serving, where="item_id")
            at = self.clock.now()
            answer = SimilarResponse(
                request_id=uuid.uuid4().hex,
                release_id=serving.release_id,
                items=serving.recommender.similar(request, at=at),
            )
            self.log_answer("similar", answer, event_timestamp=at, item_id=request.item_id)
        return answer

    @bentoml.api(route="/search")
    def search(self, request: SearchRequest, /) -> SearchResponse:
        """Find items by a text: by its words and by its meaning, ordered for the user.

        Filters apply as in `/recommend`; items that the user consumed may be found again. Without
        `user_id` and `recent_items`, the list is that of a new visitor. The list is empty if no
        item matches. To let models learn from searches, also post an event of type `search`.
        """
        with metrics.SECONDS.labels("search").time():
            serving = self.serving
            found = serving.recommender.search(request, at=self.now(request.at), wait=False)
            answer = SearchResponse(
                request_id=uuid.uuid4().hex,
                release_id=serving.release_id,
                user_known=found.user_known,
                items=found.items,
                skipped_stages=found.skipped_stages,
                at=found.at,
            )
            self.log_answer("search", answer)
        return answer

    @bentoml.api(route="/events")
    def events(self, request: EventsRequest, /) -> EventsResponse:
        """Store events of users. They are on disk before the response, and affect the next list.

        The whole post is refused if an event is in the future or has an impossible value. An event
        about an item that is not in the catalogue is stored, counted in `unknown_items`, and used
        once the item is known. An `event_id` that was posted before is counted as a duplicate and
        ignored. So is an event of a forgotten user that is older than the request (`forgotten`).
        `waiting` is the number of stored events that lists don't reflect yet, because the
        online state can't be written at the moment.
        """
        with metrics.SECONDS.labels("events").time():
            serving = self.serving
            received = time.time_ns() // 1_000
            try:
                done = self.intake.store_events(request.events, received=received)
            except NotStored as error:
                return unavailable(f"this post was not stored ({error}); post it again later")
            answer = EventsResponse(
                request_id=uuid.uuid4().hex,
                release_id=serving.release_id,
                accepted=len(done.new),
                duplicates=done.duplicates,
                forgotten=done.forgotten,
                unknown_items=sum(is_unknown(row.get("item_id"), serving) for row in done.new),
                waiting=self.intake.num_waiting,
            )
            accepted = [row["event_id"] for row in done.new]
            self.log_answer("events", answer, received_at=received, event_ids=accepted)
        metrics.EVENTS.labels("accepted").inc(answer.accepted)
        metrics.EVENTS.labels("duplicate").inc(answer.duplicates)
        metrics.EVENTS.labels("unknown_item").inc(answer.unknown_items)
        return answer

    @bentoml.api(route="/items")
    async def items(self, request: ItemsRequest, /) -> ItemsResponse:
        """Add, change and delete items of the catalogue.

        The changes are on disk before the response. The lists of all workers reflect them within
        seconds: a new item is recommended by its content and as a new item, a deleted or
        unavailable one is never shown. The next refresh adds them to the stored catalogue, and
        models learn about new items at the next training.
        """
        with metrics.SECONDS.labels("items").time():
            deadline = time.monotonic() + APPLY_SECONDS
            received = time.time_ns() // 1_000
            known = max(self.hot_swap.commands_applied, self.hot_swap.commands_published)
            try:
                last = await asyncio.to_thread(self.intake.store_items, request.items, above=known)
            except NotStored as error:
                return unavailable(f"this post was not stored ({error}); post it again later")
            self.hot_swap.wake()
            while self.hot_swap.commands_applied < last and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            answer = ItemsResponse(
                request_id=uuid.uuid4().hex,
                release_id=self.serving.release_id,
                accepted=len(request.items),
                applied=self.hot_swap.commands_applied >= last,
                pending=max(0, last - self.hot_swap.commands_published),
            )
            ids = [item.item_id for item in request.items]
            self.log_answer("items", answer, received_at=received, item_ids=ids)
        metrics.ITEMS.inc(len(request.items))
        return answer

    def forget(self, user_id: str) -> ForgetResponse:
        """Forget a user: all workers serve the user as unknown from now on.

        The request is on disk before the response. Events dated before it are ignored, whatever
        file or post they come from; later ones count as those of a new person. The next refresh
        removes the user from the lake and the states, the next compaction from all other files,
        and the next training from the models.
        """
        with metrics.SECONDS.labels("users").time():
            try:
                moment, removed = self.intake.forget(user_id)
            except NotStored as error:
                return unavailable(f"this request was not stored ({error}); send it again later")
            kept = [one for one in self.recent_users if one != user_id]
            self.recent_users.clear()
            self.recent_users.extend(kept)
            answer = ForgetResponse(
                request_id=uuid.uuid4().hex,
                release_id=self.serving.release_id,
                forgotten_at=moment,
                removed=removed,
            )
            self.log_answer("users", answer)
        return answer

    def now(self, at: int | None) -> int:
        """Return the time as of which a request is answered, in microseconds.

        Args:
            at: time in the request, if any; only accepted under the replay clock.

        Raises:
            InvalidArgument: `at` is given under the wall clock.
        """
        if at is not None and self.clock.kind == "replay":
            return at
        if at is not None:
            raise InvalidArgument(
                "at: only taken with the replay clock (SHORTLIST_CLOCK=replay); leave it out"
            )
        return self.clock.now()

    def log_answer(self, route: str, answer: BaseModel, **asked: Any) -> None:
        """Write a response to the answer log.

        It has the responses without features; the others are in the serving log.
        """
        self.answer_log.write(lambda: {"route": route} | asked | answer.model_dump(mode="json"))

    def readiness(self) -> Readiness:
        serving, refused = self.serving, self.hot_swap.refused
        items = serving.recommender.items
        return Readiness(
            release_id=serving.release_id,
            pack_id=items.pack_id,
            pack_as_of=items.as_of,
            clock=self.clock.kind,
            pid=os.getpid(),
            pinned_by=self.pinned_by,
            refused=refused and RefusedRelease(**asdict(refused)),
            stages_off=self.health.off,
            items_pending=self.hot_swap.commands_pending,
            rules_id=self.rules.rules.id,
            rules_refused=self.rule_file.refused,
        )

    def serving_of(self, user_id: str, arm: str | None) -> tuple[Serving, str]:
        """Return the release that answers a user, and the user's arm."""
        return self.hot_swap.serving_for(user_id or None, arm)

    def beside(self, release_id: str) -> Serving:
        """Return another release, loaded beside the serving one, for the console."""
        serving = self.serving
        if release_id == serving.release_id:
            return serving
        return self.other_release.open(release_id, self.hot_swap.pack)

    @property
    def experiment(self) -> Experiment | None:
        return self.hot_swap.experiment

    def post_events(self, request: EventsRequest) -> EventsResponse:
        """Store events as `POST /events` does, for the console.

        Raises:
            InvalidArgument: they were refused.
            OSError: they can't be stored now.
        """
        answer = self.events.local(request)  # pyright: ignore[reportFunctionMemberAccess]
        if isinstance(answer, JSONResponse):
            raise OSError(json.loads(bytes(answer.body))["error"])
        return answer

    @bentoml.on_shutdown
    def shutdown(self) -> None:
        """Stop all threads; write the log lines of all responses before the process ends."""
        self.hot_swap.stop()
        self.rule_file.stop()
        self.heartbeats.stop()
        self.serving_log.close()
        self.answer_log.close()
        self.intake.close()


def unavailable(message: str) -> Any:
    """Return a response with status 503.

    BentoML hides the text of a raised 503, but sends a returned response unchanged.
    """
    return JSONResponse({"error": message}, status_code=503)


def is_unknown(item_id: str | None, serving: Serving) -> bool:
    return item_id is not None and item_id not in serving.recommender.catalogue.vocab


def refuse_unknown(item_id: str, serving: Serving, *, where: str) -> None:
    """Raise InvalidArgument if the catalogue does not have the item."""
    catalogue = serving.recommender.catalogue
    if is_unknown(item_id, serving):
        raise InvalidArgument(
            f"{where}: '{item_id}' is not among the {catalogue.num_items} items of release"
            f" {serving.release_id}; nothing was done"
        )


hide_ids()
# BentoML's type annotation differs from its code, which expects a Starlette middleware class.
RecommenderService.add_asgi_middleware(ClearErrors)  # pyright: ignore[reportArgumentType]
RecommenderService.add_asgi_middleware(Doors)  # pyright: ignore[reportArgumentType]
