"""Keeps ids of users in paths out of BentoML's metrics, which name the path of each request.

The metrics middleware is the outermost one, so no middleware of ours can change the path before it.
Its `__call__` is therefore wrapped: inside, `/users/ID` is `/users/-`, and the id is in the scope.
"""

from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

PREFIX = "/users/"
HIDDEN = PREFIX + "-"
USER_ID = "shortlist.user_id"
"""Key of the id in the scope of a request."""

_measured = RunnerTrafficMetricsMiddleware.__call__


async def _without_id(
    self: RunnerTrafficMetricsMiddleware, scope: Scope, receive: Receive, send: Send
) -> None:
    path = scope.get("path", "")
    if path.startswith(PREFIX):
        hidden = {"path": HIDDEN, "raw_path": HIDDEN.encode(), USER_ID: path[len(PREFIX) :]}
        scope = {**scope, **hidden}
    await _measured(self, scope, receive, send)  # pyright: ignore[reportArgumentType]


def hide_ids() -> None:
    """Hide the ids of users from BentoML's metrics in this process."""
    RunnerTrafficMetricsMiddleware.__call__ = _without_id  # pyright: ignore[reportAttributeAccessIssue]


def user_of(request: Request) -> str:
    """Return the id in the path of a request."""
    return request.scope.get(USER_ID, request.url.path.removeprefix(PREFIX))
