"""Data Docs that read well without a network.

GX's pages take their style, icons and the index's tables from content delivery networks; without
one the index shows an empty page. So each page gets a small style of its own, which the networks'
style overrides, and the index begins with a plain table that links to the results.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

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


def finish_docs(docs: Path, batch_id: str, judged: list[Judged]) -> Path:
    """Give the pages their style and the index its table; returns the index."""
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if MARK not in text:
            page.write_text(text.replace("<head>", f"<head>\n{STYLE}", 1), encoding="utf-8")
    index = docs / "index.html"
    rows = "".join(_row(docs, batch_id, one) for one in judged)
    section = f"""<section class="p-4"><h2>Batch {escape(batch_id)}</h2><table class="table">
<tr><th>Table</th><th>Verdict</th><th>Rows</th><th>Expectations</th><th>Broken</th></tr>
{rows}</table></section>"""
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("<body>", f"<body>\n{section}", 1), encoding="utf-8")
    return index


def _row(docs: Path, batch_id: str, judged: Judged) -> str:
    """The newest page of the batch's table; its folder is named by the time of the run."""
    page = max((docs / "validations" / judged.table / batch_id).rglob("*.html"))
    link = f'<a href="{page.relative_to(docs).as_posix()}">{escape(judged.table)}</a>'
    verdict = "failed" if judged.broken else "succeeded"
    cells = (link, verdict, f"{judged.rows:,}", str(judged.expectations), str(judged.broken))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
