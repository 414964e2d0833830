"""Typed HTTP client of the service, for the replay, benchmarks and user code."""

import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from shortlist.http.api import (
    Event,
    EventsRequest,
    EventsResponse,
    ForgetResponse,
    ItemChange,
    ItemsRequest,
    ItemsResponse,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)

ResponseT = TypeVar("ResponseT", bound=BaseModel)


class ServiceError(RuntimeError):
    """The service refused the request, failed, or cannot be reached.

    `status` is the HTTP status, None if there was no response.
    """

    def __init__(self, message: str, *, status: int | None = None):
        super().__init__(message)
        self.status = status


class ShortlistClient:
    """Client with a connection pool to one service. Thread-safe.

    Close it after use, or use it as a context manager.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 30.0,
        if_down: str = "start it with `shortlist serve`",
        api_key: str | None = None,
    ):
        """Create a client of the service at `base_url`.

        Args:
            timeout: seconds to wait for a response.
            if_down: advice in the error message if the service doesn't respond.
            api_key: one of SHORTLIST_API_KEYS; None: the variable SHORTLIST_API_KEY, if set.
        """
        self.if_down = if_down
        self.base_url = base_url.rstrip("/")
        key = api_key or os.environ.get("SHORTLIST_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, headers=headers)

    def __enter__(self) -> "ShortlistClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Request recommendations. Raises ServiceError."""
        return self._post("/recommend", request, RecommendResponse)

    def search(self, request: SearchRequest) -> SearchResponse:
        """Search for items. Raises ServiceError."""
        return self._post("/search", request, SearchResponse)

    def similar(self, request: SimilarRequest) -> SimilarResponse:
        """Request similar items. Raises ServiceError."""
        return self._post("/similar", request, SimilarResponse)

    def events(self, events: Sequence[Event]) -> EventsResponse:
        """Post events. Raises ServiceError; in that case none of them was stored."""
        return self._post("/events", EventsRequest(events=list(events)), EventsResponse)

    def items(self, changes: Sequence[ItemChange]) -> ItemsResponse:
        """Post changes of items.

        Raises:
            ServiceError: the service refused the changes or can't be reached. After a timeout they
                may be stored; to post them again does no harm.
        """
        body = ItemsRequest(items=list(changes)).model_dump_json(exclude_unset=True)
        return self._read("POST", "/items", body, ItemsResponse)

    def forget(self, user_id: str) -> ForgetResponse:
        """Request that a user is forgotten. Raises ServiceError; then the request isn't stored."""
        route = f"/users/{quote(user_id, safe='')}"
        return self._read("DELETE", route, None, ForgetResponse)

    def ready(self) -> Readiness:
        """Read the readiness. Raises ServiceError if the service is down or still starting."""
        return self._read("GET", "/status/ready", None, Readiness)

    def wait_until_ready(self, *, timeout: float = 120.0) -> Readiness:
        """Poll until the service is ready. Raises ServiceError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.ready()
            except ServiceError as error:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"{self.base_url}: not ready after {timeout:.0f} s ({error})"
                    ) from None
            time.sleep(0.2)

    def _post(self, route: str, body: BaseModel, response: type[ResponseT]) -> ResponseT:
        return self._read("POST", route, body.model_dump_json(exclude_none=True), response)

    def _read(
        self, method: str, route: str, content: str | None, response: type[ResponseT]
    ) -> ResponseT:
        answer = self._send(method, route, content)
        try:
            return response.model_validate_json(answer)
        except ValidationError:
            raise ServiceError(
                f"{self.base_url}{route}: the response is not a {response.__name__}; is this"
                f" another service? It starts with {answer[:60]!r}"
            ) from None

    def _send(self, method: str, route: str, content: str | None) -> bytes:
        headers = {"content-type": "application/json"}
        try:
            answer = self._http.request(method, route, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self.base_url}: does not answer ({type(error).__name__}: {error});"
                f" {self.if_down}"
            ) from None
        if answer.status_code >= 400:
            raise ServiceError(
                f"{self.base_url}{route}: {answer.status_code}: {_message(answer)}",
                status=answer.status_code,
            )
        return answer.content


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
