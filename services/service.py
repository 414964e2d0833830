"""The HTTP API: a thin BentoML service over one Recommender.

Start it with `shortlist serve`. What it serves: services/locate.py; how it refuses:
services/errors.py.
"""

import logging
import sys
import time
import uuid
from typing import Any, Literal

import bentoml
from bentoml.exceptions import InvalidArgument
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services import metrics
from services.errors import ClearErrors, quiet_client_errors
from services.event_limits import EventLimits
from services.event_log import EventLog
from services.locate import check_can_serve, find_release
from services.pack_watch import PackWatch
from services.pages import pages
from services.serving_log import ServingLog, entry_of
from shortlist.api import (
    ANONYMOUS,
    Event,
    EventsRequest,
    EventsResponse,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
)
from shortlist.config import ConfigError, Settings
from shortlist.feature_store import (
    FeatureEvent,
    ReopeningReader,
    ReopeningWriter,
    latest_pack,
)
from shortlist.pack import PackError
from shortlist.release import ReleaseError

log = logging.getLogger("bentoml.shortlist")  # under BentoML's logger, which prints from INFO on


@bentoml.service(
    name="shortlist",
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    workers=1,  # one process writes the users' online states; more would need a lock between them
    threads=4,
)
@bentoml.asgi_app(pages)
class RecommenderService:
    """Recommendations in milliseconds, from one release in which everything agrees.

    `POST /recommend` a list for a user or for recent items · `POST /similar` items like one ·
    `POST /events` what users did · `GET /status/ready` release, pack, clock · `GET /metrics`
    Prometheus. Bad input is answered with 4xx and `{"error": "what is wrong and what is right"}`.
    """

    def __init__(self) -> None:
        # BentoML's supervisor imports this module as well; only workers pay for torch.
        from models.recommend.recommender import Recommender

        quiet_client_errors()
        self.settings = Settings()
        release = find_release(self.settings)
        self.pack_watch = PackWatch(self.settings.packs, lambda p: self.recommender.swap_pack(p))
        pack = latest_pack(self.settings.packs)
        self.recommender = Recommender.load(release, ReopeningReader(self.settings), pack=pack)
        self.clock: Literal["wall", "replay"] = self.settings.clock or release.about["clock"]
        self.target_events = set(release.about["target_events"])
        ClearErrors.release_id = release.release_id
        self.event_limits = EventLimits.of(release.about)
        self.serving_log = ServingLog(self.settings.serving_log)
        self.answer_log = ServingLog(self.settings.answer_log)
        self.event_log = EventLog(self.settings.events)
        self.writer = ReopeningWriter(self.settings)
        # Feast and torch do much of their loading at first use; no client shall wait for it.
        self.recommender.recommend(RecommendRequest(recent_items=[]), at=self.now(None))
        metrics.RELEASE.labels(release.release_id).set(1)
        self.pack_watch.start()
        log.info("release %s, pack %s, %s clock", release.release_id, pack.pack_id, self.clock)

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Once, before any worker: BentoML would start one that cannot load again and again."""
        try:
            check_can_serve(Settings())
        except (ReleaseError, PackError, ConfigError) as error:
            sys.exit(f"error: {error}")

    @bentoml.api(route="/recommend")
    def recommend(self, request: RecommendRequest, /) -> RecommendResponse:
        """A list for `user_id`, for `recent_items` of a visitor, or for both together.

        Unknown users get what is popular now. Items that the user has seen, that are filtered or
        excluded never come. Every answer is logged under its request_id: send that with feedback.
        """
        with metrics.SECONDS.labels("recommend").time():
            started = time.perf_counter()
            at = self.now(request.at)
            slate = self.recommender.recommend(request, at=at)
            request_id = uuid.uuid4().hex
            entry = entry_of(
                slate,
                request_id=request_id,
                user_id=request.user_id or ANONYMOUS,
                at=at,
                clock=self.clock,
                seconds=time.perf_counter() - started,
            )
            self.serving_log.write(entry)
        metrics.count_slate(slate)
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
        with metrics.SECONDS.labels("similar").time():
            self.refuse_unknown(request.item_id, where="item_id")
            at = self.now(None)
            answer = SimilarResponse(
                request_id=uuid.uuid4().hex,
                release_id=self.recommender.release_id,
                items=self.recommender.similar(request, at=at),
            )
            self.log_answer("similar", answer, event_timestamp=at, item_id=request.item_id)
        return answer

    @bentoml.api(route="/events")
    def events(self, request: EventsRequest, /) -> EventsResponse:
        """What users did. On disk before it is acknowledged; the next answer already knows it.

        The whole post is refused if one event names an item that the catalogue does not have, has
        not come yet, or has a value that cannot be. An event_id that was posted before is counted
        as a duplicate and changes nothing.
        """
        with metrics.SECONDS.labels("events").time():
            received = time.time_ns() // 1_000
            for number, event in enumerate(request.events):
                self.refuse_unknown(event.item_id, where=f"events.{number}.item_id")
                if complaint := self.event_limits.complaint(event, now=received):
                    raise InvalidArgument(f"events.{number}.{complaint}; nothing was stored")
            rows = [self.stored(event, received=received) for event in request.events]
            try:
                new = self.event_log.append(rows)
            except OSError as error:
                log.exception("events: the inbox cannot be written")
                refusal = f"nothing of this post was stored ({error.strerror}); post it again later"
                # BentoML hides the text of a 503 that is raised, and sends a response as it is.
                return JSONResponse({"error": refusal}, status_code=503)  # pyright: ignore[reportReturnType]
            self.push(new)
            answer = EventsResponse(
                request_id=uuid.uuid4().hex,
                release_id=self.recommender.release_id,
                accepted=len(new),
                duplicates=len(rows) - len(new),
            )
            accepted = [row["event_id"] for row in new]
            self.log_answer("events", answer, received_at=received, event_ids=accepted)
        metrics.EVENTS.labels("accepted").inc(len(new))
        metrics.EVENTS.labels("duplicate").inc(len(rows) - len(new))
        return answer

    def now(self, at: int | None) -> int:
        """The moment of a request, microseconds.

        Raises:
            InvalidArgument: `at` under the wall clock.
        """
        if self.clock == "replay":
            return self.recommender.about["data_end"] if at is None else at
        if at is not None:
            raise InvalidArgument(
                "at: only taken with the replay clock (SHORTLIST_CLOCK=replay); leave it out"
            )
        return time.time_ns() // 1_000

    def refuse_unknown(self, item_id: str, *, where: str) -> None:
        """Raises InvalidArgument if the catalogue does not have the item."""
        catalogue = self.recommender.catalogue
        if item_id not in catalogue.vocab:
            raise InvalidArgument(
                f"{where}: '{item_id}' is not among the {catalogue.num_items} items of release"
                f" {self.recommender.release_id}; nothing was done"
            )

    def stored(self, event: Event, *, received: int) -> dict[str, Any]:
        """An event as a line of the inbox."""
        row = event.model_dump(exclude_none=True)
        row.setdefault("event_id", uuid.uuid4().hex)
        # States hold what came strictly before a request, and the replay clock stands still: an
        # event of this very moment would never be seen.
        row.setdefault("event_timestamp", self.now(None) - 1)
        return row | {"received_at": received}

    def push(self, rows: list[dict[str, Any]]) -> None:
        """Bring events into the online states; they are safe already if this fails."""
        found = (FeatureEvent.of(row, target_events=self.target_events) for row in rows)
        events = [event for event in found if event is not None]
        if not events:
            return
        try:
            self.writer.push(events)
            metrics.EVENTS.labels("pushed").inc(len(events))
        except Exception:
            metrics.EVENTS.labels("push_failed").inc(len(events))
            log.exception("events: %d are stored but not in the online store yet", len(events))

    def log_answer(self, route: str, answer: BaseModel, **asked: Any) -> None:
        """A line of the answer log. It lies apart: such answers have no features to compare."""
        self.answer_log.write({"route": route} | asked | answer.model_dump(mode="json"))

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
        self.pack_watch.stop()
        self.serving_log.close()
        self.answer_log.close()
        self.event_log.close()


# BentoML's annotation asks for a factory's call, its code for a Starlette middleware class.
RecommenderService.add_asgi_middleware(ClearErrors)  # pyright: ignore[reportArgumentType]
