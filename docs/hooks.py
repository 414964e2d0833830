"""Hooks of MkDocs: pages from files beside docs/, and links that lead out of it.

README, CONTRIBUTING and CHANGELOG become pages. A link whose words are a page's file name gets the
page's title. A link to a file that is no page, such as a
configuration or a result, becomes the file's name, since the site doesn't contain it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
"""File at the top of the repository -> page."""
PART = re.compile(r"(^```.*?^```$)|\[([^\]]*)\]\(([^)\s]+)\)", re.DOTALL | re.MULTILINE)
"""A fenced block, which stays as it is, or a link."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from files beside docs/."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with links that are valid within the site."""
    sources = {made: name for name, made in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return linked(markdown, source, page.file.src_uri)


def linked(markdown: str, source: str, page: str) -> str:
    """Return the text of the file `source` with its links as links of `page`.

    Args:
        source: path in the repository of the file that contains the link.
        page: path of its page in the site.
    """
    return PART.sub(lambda part: _link(part, source, page), markdown)


def _link(part: re.Match[str], source: str, page: str) -> str:
    block, words, link = part.groups()
    path, hash_sign, anchor = link.partition("#") if link else ("", "", "")
    if block or "://" in path or not path:
        return part[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if words.endswith(".md"):
        words = _title(ROOT / target)
    if target not in PAGES and not target.startswith("docs/"):
        return words if "/" in words or "`" in words else f"{words} (`{target}`)"
    target = PAGES.get(target, target.removeprefix("docs/"))
    relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
    return f"[{words}]({relative}{hash_sign}{anchor})"


def _title(page: Path) -> str:
    """Return a page's heading up to its colon."""
    heading = page.read_text(encoding="utf-8").partition("\n")[0]
    return heading.removeprefix("# ").partition(":")[0]
