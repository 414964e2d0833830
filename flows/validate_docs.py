"""Data Docs that read well without a network.

GX's pages take their style, icons and the index's tables from content delivery networks; without
one the index shows an empty page. So each page gets a small style of its own, which the networks'
style overrides, and the index begins with a plain table that links to the results.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from shortlist.validation import Figures, Rule
from shortlist.validation.figures import BatchFigure

MARK = "shortlist-docs"
STYLE = f"""<style id="{MARK}">
body {{ font-family: system-ui, sans-serif; margin: 1.5rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }}
.fa-check-circle::before {{ content: "\\2713"; font-style: normal; }}
.fa-times::before {{ content: "\\2717"; font-style: normal; }}
</style>"""


@dataclass(frozen=True)
class Judged:
    """One table's figures for the index."""

    table: str
    rows: int
    expectations: int
    broken: int


@dataclass
class Account:
    """Where the events of a batch are. Nothing is lost: the five together are what was read."""

    read: int
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    excluded: int = 0
    applied: int = 0
    """Corrections and deletions."""

    @property
    def is_whole(self) -> bool:
        return self.read == sum(self.figures().values()) - self.read

    def figures(self) -> dict[str, int]:
        return asdict(self)


def run_name(batch_id: str) -> str:
    """GX tries to read a run's name as a date, and some hexadecimal ids overflow it."""
    return f"batch-{batch_id}"


def finish_docs(
    docs: Path,
    batch_id: str,
    judged: list[Judged],
    account: Account,
    figures: Figures,
    rules: list[Rule],
) -> Path:
    """Give the pages their style and the index its tables; returns the index."""
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if MARK not in text:
            page.write_text(text.replace("<head>", f"<head>\n{STYLE}", 1), encoding="utf-8")
    verdicts = "".join(_verdict(docs, batch_id, one) for one in judged)
    section = f"""<section class="p-4"><h2>Batch {escape(batch_id)}</h2>
<table class="table"><tr>{_cells(account.figures(), tag="th")}</tr>
<tr>{_cells(account.figures().values())}</tr></table>
<h3>Verdicts</h3><table class="table">
<tr><th>Table</th><th>Verdict</th><th>Rows</th><th>Expectations</th><th>Broken</th></tr>
{verdicts}</table>
<h3>The batch as a whole</h3><table class="table">
<tr><th>Figure</th><th>Found</th><th>Want</th><th>Action</th><th>What it is</th></tr>
{"".join(_figure(one) for one in figures.batch)}</table>
{"".join(_months(table, figures, rules) for table in figures.violations)}</section>"""
    index = docs / "index.html"
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("<body>", f"<body>\n{section}", 1), encoding="utf-8")
    return index


def _verdict(docs: Path, batch_id: str, judged: Judged) -> str:
    """The newest page of the batch's table; its folder is named by the time of the run."""
    page = max((docs / "validations" / judged.table / run_name(batch_id)).rglob("*.html"))
    link = f'<a href="{page.relative_to(docs).as_posix()}">{escape(judged.table)}</a>'
    verdict = "failed" if judged.broken else "succeeded"
    cells = (link, verdict, f"{judged.rows:,}", str(judged.expectations), str(judged.broken))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _figure(one: BatchFigure) -> str:
    limits = [f"≥ {one.min:g}" if one.min is not None else None]
    limits.append(f"≤ {one.max:g}" if one.max is not None else None)
    found = "not known yet" if one.value is None else f"{one.value:,.4g}"
    want = " and ".join(limit for limit in limits if limit) or "any"
    return f"<tr>{_cells((one.name, found, want, one.action, one.says))}</tr>\n"


def _months(table: str, figures: Figures, rules: list[Rule]) -> str:
    """Violations by rule and month; rules that nothing breaks are left out."""
    rows = figures.violations[table]
    broken = [rule for rule in rules if rule.table == table and figures.broken(rule)]
    if not figures.bad(table) and not broken:
        return ""
    names = ["part", "rows", "bad", *(rule.name for rule in broken)]
    body = "".join(f"<tr>{_cells(row[name] for name in names)}</tr>\n" for row in rows)
    return f"""<h3>{escape(table)}: what is bad, by month</h3><table class="table">
<tr>{_cells(names, tag="th")}</tr>
{body}</table>"""


def _cells(values: Iterable[Any], *, tag: str = "td") -> str:
    texts = (f"{value:,}" if isinstance(value, int) else str(value) for value in values)
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
