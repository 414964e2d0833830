"""Routes that aren't posts: readiness, the request to forget a user, the console, and the OpenAPI
document.

BentoML's API methods only accept POST, so these routes are in a small FastAPI app that BentoML
mounts.
"""

from typing import Any

import bentoml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from services.console.app import console
from services.http.hidden_ids import user_of
from services.http.openapi import openapi
from shortlist.http.api import ForgetResponse, Readiness
from shortlist.ids import id_problem

# This app needs no OpenAPI page: BentoML's page at / shows its routes too.
pages = FastAPI(title="pages", openapi_url=None)
pages.include_router(console)


@pages.get("/status/ready")
async def ready() -> Readiness:
    """Return the release and the feature pack (item features) that are served, and the clock."""
    return bentoml.get_current_service().readiness()


@pages.delete("/users/{id:path}")
def forget(request: Request) -> ForgetResponse:
    """Forget a user: from now on the service knows nothing that is older than this request."""
    user_id = user_of(request)
    if problem := id_problem(user_id, of_user=True):
        return JSONResponse({"error": f"user id: {problem}"}, 400)  # pyright: ignore[reportReturnType]
    return bentoml.get_current_service().forget(user_id)


@pages.get("/docs.json", include_in_schema=False)
async def docs() -> dict[str, Any]:
    """Return the API's OpenAPI document. BentoML's page at / shows it."""
    service = bentoml.get_current_service()
    return openapi(service, release_id=service.readiness().release_id)
