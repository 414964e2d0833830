"""How results look in a terminal: Rich tables, or one JSON object with `--json`."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from shortlist.plain_json import dumps

TABLE_METRICS = ("ndcg@10", "precision@10", "recall@10", "recall@100", "mrr@100")
SHOWN_METRICS = ("coverage@10", "diversity@10", "novelty@10")
METHOD_ORDER = ("chain", "champion")


@contextlib.contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """With `--json`, whatever steps print goes to stderr, so that stdout holds one object."""
    if not as_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def result(
    content: dict[str, Any], *, as_json: bool, table: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Show what a command found."""
    if as_json:
        sys.stdout.write(dumps(content) + "\n")
    elif table is not None:
        table(content)
    else:
        _console().print_json(dumps(content))


def error(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]error[/] {_plain(message)}"
    )


def is_for_users(problem: BaseException) -> bool:
    """Ours say what is wrong and what would be right; anything else is a bug and keeps its
    traceback.
    """
    module = type(problem).__module__.split(".")[0]
    return module in {"shortlist", "models", "simulation", "flows", "monitoring", "services", "cli"}


def summary(content: dict[str, Any]) -> None:
    """The end of `shortlist run`: quality, verdicts, seconds, and what to type next."""
    quality(content)
    console = _console()
    gates(content)
    if "monitor" in content:
        guardrails(content["monitor"])
    if content["data"] is not None:
        account(content["data"])
    steps = Table(title="Seconds by step", title_justify="left")
    for name in content["seconds"]:
        steps.add_column(name, justify="right")
    steps.add_column("together", justify="right", style="bold")
    values = list(content["seconds"].values())
    steps.add_row(*(f"{value:.0f}" for value in values), f"{sum(values):.0f}")
    console.print(steps)
    console.print(f"peak memory {content['peak_memory_gb']} GB · run {content['run_id']}\n")
    if not content["promoted"]:
        before = f"{content['serving']} goes on serving" if content["serving"] else "none serves"
        console.print(f"The release was not promoted; {before}. The gates say why.")
        return
    console.print("What next:")
    for command, meaning in (
        (
            f"shortlist recommend {content['example_user']}",
            "a list with its reasons, no server needed",
        ),
        ("shortlist serve", "the API on http://127.0.0.1:3000, documentation there too"),
        ("shortlist report", "drift, diversity, engagement and guardrails"),
        ("shortlist doctor", "what is installed, reachable and fresh"),
    ):
        console.print(f"  [bold].venv/bin/{command:<26}[/] {meaning}")


def account(content: dict[str, Any]) -> None:
    """Where the events of the run's batch are: the parts together are what was read."""
    parts = ("accepted", "quarantined", "duplicates", "excluded", "applied")
    listed = " + ".join(f"{content[part]:,} {part}" for part in parts)
    if content.get("held_back"):
        listed += f" + {content['held_back']:,} held back"
    line = f"{content['read']:,} events read = {listed}"
    if not content["read"] and content["unchanged"]:
        line = "no new events: the lake has everything that the source gives"
    _console().print(line)


def quality(content: dict[str, Any]) -> None:
    """One row a method, best nDCG first after the chain; half-widths are of 95% bootstrap
    intervals. The last column is the paired difference on the same requests.
    """
    metrics = content["metrics"]
    table = Table(
        title=f"{content['dataset']}: test window, {content['n_requests']:,} requests of"
        f" {content['n_users']:,} users, full catalogue",
        title_justify="left",
    )
    table.add_column("method")
    for name in (*TABLE_METRICS, *SHOWN_METRICS):
        table.add_column(name.split("@")[0] + f"\n@{name.split('@')[1]}", justify="right")
    first = [name for name in METHOD_ORDER if name in metrics]
    table.add_column("chain ahead\nndcg@10 [95%]", justify="right", no_wrap=True)
    rest = sorted(set(metrics) - set(first), key=lambda name: -metrics[name]["ndcg@10"]["mean"])
    for name in (*first, *rest):
        values = metrics[name]
        main, *others = TABLE_METRICS
        cells = [_interval(values[main])]
        cells += [_figure(values[metric]["mean"]) for metric in (*others, *SHOWN_METRICS)]
        cells.append(_difference(content["chain_ahead"].get(name)))
        table.add_row(name, *cells, style="bold" if name == "chain" else None)
    _console().print(table)


def gates(content: dict[str, Any]) -> None:
    table = Table(title="Promotion gates", title_justify="left")
    for column in ("gate", "verdict", "figures"):
        table.add_column(column)
    for gate in content["gates"]:
        table.add_row(gate["name"], _verdict("pass" if gate["passed"] else "fail"), gate["reason"])
    _console().print(table)


def guardrails(content: dict[str, Any]) -> None:
    table = Table(title=f"Guardrails: {content['verdict']}", title_justify="left")
    for column in ("guardrail", "verdict", "why"):
        table.add_column(column)
    for row in content["guardrails"]:
        table.add_row(row["name"], _verdict(row["verdict"]), row["reason"])
    _console().print(table)


def slate(content: dict[str, Any]) -> None:
    if "title" in content:
        title = f"Like '{content['title']}'"
    else:
        known = "" if content["user_known"] else " (unknown: what is popular now)"
        title = f"For user {content['user_id']}{known}"
    table = Table(title=f"{title} · release {content['release_id']}", title_justify="left")
    table.add_column("", justify="right")
    for column in ("item", "title", "source", "why"):
        table.add_column(column)
    for item in content["items"]:
        table.add_row(
            str(item["rank"]), item["item_id"], item["title"], item["source"], item["reason"]
        )
    _console().print(table)


def releases(content: dict[str, Any]) -> None:
    table = Table()
    for column in ("release", "serves", "dataset", "nDCG@10"):
        table.add_column(column)
    for row in content["releases"]:
        table.add_row(
            row["release_id"],
            "yes" if row["serving"] else "",
            row["dataset"],
            f"{row['ndcg@10']:.4f}",
        )
    _console().print(table)


def checks(content: dict[str, Any]) -> None:
    table = Table()
    for column in ("what", "status", "found"):
        table.add_column(column)
    for row in content["checks"]:
        table.add_row(row["name"], _verdict(row["status"]), row["found"])
    _console().print(table)


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{path: [old, new]} for every leaf that differs between two manifests."""
    out: dict[str, Any] = {}
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        path = f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            out |= difference(a, b, f"{path}.")
        elif a != b:
            out[path] = [a, b]
    return out


def _figure(value: float) -> str:
    """Nothing where it can't be judged, such as diversity without categories."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(values: dict[str, float]) -> str:
    half = (values["high"] - values["low"]) / 2
    return f"{values['mean']:.3f} ±{half:.3f}"


def _difference(values: dict[str, dict[str, float]] | None) -> str:
    if values is None:
        return ""
    ((_, figure),) = values.items()
    return f"{figure['mean']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def _verdict(name: str) -> str:
    colour = {"pass": "green", "ok": "green", "warn": "yellow", "fail": "red", "hold": "red"}
    return f"[{colour.get(name, 'white')}]{name}[/]"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 136)
