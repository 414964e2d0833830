"""A deployment in this process, for tests of the console: a recommender, a clock, and a home."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from models.recommend.recommender import Recommender
from services.console.app import console
from services.console.deployment import deployment
from services.release.serving import Serving
from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.http.api import EventsRequest, EventsResponse, Readiness
from shortlist.http.rule_config import RulesInForce


@dataclass
class Desk:
    """Implements `services.console.deployment.Deployment` over recommenders in memory."""

    settings: Settings
    clock: HomeClock
    recommender: Recommender
    others: dict[str, Recommender] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    """Where posted events go: the list that the recommender's reader reads."""
    recent_users: deque[str] = field(default_factory=deque)
    experiment: None = None

    @property
    def rules(self) -> RulesInForce:
        return self.recommender.rules

    @property
    def serving(self) -> Serving:
        return Serving(self.recommender)

    def serving_of(self, user_id: str, arm: str | None) -> tuple[Serving, str]:
        if arm is not None:
            raise KeyError("no experiment runs")
        return self.serving, "main"

    def beside(self, release_id: str) -> Serving:
        return Serving(self.others[release_id])

    def readiness(self) -> Readiness:
        items = self.recommender.items
        return Readiness(
            release_id=self.recommender.release_id,
            pack_id=items.pack_id,
            pack_as_of=items.as_of,
            clock=self.clock.kind,
            stages_off=self.recommender.health.off,
        )

    def post_events(self, request: EventsRequest) -> EventsResponse:
        (event,) = request.events
        now = self.clock.now()
        self.events.append((event.user_id, event.item_id, now))
        self.clock.advance(now + 1)
        return EventsResponse(
            request_id="1", release_id=self.recommender.release_id, accepted=len(request.events)
        )

    def app(self) -> FastAPI:
        app = FastAPI()
        app.include_router(console)
        app.dependency_overrides[deployment] = lambda: self
        return app
