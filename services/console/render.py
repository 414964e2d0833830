"""Renders the console's templates, with headers that let a page load nothing from elsewhere."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.console import charts

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"
NAVIGATION = (
    ("h", "", "Home"),
    ("p", "/person", "Person"),
    ("c", "/compare", "Compare"),
    ("r", "/releases", "Releases"),
    ("i", "/item", "Item"),
    ("w", "/requests", "Requests"),
    ("d", "/data", "Data and flow"),
)
"""(key after g, path, title) of each page."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' http: https:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    # With the service's `no-referrer`, browsers would send "Origin: null" with forms.
    "referrer-policy": "same-origin",
    "vary": "hx-request",
}


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (charts.moment, charts.age, charts.number, charts.signed, charts.percent):
        made.filters[function.__name__] = function
    made.filters["wall"] = charts.wall
    made.globals |= {"bars": charts.bars, "line": charts.line, "navigation": NAVIGATION}
    made.globals["assets"] = assets_version()
    return made


@cache
def assets_version() -> str:
    """Return a hash of all static files; part of their addresses, so browsers may keep them."""
    content = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def page(request: Request, template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
    """Return a page.

    Args:
        template: file name without its ending; also names the page in the navigation.
        content: variables of the template.
    """
    query = dict(request.query_params)

    def link(**changes: Any) -> str:
        """Return this page's address with changed query parameters; None removes one."""
        kept = {k: str(v) for k, v in (query | changes).items() if v not in (None, "")}
        return f"{request.url.path}?{urlencode(kept)}"

    html = (
        environment()
        .get_template(f"{template}.html")
        .render(content | {"path": request.url.path, "link": link, "query": query})
    )
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def problem(request: Request, text: str, *, status: int = 400) -> HTMLResponse:
    """Return a page that says what is wrong."""
    return page(request, "problem", status=status, text=text)


def is_own_form(request: Request) -> bool:
    """Return whether a post comes from a page of this site.

    Browsers add `Origin` to each post, and pages can't change it. So a page of another site can't
    post here, although the browser may add the user's password.
    """
    origin = urlsplit(request.headers.get("origin", "")).netloc
    site = request.headers.get("sec-fetch-site", "same-origin")
    return bool(origin) and origin == request.headers.get("host") and site == "same-origin"
