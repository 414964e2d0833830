"""The main way through every page in headless Chromium, 390 px wide, with keyboard; contrast."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from services.console.render import STATIC
from tests.services.console.browser import WIDTH, Browser, browser
from tests.services.console.desk import Desk

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium isn't installed: `apt-get install chromium` runs this test"
)
AA = 4.5
"""Contrast of text that WCAG 2.2 AA asks for."""
PAIRS = (
    *(("ink", on) for on in ("ground", "card", "chip")),
    *(("soft", on) for on in ("ground", "card", "chip")),
    *(("link", on) for on in ("ground", "card", "chip")),
    *(("on", on) for on in ("good", "warn", "bad")),
    *((moved, on) for moved in ("up", "down") for on in ("card", "chip")),
    ("down", "ground"),
    ("card", "link"),
)


PATHS = (
    "",
    "/person",
    "/compare?user=u1&sample=1",
    "/releases",
    "/item",
    "/item?item=i001&user=u1",
    "/requests",
    "/data",
)


@pytest.fixture
def site(desk: Desk, logged: str) -> Iterator[str]:
    """The address of the console, served over HTTP."""
    server = uvicorn.Server(uvicorn.Config(desk.app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


@needs_browser
def test_the_way_through_every_page(site: str, logged: str, desk: Desk, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path / "profile") as page:
        for path in (*PATHS, f"/why/{logged}"):
            page.open(f"{site}/console{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH, path
            assert page.evaluate("document.querySelectorAll('h1').length") == 1
        person(page, site, desk)
        assert page.errors == []


def person(page: Browser, site: str, desk: Desk) -> None:
    first = "document.querySelector('.list h3 a').textContent"
    page.open(f"{site}/console/person?user=u1&k=5")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    before = page.evaluate(first)
    page.evaluate("window.stays = true; document.querySelector('.list form button').click()")
    page.wait("document.querySelector('#result [role=status]') !== null")
    assert page.evaluate(first) != before  # the item was consumed
    assert page.evaluate("window.stays"), "the page was loaded again"
    assert len(desk.events) == 5
    change = "const k = document.querySelector('[name=k]'); k.value = 3;"
    page.evaluate(f"{{{change} k.dispatchEvent(new Event('change', {{bubbles: true}}))}}")
    page.wait("document.querySelectorAll('.list > li').length === 3")
    assert "k=3" in page.evaluate("location.search"), "the state is in the URL"
    page.press("/")
    page.wait("document.activeElement.type === 'search'")
    page.evaluate("document.activeElement.blur()")
    page.press("g")
    page.press("h")
    page.wait("location.pathname === '/console'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(scheme: str) -> None:
    css = (STATIC / "console.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme == "dark"]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for text, ground in PAIRS:
        assert contrast(colours[text], colours[ground]) >= AA, (text, ground)


def test_contrast_of_known_colours() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
