"""The console's routes. Each returns a whole page; htmx takes the part that changes.

Recommenders compute in the event loop, as for /recommend; files are read in threads.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from services.console import compare as comparing
from services.console import item as items
from services.console import person as persons
from services.console.actions import actions
from services.console.deployment import Running
from services.console.flow import flow
from services.console.home import RESPONSES, home
from services.console.options import OptionError, number, options_of, recommender_for
from services.console.people import PAGE, recent_people, search_people
from services.console.render import STATIC, page, problem
from services.console.served_log import recent
from services.console.why import add_contributions, largest_of, why
from shortlist.features.pack import PackError
from shortlist.releases.release import ReleaseError, ReleaseStore

REQUESTS_PAGE = 25
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
console = APIRouter(include_in_schema=False)
console.include_router(actions)


@console.get("/console")
async def show_home(request: Request, running: Running) -> HTMLResponse:
    return page(request, "home", **await asyncio.to_thread(home, running))


@console.get("/console/static/{name}")
async def static(request: Request, name: str) -> Response:
    path = STATIC / name
    if path.suffix not in MEDIA or path.parent != STATIC or not path.is_file():
        return problem(request, f"there is no file {name}", status=404)
    kept = {"cache-control": "public, max-age=31536000, immutable"}
    return FileResponse(path, media_type=MEDIA[path.suffix], headers=kept)


@console.get("/console/person")
async def show_person(request: Request, running: Running) -> HTMLResponse:
    """The list of a person, explained; without a person, a search."""
    given = request.query_params
    user_id, search = given.get("user"), given.get("q", "").strip()
    at = running.clock.now()
    content: dict[str, Any] = {"user": user_id, "search": search, "found": [], "count": 0}
    try:
        number_of_page = _page_of(request)
        content["page"] = number_of_page
        if search:
            content["found"], content["count"] = await asyncio.to_thread(
                search_people, running, search, page=number_of_page
            )
        content["people_page"] = PAGE
        content["recent"] = recent_people(running)
        if not user_id and not given.get("recent"):
            return page(request, "people", **content)
        options = options_of(request)
        variant = options.variant
        recommender = await asyncio.to_thread(
            recommender_for, running, variant, options.request.user_id
        )
        explained, history = persons.explained(recommender, options, at=at)
    except (OptionError, ReleaseError, PackError) as error:
        return problem(request, str(error))
    shares = await asyncio.to_thread(persons.add_shares, recommender, explained)
    ids = await asyncio.to_thread(ReleaseStore(running.settings.releases).ids)
    first = number_of_page * persons.HISTORY_PAGE
    return page(
        request,
        "person",
        **content,
        list=explained,
        has_shares=shares,
        options=options,
        history=history[first : first + persons.HISTORY_PAGE],
        history_count=len(history),
        history_page=persons.HISTORY_PAGE,
        at=at,
        variants=persons.choices(running, ids),
        posted=[(one, one) for one in persons.POSTED],
        event=given.get("event") or default_event(recommender.about),
        notice=given.get("notice", ""),
    )


def default_event(about: dict[str, Any]) -> str:
    """Return the event type that the page posts unless another one is chosen."""
    types = about.get("target_events") or ["click"]
    return types[0] if types[0] in persons.POSTED else "click"


@console.get("/console/compare")
async def show_compare(request: Request, running: Running) -> HTMLResponse:
    given, at = request.query_params, running.clock.now()
    chosen = (given.get("left", ""), given.get("right", ""))
    ids = await asyncio.to_thread(ReleaseStore(running.settings.releases).ids)
    names = running.serving.recommender.chain.source_names
    content: dict[str, Any] = {
        "variants": [
            *persons.choices(running, ids),
            *((f"source:{name}", f"source {name}") for name in names),
        ],
        "chosen": chosen,
        "recent": recent_people(running),
        "user": given.get("user"),
        "sides": [],
        "sample": [],
    }
    if not content["user"] and not given.get("sample"):
        return page(request, "compare", **content)
    try:
        options = options_of(request)
        for name in chosen:  # load other releases outside of the event loop
            if name.startswith("release:"):
                await asyncio.to_thread(running.beside, name.removeprefix("release:"))
        if content["user"]:
            lists = [comparing.listed(running, one, options, at=at) for one in chosen]
            content["sides"] = comparing.sides(chosen, lists)
            content["overlap"] = comparing.overlap(lists[0][1], lists[1][1])
        if given.get("sample"):
            content["sample"] = comparing.sample(running, chosen, options, at=at)
    except (OptionError, ReleaseError, PackError) as error:
        return problem(request, str(error))
    return page(request, "compare", **content)


@console.get("/console/item")
async def show_item(request: Request, running: Running) -> HTMLResponse:
    from models.recommend.recommender import UnknownItemError

    given = request.query_params
    item_id, search = given.get("item"), given.get("q", "").strip()
    recommender = running.serving.recommender
    try:
        if not item_id:
            number_of_page = _page_of(request)
            found, count = await asyncio.to_thread(
                items.search_items, recommender, search, page=number_of_page
            )
            content = {"search": search, "found": found, "count": count, "page": number_of_page}
            return page(request, "items", **content, size=items.PAGE)
        entries = await asyncio.to_thread(recent, running.settings.serving_log, RESPONSES)
        content = items.item_page(running, item_id, given.get("user"), entries)
    except (UnknownItemError, OptionError, ValueError) as error:
        return problem(request, str(error), status=404 if item_id else 400)
    return page(request, "item", **content, user=given.get("user"), recent=recent_people(running))


@console.get("/console/requests")
async def show_requests(request: Request, running: Running) -> HTMLResponse:
    """The newest responses, of one person or of all."""
    user_id = request.query_params.get("user", "")
    entries = await asyncio.to_thread(recent, running.settings.serving_log, RESPONSES)
    entries = [one for one in entries if not user_id or one["user_id"] == user_id]
    try:
        number_of_page = _page_of(request)
    except OptionError as error:
        return problem(request, str(error))
    first = number_of_page * REQUESTS_PAGE
    return page(
        request,
        "requests",
        entries=entries[first : first + REQUESTS_PAGE],
        count=len(entries),
        page=number_of_page,
        pages=-(-len(entries) // REQUESTS_PAGE),
        user=user_id,
        of=RESPONSES,
    )


@console.get("/console/why/{request_id}")
async def show_why(request: Request, running: Running, request_id: str) -> HTMLResponse:
    answer = await _why(running, request_id)
    if answer is None:
        return problem(request, not_logged(request_id), status=404)
    shares = {one["position"]: largest_of(one) for one in answer["items"]}
    return page(request, "why", answer=answer, shares=shares)


@console.get("/why/{request_id}")
async def tell_why(running: Running, request_id: str) -> JSONResponse:
    """What made a list: stages, sources, features and their contributions, from the log."""
    answer = await _why(running, request_id)
    if answer is None:
        return JSONResponse({"error": not_logged(request_id)}, status_code=404)
    return JSONResponse(answer)


def not_logged(request_id: str) -> str:
    return (
        f"request_id '{request_id}' is not in the serving log; want the 32 hex digits of an answer"
        " of /recommend that is not older than SHORTLIST_LOG_DAYS"
    )


async def _why(running: Running, request_id: str) -> dict[str, Any] | None:
    answer = await asyncio.to_thread(why, running, request_id)
    if answer is not None:
        await asyncio.to_thread(add_contributions, running, answer)
    return answer


@console.get("/console/data")
async def show_data(request: Request, running: Running) -> HTMLResponse:
    try:
        number_of_page = _page_of(request)
    except OptionError as error:
        return problem(request, str(error))
    content = await asyncio.to_thread(flow, running.settings, page=number_of_page)
    return page(request, "data", **content)


def _page_of(request: Request) -> int:
    return int(number(request.query_params.get("page"), "page", default=0, least=0, most=100_000))
