"""Adds a table to the Data Docs' index: the number of events of each batch by their destination."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from shortlist.files.plain_json import write_json

SITE = "local_site"
"""Name of the Data Docs site in Great Expectations."""
SHOWN = 20
"""Number of batches in the table."""
START, END = "<!-- accounts -->", "<!-- end of accounts -->"


@dataclass
class Account:
    """Number of events of a batch by their destination; the other fields add up to `read`."""

    read: int
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    excluded: int = 0
    applied: int = 0
    """Number of corrections and deletions."""
    held_back: int = 0
    """Number of newest events that a demo keeps out of the lake, to replay them as traffic."""

    @property
    def is_whole(self) -> bool:
        return self.read == sum(self.figures().values()) - self.read

    def figures(self) -> dict[str, int]:
        return asdict(self)


def run_name(batch_id: str) -> str:
    """Return the name of a batch's run in Great Expectations.

    The name has a prefix: Great Expectations tries to parse names as dates, and some hexadecimal
    ids would cause an overflow.
    """
    return f"batch-{batch_id}"


def keep_account(docs: Path, batch_id: str, account: Account, *, refused: bool) -> Path:
    """Store a batch's account in accounts.json and update the Data Docs' index page, if it exists.

    Returns:
        Path of the index page.
    """
    line = {"batch": batch_id, "verdict": "refused" if refused else "published"}
    kept = [batch for batch in _read(docs) if batch["batch"] != batch_id]
    write_json(docs / "accounts.json", {"batches": [line | account.figures(), *kept]})
    index = docs / "index.html"
    if index.is_file():
        text = with_accounts(index.read_text(encoding="utf-8"), docs)
        index.write_text(text, encoding="utf-8")
    return index


def with_accounts(page: str, docs: Path) -> str:
    """Return the index page with the current table of the last batches."""
    page = re.sub(f"{START}.*?{END}", "", page, flags=re.DOTALL)
    return page.replace("<body>", f"<body>{_accounts(docs)}", 1)


def _read(docs: Path) -> list[dict[str, Any]]:
    path = docs / "accounts.json"
    return json.loads(path.read_text())["batches"] if path.is_file() else []


def _accounts(docs: Path) -> str:
    """Return the HTML table of the last batches, newest first."""
    batches = _read(docs)[:SHOWN]
    rows = "".join(
        f"<tr>{_cells(batch.get(key, 0) for key in batches[0])}</tr>\n" for batch in batches
    )
    head = _cells(batches[0], tag="th") if batches else ""
    return f"""{START}<section class="p-4"><h4>Where the events of the last batches are</h4>
<table class="table table-sm"><tr>{head}</tr>
{rows}</table></section>{END}"""


def _cells(values: Iterable[Any], *, tag: str = "td") -> str:
    texts = (f"{value:,}" if isinstance(value, int) else str(value) for value in values)
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
