"""The HTTP API: a thin BentoML service over one Recommender.

Start it with `shortlist serve`. The release is the promoted one under SHORTLIST_HOME, or the folder
in SHORTLIST_RELEASE (a Bento carries its own).
"""

import logging
import os
import threading
import time
import uuid
from pathlib import Path

import bentoml
from bentoml.exceptions import InvalidArgument, ServiceUnavailable
from prometheus_client import Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from models.recommend.recommender import ANONYMOUS, Recommender, UnknownItemError
from services.errors import ClearErrors, quiet_client_errors
from services.event_log import EventLog
from services.serving_log import ServingLog, entry_of
from shortlist.api import (
    Event,
    EventsRequest,
    EventsResponse,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
)
from shortlist.config import Settings
from shortlist.feature_store import (
    FeatureStoreError,
    OnlineReader,
    OnlineWriter,
    TargetEvent,
    current_pack_id,
    latest_pack,
)
from shortlist.pack import PackError
from shortlist.release import Release, ReleaseStore, open_release

log = logging.getLogger("shortlist.service")

PACK_CHECK_SECONDS = 5.0
RELEASE_VARIABLE = "SHORTLIST_RELEASE"

SECONDS = Histogram(
    "shortlist_request_seconds",
    "Time to answer, by route.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SHOWN = Counter("shortlist_items_shown", "Items shown, by candidate source.", ["source"])
UNKNOWN = Counter("shortlist_unknown_users", "Recommendations for users without any history.")
SKIPPED = Counter("shortlist_skipped_stages", "Stages left out of an answer.", ["stage"])
EVENTS = Counter("shortlist_events", "Posted events, by what became of them.", ["outcome"])
RELEASE = Gauge("shortlist_release_info", "1 for the release that serves.", ["release_id"])


async def ready(request: Request) -> JSONResponse:
    """GET /status/ready: the release, the feature pack and the clock that serve now."""
    service = bentoml.get_current_service()
    return JSONResponse(service.readiness().model_dump())


status_app = Starlette(routes=[Route("/ready", ready)])


@bentoml.service(
    name="shortlist",
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    workers=1,
    threads=4,
)
@bentoml.asgi_app(status_app, path="/status")
class RecommenderService:
    """Recommendations in milliseconds, from one release in which everything agrees.

    `POST /recommend` a list for a user or for recent items · `POST /similar` items like one ·
    `POST /events` what users did · `GET /status/ready` release, pack, clock · `GET /metrics`
    Prometheus.
    """

    def __init__(self) -> None:
        quiet_client_errors()
        self.settings = Settings()
        release = find_release(self.settings)
        self.pack_id = current_pack_id(self.settings.packs)
        self.recommender = Recommender.load(
            release, OnlineReader(self.settings), pack=latest_pack(self.settings.packs)
        )
        self.clock = self.settings.clock or release.about["clock"]
        self.target_events = set(release.about["target_events"])
        self.serving_log = ServingLog(self.settings.serving_log)
        self.event_log = EventLog(self.settings.events)
        self.writer = OnlineWriter(self.settings)
        self._pushing = threading.Lock()
        self._stopping = threading.Event()
        threading.Thread(target=self._watch_packs, name="pack-watch", daemon=True).start()
        RELEASE.labels(release.release_id).set(1)
        log.info("release %s, pack %s, %s clock", release.release_id, self.pack_id, self.clock)

    @bentoml.api(route="/recommend")
    def recommend(self, request: RecommendRequest, /) -> RecommendResponse:
        """A list for `user_id`, for `recent_items` of a visitor, or for both together.

        Unknown users get what is popular now. Items that the user has seen, that are filtered or
        excluded never come. Every answer is logged under its request_id: send that with feedback.
        """
        with SECONDS.labels("recommend").time():
            started = time.perf_counter()
            at = self.now(request.at)
            slate = self.recommender.recommend(request, at=at)
            request_id = uuid.uuid4().hex
            entry = entry_of(
                slate,
                request_id=request_id,
                user_id=request.user_id or ANONYMOUS,
                at=at,
                seconds=time.perf_counter() - started,
            )
            self.serving_log.write(entry)
        for item in slate.items:
            SHOWN.labels(item.source).inc()
        for stage in slate.skipped_stages:
            SKIPPED.labels(stage).inc()
        UNKNOWN.inc(not slate.user_known)
        return RecommendResponse(
            request_id=request_id,
            release_id=slate.release_id,
            user_known=slate.user_known,
            items=slate.items,
            skipped_stages=slate.skipped_stages,
            at=at,
        )

    @bentoml.api(route="/similar")
    def similar(self, request: SimilarRequest, /) -> SimilarResponse:
        """Items like a given one: by who used both, by content where too few did."""
        with SECONDS.labels("similar").time():
            try:
                items = self.recommender.similar(request, at=self.now(None))
            except UnknownItemError as error:
                raise InvalidArgument(str(error)) from None
        return SimilarResponse(
            request_id=uuid.uuid4().hex, release_id=self.recommender.release_id, items=items
        )

    @bentoml.api(route="/events")
    def events(self, request: EventsRequest, /) -> EventsResponse:
        """What users did. On disk before it is acknowledged; the next answer already knows it.

        The whole post is refused if one event names an item that the catalogue does not have. An
        event_id that was posted before is counted as a duplicate and changes nothing.
        """
        with SECONDS.labels("events").time():
            vocab = self.recommender.catalogue.vocab
            for number, event in enumerate(request.events):
                if event.item_id not in vocab:
                    raise InvalidArgument(
                        f"events.{number}.item_id: '{event.item_id}' is not in the catalogue of"
                        f" release {self.recommender.release_id}; nothing of this post was stored"
                    )
            received = time.time_ns() // 1_000
            rows = [self.stored(event, received=received) for event in request.events]
            try:
                new = self.event_log.append(rows)
            except OSError as error:
                log.exception("events: the inbox cannot be written")
                raise ServiceUnavailable(
                    f"events could not be stored ({error.strerror}); nothing was, post them again"
                ) from None
            self.push(new)
        EVENTS.labels("accepted").inc(len(new))
        EVENTS.labels("duplicate").inc(len(rows) - len(new))
        return EventsResponse(accepted=len(new), duplicates=len(rows) - len(new))

    def now(self, at: int | None) -> int:
        """The moment of a request, microseconds. Raises InvalidArgument for `at` under the wall
        clock.
        """
        if self.clock == "replay":
            return self.recommender.about["data_end"] if at is None else at
        if at is not None:
            raise InvalidArgument(
                "at: only taken with the replay clock (SHORTLIST_CLOCK=replay); leave it out"
            )
        return time.time_ns() // 1_000

    def stored(self, event: Event, *, received: int) -> dict:
        """An event as a line of the inbox."""
        row = event.model_dump(exclude_none=True)
        row.setdefault("event_id", uuid.uuid4().hex)
        row.setdefault("event_timestamp", self.now(None))
        return row | {"received_at": received}

    def push(self, rows: list[dict]) -> None:
        """Bring target events into the online states; they are safe already if this fails."""
        events = [
            TargetEvent(
                user_id=row["user_id"],
                item_id=row["item_id"],
                timestamp=row["event_timestamp"],
                value=row.get("value"),
            )
            for row in rows
            if row["event_type"] in self.target_events
        ]
        if not events:
            return
        try:
            with self._pushing:
                self.writer.push(events)
            EVENTS.labels("pushed").inc(len(events))
        except Exception:
            EVENTS.labels("push_failed").inc(len(events))
            log.exception("events: %d are stored but not in the online store yet", len(events))

    def readiness(self) -> Readiness:
        items = self.recommender.items
        return Readiness(
            release_id=self.recommender.release_id,
            pack_id=items.pack_id,
            pack_as_of=items.as_of,
            clock=self.clock,
        )

    @bentoml.on_shutdown
    def shutdown(self) -> None:
        """Everything that was answered is in the log before the process ends."""
        self._stopping.set()
        self.serving_log.close()
        self.event_log.close()

    def _watch_packs(self) -> None:
        """Swap in a new feature pack soon after `featurize` has published it."""
        while not self._stopping.wait(PACK_CHECK_SECONDS):
            try:
                pack_id = current_pack_id(self.settings.packs)
                if pack_id != self.pack_id:
                    self.recommender.swap_pack(latest_pack(self.settings.packs))
                    self.pack_id = pack_id
                    log.info("pack %s swapped in", pack_id)
            except (PackError, FeatureStoreError, OSError):
                log.exception("pack: the new one cannot be used, %s stays", self.pack_id)


def find_release(settings: Settings) -> Release:
    """The release in SHORTLIST_RELEASE, else the promoted one. Raises ReleaseError if there is
    none.
    """
    folder = os.environ.get(RELEASE_VARIABLE)
    if folder:
        return open_release(Path(folder))
    return ReleaseStore(settings.releases).open()


RecommenderService.add_asgi_middleware(ClearErrors)
