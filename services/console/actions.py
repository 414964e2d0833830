"""What the console changes: posts an event, promotes a release, rolls back.

Posts are only accepted from the console's own pages. Changes of releases are audited.
"""

import asyncio
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from services.console.deployment import Running
from services.console.releases import abouts, limits, releases
from services.console.render import is_own_form, page, problem
from shortlist.home.home_lock import HomeLocked
from shortlist.http.api import Event, EventsRequest
from shortlist.releases.promotion import promote_release, roll_back_release
from shortlist.releases.release import ReleaseError

MIN_REASON = 5
FOREIGN = (
    "this post doesn't come from a page of the console: want an Origin header with the same host;"
    " a proxy before the service must keep the Host header"
)
actions = APIRouter(include_in_schema=False)


@actions.get("/console/releases")
async def show_releases(request: Request, running: Running) -> Response:
    given = request.query_params
    try:
        number = int(given.get("page") or 0)
        content = await asyncio.to_thread(
            releases, running.settings, given.get("release"), page=max(0, number)
        )
    except (ReleaseError, ValueError) as error:
        return problem(request, str(error))
    notice = given.get("notice", "")
    return page(request, "releases", **content, notice=notice, pinned=running.readiness().pinned_by)


@actions.post("/console/releases/promote")
async def promote(request: Request, running: Running) -> Response:
    """Promote a release if all gates pass, or with `force`; the workers follow within seconds."""
    if not is_own_form(request):
        return problem(request, FOREIGN, status=403)
    form = await form_of(request)
    release_id, reason = form.get("release", ""), form.get("reason", "").strip()
    if len(reason) < MIN_REASON:
        return problem(request, f"reason: want at least {MIN_REASON} characters for the audit log")
    about = (await asyncio.to_thread(abouts, running.settings)).get(release_id, {})
    path, config = limits(running.settings, about)
    if config is None:
        why = f"{path}: the limits of the gates can't be read; run `shortlist promote`"
        return problem(request, why, status=409)
    try:
        done = await asyncio.to_thread(
            promote_release,
            running.settings,
            release_id,
            config,
            what=f"console: promote {release_id}",
            force_reason=f"console: {reason}" if form.get("force") else None,
            note=f"console: {reason}",
        )
    except (ReleaseError, HomeLocked, OSError) as error:
        return problem(request, str(error), status=409)
    except KeyError as error:
        why = f"{release_id} can't be judged: its manifest lacks {error}; train a new release"
        return problem(request, why, status=409)
    if not done.promoted:
        failed = [asdict(gate) for gate in done.verdict.gates if not gate.passed]
        told = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in failed)
        return problem(request, f"{release_id} is not promoted: {told}", status=409)
    return back_to("/console/releases", "", release=release_id, notice=f"{release_id} is promoted")


@actions.post("/console/releases/rollback")
async def roll_back(request: Request, running: Running) -> Response:
    """Set the pointer back to the release that served before."""
    if not is_own_form(request):
        return problem(request, FOREIGN, status=403)
    reason = (await form_of(request)).get("reason", "").strip()
    if len(reason) < MIN_REASON:
        return problem(request, f"reason: want at least {MIN_REASON} characters for the audit log")
    try:
        before, now = await asyncio.to_thread(
            roll_back_release,
            running.settings,
            what="console: rollback",
            reason=f"console: {reason}",
        )
    except (ReleaseError, HomeLocked, OSError) as error:
        return problem(request, str(error), status=409)
    notice = f"{now} serves instead of {before}"
    return back_to("/console/releases", "", release=now, notice=notice)


@actions.post("/console/event")
async def post_event(request: Request, running: Running) -> Response:
    """Store an event of a person, and return to the page, whose list reflects it."""
    if not is_own_form(request):
        return problem(request, FOREIGN, status=403)
    form = await form_of(request)
    value = form.get("value", "").strip()
    try:
        event = Event.model_validate(
            {
                "user_id": form.get("user", ""),
                "item_id": form.get("item", ""),
                "event_type": form.get("event", ""),
                "value": float(value) if value else None,
                "surface": "console",
            }
        )
        answer = await asyncio.to_thread(running.post_events, EventsRequest(events=[event]))
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(request, f"{where}: {first['msg'].removeprefix('Value error, ')}")
    except Exception as error:  # also BentoML's refusals
        return problem(request, str(error))
    notice = f"stored: {event.event_type} of {event.item_id}"
    if answer.waiting:
        notice += f"; {answer.waiting} events wait for the online store, so the list is unchanged"
    return back_to("/console/person", form.get("back", ""), user=event.user_id, notice=notice)


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a posted form."""
    text = (await request.body()).decode(errors="replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}


def back_to(path: str, query: str, **changes: str) -> RedirectResponse:
    """Return to a page after a post, so that reloading it doesn't post again."""
    kept = {name: values[-1] for name, values in parse_qs(query).items()} | changes
    return RedirectResponse(f"{path}?{urlencode(kept)}", status_code=303)
