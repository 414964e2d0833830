"""Shows the comparison of two runs: `shortlist evaluate --run A --compare B`."""

from typing import Any

from rich import box
from rich.table import Table

from cli import show
from shortlist.files.plain_json import dumps

LONGEST = 60
"""Maximum number of characters of a setting's value."""


def compared_runs(content: dict[str, Any]) -> None:
    """Print both chains, the settings that differ, and each metric with its paired difference."""
    console = show.terminal()
    for label, run in zip(("run", "compare"), content["runs"], strict=True):
        formula = " ".join(f"{weight:+g} {name}" for name, weight in run["value"].items())
        parts = [run["run_id"], f"ranker {run['ranker']}", "sources " + ", ".join(run["sources"])]
        parts += [f"value {formula}"] if formula else []
        parts += [f"heads {', '.join(run['heads'])}"] if run["heads"] else []
        console.print(f"{label:<8} " + " · ".join(parts))
    if content["settings"]:
        settings = _table("Settings that differ", ("setting", "run", "compare"))
        for key, (value, other) in content["settings"].items():
            settings.add_row(key, _short(value), _short(other))
        console.print(settings)
    title = f"{content['dataset']}: test window, {content['n_requests']:,} requests of"
    title += f" {content['n_users']:,} users; difference = run - compare, with 95% interval"
    console.print(_metrics(title, content["metrics"]))
    for name, metrics in content["slices"].items():
        users = max(row["difference"]["users"] for row in metrics.values())
        console.print(_metrics(f"{name} ({users:,} users)", metrics))


def _metrics(title: str, metrics: dict[str, Any]) -> Table:
    table = _table(title, ("metric", "run", "compare", "difference", ""))
    for name, row in metrics.items():
        gap = row["difference"]
        interval = f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        verdict = "higher" if gap["low"] > 0 else "lower" if gap["high"] < 0 else ""
        table.add_row(name, f"{row['run']:.4f}", f"{row['compare']:.4f}", interval, verdict)
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if number == 0 else "right")
    return table


def _short(value: Any) -> str:
    text = "-" if value is None else dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
