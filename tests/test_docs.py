"""Files that the documentation names exist, its links are valid, and the site has all pages."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENDINGS = "py|toml|md|json|svg|yaml|lock|txt"
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(rf"`([\w.-]+(?:/[\w.-]+)+\.(?:{ENDINGS}))`")
IN_HOME = {"features", "reports", "var"}
"""First folders of paths inside a home; a run creates them, so they don't exist here."""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a Markdown page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def dead_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or heading doesn't exist."""
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def missing_files(page: Path) -> list[str]:
    """Return the file paths in backticks that don't exist.

    A path may start at the repository, shortlist/ or benchmarks/. Paths in a home (IN_HOME) are
    skipped.
    """
    named = FILE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    roots = (ROOT, ROOT / "shortlist", ROOT / "benchmarks")
    return [
        path
        for path in named
        if path.split("/")[0] not in IN_HOME and not any((root / path).exists() for root in roots)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page: Path) -> None:
    assert dead_links(page) == []
    assert missing_files(page) == []


def test_faults_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](gone.md) [b](#two) [c](#one) `models/gone.py` `models/layers.py`\n")
    assert dead_links(page) == ["gone.md", "#two"]
    assert missing_files(page) == ["models/gone.py"]


@pytest.mark.parametrize(("page", "most"), [("README.md", 120), ("docs/operations.md", 110)])
def test_pages_to_read_at_once_are_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def test_pages_that_code_and_configs_name_exist() -> None:
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    tops = {name.partition(".")[0] for name in folders} | {"configs", "tests"}
    files = [path for top in tops for path in (ROOT / top).rglob("*.*")]
    named = {
        page
        for path in files
        if path.suffix in (".py", ".toml", ".yml", ".html")
        for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []
    assert "docs/rules.md" in named


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for link in LINK.findall(text):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in reached:
                todo.append(target)
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert listed == pages | {"index.md", "contributing.md", "changes.md"}


def test_links_lead_to_pages_of_the_site() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    for source, page, link, expected in (
        ("README.md", "index.md", "[a](docs/data.md#x)", "[a](data.md#x)"),
        ("README.md", "index.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        (
            "docs/experiments/reviews.md",
            "experiments/reviews.md",
            "[a](../../README.md)",
            "[a](../index.md)",
        ),
        (
            "docs/experiments/reviews.md",
            "experiments/reviews.md",
            "[data.md](../data.md)",
            "[Your data](../data.md)",
        ),
        (
            "docs/data.md",
            "data.md",
            "[gates](../configs/gates.toml)",
            "gates (`configs/gates.toml`)",
        ),
        ("docs/data.md", "data.md", "[a](https://b.org) [c](#d)", "[a](https://b.org) [c](#d)"),
        ("docs/data.md", "data.md", "```\n[a](docs/data.md)\n```", "```\n[a](docs/data.md)\n```"),
    ):
        assert hooks.linked(link, source, page) == expected
