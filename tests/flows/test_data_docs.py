"""Data Docs: the index lists every validation, and all pages work without a network."""

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

from flows.validate import ValidateConfig, ValidationFailed
from tests.flows.conftest import GOOD_EVENTS, House, event

TAKEN = re.compile(r"""(?:<(?:link|script|img)\b[^>]*?(?:href|src)=|url\()\s*["']?([^"')\s>]+)""")


def taken(page: Path) -> list[str]:
    """Return the URLs of stylesheets, scripts and images of a page, without ordinary links."""
    return TAKEN.findall(page.read_text())


def test_every_validation_stays_listed(house: House) -> None:
    house.validate([*GOOD_EVENTS, event(30, value=9.0)])
    first = house.batch_id
    with pytest.raises(ValidationFailed):
        house.validate([event(31, value=9.0)], config=ValidateConfig())
    house.validate([event(32)])
    docs = house.settings.data_docs
    index = (docs / "index.html").read_text()
    pages = list((docs / "validations").rglob("*.html"))
    assert len(pages) == 4 + 2 + 2  # only the first batch has items and users
    for page in pages:
        assert page.relative_to(docs).as_posix() in index
    head, rows = index.split("<!-- accounts -->")[1].split("<!-- end")[0].split("</tr>", 1)
    assert "<th>quarantined</th>" in head
    verdicts = re.findall(r"<tr><td>(\w+)</td><td>(\w+)</td><td>(\d+)</td>", rows)
    assert [(verdict, read) for _, verdict, read in verdicts] == [
        ("published", "1"),
        ("refused", "1"),
        ("published", "21"),
    ]
    assert verdicts[2][0] == first


def test_pages_take_nothing_from_another_host(house: House) -> None:
    house.validate([*GOOD_EVENTS, event(30, value=9.0)])
    docs = house.settings.data_docs
    pages = list(docs.rglob("*.html"))
    assert len(pages) == 9  # an index, four suites, four results
    for page in pages:
        found = taken(page)
        assert sum(one.endswith((".css", ".js")) for one in found) >= 8, page
        for one in found:
            assert not one.startswith(("http", "//")), f"{page}: {one}"
            if one.startswith((".", "static")):
                assert (page.parent / one.split("?")[0]).is_file(), f"{page}: {one}"


def test_the_assets_are_whole() -> None:
    """The stylesheets, scripts and fonts for Data Docs are in the repository, with licences."""
    from flows.validation.site import ASSETS, LOCAL

    for file in LOCAL.values():
        assert (ASSETS / file).stat().st_size > 400
    for folder in ASSETS.iterdir():
        text = "".join(path.read_text(errors="ignore")[:2_000] for path in folder.rglob("*.js"))
        assert (folder / "LICENSE").is_file() or "MIT License" in text, folder
    css = (ASSETS / "fontawesome/css/all.min.css").read_text()
    for weight in ("fa-solid-900.woff2", "fa-regular-400.woff2"):
        assert weight in css
        assert (ASSETS / "fontawesome/webfonts" / weight).is_file()


def test_a_batch_compiles_no_template_again_and_builds_one_index(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from great_expectations.render.renderer.site_index_page_renderer import SiteIndexPageRenderer

    house.validate(GOOD_EVENTS)  # in this home, so that its pages are compiled here
    compiled: list[str] = []
    listed: list[int] = []
    compile_template = jinja2.Environment.compile
    render = SiteIndexPageRenderer.render

    def noting(self: Any, source: Any, name: Any = None, *rest: Any, **more: Any) -> Any:
        compiled.append(name)
        return compile_template(self, source, name, *rest, **more)

    def counting(cls: Any, links: Any) -> Any:
        listed.append(len(links["validations_links"]))
        return render(links)

    monkeypatch.setattr(jinja2.Environment, "compile", noting)
    monkeypatch.setattr(SiteIndexPageRenderer, "render", classmethod(counting))
    house.validate([event(20)])
    assert compiled == []
    assert listed == [4 + 2]  # only the first batch has items and users
