"""What the console needs of the running service."""

from collections import deque
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Depends

from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.experiment import Experiment
from shortlist.http.api import EventsRequest, EventsResponse, Readiness
from shortlist.http.rule_config import RulesInForce

if TYPE_CHECKING:
    from services.release.serving import Serving


class Deployment(Protocol):
    """The service of one home. `RecommenderService` implements it."""

    settings: Settings
    clock: HomeClock
    rules: RulesInForce
    recent_users: deque[str]

    @property
    def serving(self) -> "Serving": ...

    def serving_of(self, user_id: str, arm: str | None) -> "tuple[Serving, str]":
        """Return the release that answers a user, and the user's arm. Raises KeyError for an arm
        that doesn't exist.
        """
        ...

    def beside(self, release_id: str) -> "Serving":
        """Load another release with the current item features. It takes seconds; the last one is
        kept. Raises ReleaseError or PackError if it can't be used.
        """
        ...

    @property
    def experiment(self) -> Experiment | None:
        """The running experiment, if its releases are loaded."""
        ...

    def readiness(self) -> Readiness: ...

    def post_events(self, request: EventsRequest) -> EventsResponse:
        """Store events as POST /events does. Raises ValueError or OSError if they are refused."""
        ...


def deployment() -> Deployment:
    """Return the running service. Tests override this dependency."""
    import bentoml

    return bentoml.get_current_service()


Running = Annotated[Deployment, Depends(deployment)]
