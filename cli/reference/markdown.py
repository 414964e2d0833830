"""Markdown tables of the generated pages."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = re.compile(r"\bdocs/((?:[\w-]+/)*([\w-]+)\.md)")
CODE = re.compile(r"(`[^`]*`)")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; `|` and line ends in cells are escaped."""
    lines = [" | ".join(head), "---|" * len(head)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    lines = [f"|{line}" if line.startswith("---") else f"| {line} |" for line in lines]
    return "\n".join(lines) + "\n"


def text(words: str | None) -> str:
    """Return a docstring as one line of Markdown: pages are links, `<name>` isn't read as HTML."""
    parts = CODE.split(" ".join((words or "").replace("``", "`").split()))
    return "".join(
        part if part.startswith("`") else PAGE.sub(_link, _without_tags(part)) for part in parts
    )


def _link(match: re.Match[str]) -> str:
    path = match[1]
    return f"[{match[2]}]({path.removeprefix('reference/') if '/' in path else f'../{path}'})"


def _without_tags(words: str) -> str:
    return words.replace("<", "&lt;").replace(">", "&gt;")


def code(value: object) -> str:
    """Return a value as code; paths below the repository are relative to it."""
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    words = " ".join(str(value).split("\n"))
    return f"`{words}`" if words else '`""`'


def first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph of a docstring as one line."""
    return text((docstring or "").strip().split("\n\n")[0])
