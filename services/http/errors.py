"""Rewrites error responses to one sentence: what is wrong, where, and what would be right.

BentoML answers bad input with a list of validation problems, and an unknown path with plain text.
It answers a body that is not JSON with a 500 from its form parser. This module turns all of them
into a 4xx response with {"error": ...}, and keeps tracebacks of client errors out of the log.
"""

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any, get_args

from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.http.doors import is_console
from shortlist.http.api import (
    EventsRequest,
    ItemsRequest,
    RecommendRequest,
    SearchRequest,
    SimilarRequest,
)

POSTS: dict[str, type[BaseModel]] = {
    "/recommend": RecommendRequest,
    "/search": SearchRequest,
    "/similar": SimilarRequest,
    "/events": EventsRequest,
    "/items": ItemsRequest,
}
JSON = "application/json"
log = logging.getLogger("bentoml.shortlist")
MAX_PROBLEMS = 5


class ClearErrors:
    """ASGI middleware that rewrites error responses, and logs one line for each.

    The body becomes {"error": sentence, "request_id": ..., "release_id": ...}.
    """

    release_id: Callable[[], str | None] = staticmethod(lambda: None)
    """Returns the id of the served release. The service sets this function after it has loaded the
    first release."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        media_type = Headers(scope=scope).get("content-type", JSON).split(";")[0].strip().lower()
        if scope["path"] in POSTS and scope["method"] == "POST" and media_type != JSON:
            # BentoML would try other parsers, and answer with a 500 if they fail.
            refusal = f"content-type is '{media_type}': send the body as {JSON}"
            answer = JSONResponse(self.told(refusal, status=415, scope=scope), status_code=415)
            await answer(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def rewrite(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and refused(message["status"], scope):
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                text = sentence(body, status=start["status"], scope=scope)
                clear = self.told(text, status=start["status"], scope=scope)
                content = json.dumps(clear).encode()
                headers = MutableHeaders(raw=list(start["headers"]))
                headers["content-type"] = JSON
                headers["content-length"] = str(len(content))
                await send({**start, "headers": headers.raw})
                await send({"type": "http.response.body", "body": content})

        await self.app(scope, receive, rewrite)

    def told(self, text: str, *, status: int, scope: Scope) -> dict[str, Any]:
        """Return the body of an error response, and log the error with the same request_id."""
        request_id = uuid.uuid4().hex
        log.info("refused %s: %s %d: %s", request_id, path_of(scope), status, text)
        return {"error": text, "request_id": request_id, "release_id": self.release_id()}


def path_of(scope: Scope) -> str:
    """Return the path of a request without a user's id, which must not be logged."""
    return "/users/{id}" if scope["path"].startswith("/users/") else scope["path"]


def refused(status: int, scope: Scope) -> bool:
    """Return whether to rewrite a response: every 4xx, and every 5xx of a route in POSTS.

    So the 503 of a health check is not rewritten.
    """
    path = scope["path"]
    if is_console(path) or path.startswith("/why/"):  # HTML, or a sentence already
        return False
    return 400 <= status < 500 or (status >= 500 and scope["path"] in POSTS)


def sentence(body: bytes, *, status: int, scope: Scope) -> str:
    """Return the error sentence that replaces the `body` of BentoML's response."""
    if status == 404:
        return (
            f"no such path: {path_of(scope)}; there are POST {', '.join(POSTS)}, DELETE"
            " /users/{id} and GET /status/ready, /why/REQUEST_ID, /livez, /readyz, /metrics,"
            " /console, / (documentation)"
        )
    if status == 405:
        allowed = "POST" if scope["path"] in POSTS else "GET"
        allowed = "DELETE" if scope["path"].startswith("/users/") else allowed
        return f"{path_of(scope)} takes {allowed}, not {scope['method']}"
    try:
        content: Any = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    if isinstance(content, list) and content:  # BentoML wraps the text of an exception in a list
        content = content[0]
    if not isinstance(content, dict):
        return str(content)
    if "detail" in content:
        body_model = POSTS[scope["path"]]
        problems = [_problem(problem, body_model) for problem in content["detail"]]
        more = len(problems) - MAX_PROBLEMS
        return "; ".join(problems[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
    return str(content.get("error", content))


def _problem(problem: dict[str, Any], body_model: type[BaseModel]) -> str:
    """Format a validation problem of pydantic as `where: what is wrong`."""
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {message.removeprefix('Invalid JSON: ')}"
    if problem["type"] == "model_type" and not problem["loc"]:
        return "the body is JSON but not an object: want {...}"
    if problem["type"] == "extra_forbidden":
        message = f"unknown key; there are {', '.join(_keys(body_model, problem['loc']))}"
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {message}" if where else message


def _keys(model: type[BaseModel], loc: list[Any]) -> list[str]:
    """Return the valid keys of the object that has the unknown key.

    Args:
        model: model of the request body.
        loc: path of the unknown key in the body, as pydantic reports it.
    """
    for part in loc[:-1]:
        if isinstance(part, str):
            annotation: Any = model.model_fields[part].annotation
            while arguments := get_args(annotation):  # list[Event], RuleSet | None
                annotation = arguments[0]
            model = annotation
    return list(model.model_fields)


class NoTracebackForClients(logging.Filter):
    """Drops log records of invalid requests, because BentoML logs each with a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        problem = record.exc_info[1] if record.exc_info else None
        return not isinstance(problem, ValidationError | InvalidArgument)


def quiet_client_errors() -> None:
    logging.getLogger("bentoml._internal.server.http_app").addFilter(NoTracebackForClients())
