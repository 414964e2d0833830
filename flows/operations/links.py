"""Addresses of files of the home: pages of `shortlist up`, or file URIs without it.

<home>/up.json names the processes that `shortlist up` started.
"""

import json
from pathlib import Path
from urllib.parse import quote

from shortlist.config import Settings

UP = "up.json"
PAGES: tuple[tuple[str, str], ...] = (("reports", "reports"), ("data-docs", "data_docs"))
"""(first part of a page's path, name of the folder in Settings) that the report pages show."""


def pages_url(settings: Settings) -> str | None:
    """Return the address of the report pages; None if `shortlist up` doesn't serve them."""
    try:
        return json.loads((settings.home / UP).read_text())["processes"]["pages"]["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def link_to(settings: Settings, path: Path | str) -> str:
    """Return the address of a report or Data Docs page, or the file URI of another path."""
    path = Path(path).absolute()
    base = pages_url(settings)
    for name, attribute in PAGES:
        folder = getattr(settings, attribute).absolute()
        if base is not None and path.is_relative_to(folder):
            return f"{base}/{name}/{quote(path.relative_to(folder).as_posix())}"
    return path.as_uri()
