"""GET routes: readiness, the console, and the OpenAPI document that the API page shows.

BentoML's API methods only accept POST, so these routes are in a small FastAPI app that BentoML
mounts.
"""

from typing import Any

import bentoml
from fastapi import FastAPI

from services.console.app import console
from services.openapi import openapi
from shortlist.api import Readiness

# This app needs no OpenAPI page: BentoML's page at / shows its routes too.
pages = FastAPI(title="pages", openapi_url=None)
pages.include_router(console)


@pages.get("/status/ready")
async def ready() -> Readiness:
    """Return the release and the feature pack (item features) that are served, and the clock."""
    return bentoml.get_current_service().readiness()


@pages.get("/docs.json", include_in_schema=False)
async def docs() -> dict[str, Any]:
    """Return the API's OpenAPI document. BentoML's page at / shows it."""
    service = bentoml.get_current_service()
    return openapi(service, release_id=service.readiness().release_id)
