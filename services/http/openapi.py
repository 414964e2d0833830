"""The OpenAPI 3.1 document of the HTTP API, made from the pydantic models that check requests.

BentoML's document declares OpenAPI 3.0.2 but contains keywords of 3.1 (a numeric
`exclusiveMinimum`), so tools refuse it. It also lacks the service's error responses.
"""

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shortlist.http.api import (
    EventsRequest,
    EventsResponse,
    ForgetResponse,
    ItemsRequest,
    ItemsResponse,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    Refusal,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)

ROUTES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "recommend": (RecommendRequest, RecommendResponse),
    "search": (SearchRequest, SearchResponse),
    "similar": (SimilarRequest, SimilarResponse),
    "events": (EventsRequest, EventsResponse),
    "items": (ItemsRequest, ItemsResponse),
}
"""Route -> (model of the request body, model of the response)."""
REFUSALS = {
    "400": "The body is invalid. The error says what is wrong, where, and what would be right.",
    "401": "SHORTLIST_API_KEYS is set, and the request has no valid key.",
    "403": "The key lacks the scope; without keys, the client is on another machine.",
    "413": "The body is too large.",
    "415": "The body is not sent as application/json.",
    "429": "The client sends too many requests; the header Retry-After has the seconds to wait.",
    "503": "The service can't answer now; try again after Retry-After seconds.",
}
PLAIN_ROUTES = {
    "/livez": "200 while the process runs.",
    "/readyz": "200 once the service answers requests.",
    "/metrics": "Metrics of all workers, for Prometheus.",
}


def openapi(service: object, *, release_id: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        service: the running service; the docstrings of its methods become descriptions.
        release_id: id of the served release; becomes the document's version.
    """
    models = {model for pair in ROUTES.values() for model in pair} | {
        Readiness,
        Refusal,
        ForgetResponse,
    }
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered],
        ref_template="#/components/schemas/{model}",
    )
    for schema in schemas["$defs"].values():
        if "example" in schema:
            schema["examples"] = [schema.pop("example")]
    paths: dict[str, Any] = {}
    for route, (body, answer) in ROUTES.items():
        method = getattr(type(service), route)
        paths[f"/{route}"] = {
            "post": {
                "operationId": route,
                "description": inspect.getdoc(getattr(method, "func", method)),
                "requestBody": {"required": True, "content": _json(body)},
                "responses": {
                    "200": {"description": "The answer.", "content": _json(answer)},
                    **{
                        status: {"description": why, "content": _json(Refusal)}
                        for status, why in REFUSALS.items()
                    },
                },
            }
        }
    paths["/status/ready"] = {
        "get": {
            "operationId": "ready",
            "description": "Release, item features and clock that one worker serves.",
            "responses": {
                "200": {"description": "The worker answers requests.", "content": _json(Readiness)}
            },
        }
    }
    paths["/users/{id}"] = {
        "delete": {
            "operationId": "forget",
            "description": inspect.getdoc(getattr(type(service), "forget", None)),
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
            "responses": {
                "200": {"description": "The request is stored.", "content": _json(ForgetResponse)},
                **{
                    status: {"description": why, "content": _json(Refusal)}
                    for status, why in REFUSALS.items()
                    if status not in ("413", "415")
                },
            },
        }
    }
    for path, why in PLAIN_ROUTES.items():
        paths[path] = {"get": {"description": why, "responses": {"200": {"description": why}}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shortlist",
            "version": release_id,
            "description": inspect.getdoc(type(service)),
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
