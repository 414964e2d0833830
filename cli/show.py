"""Shows results in a terminal: as Rich tables, or as one JSON object with `--json`."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shortlist.files.plain_json import dumps

TABLE_METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@100")
SHOWN_METRICS = ("coverage@10", "diversity@10", "novelty@10")
METHOD_ORDER = ("chain", "champion")


@contextlib.contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """With `--json`, redirect what the block prints to stderr; then stdout gets only the result."""
    if not as_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def result(
    content: dict[str, Any], *, as_json: bool, table: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Show the result of a command.

    It is shown as one line of JSON if `as_json`, by the function `table` if given, otherwise as
    indented JSON.
    """
    if as_json:
        sys.stdout.write(dumps(content) + "\n")
    elif table is not None:
        table(content)
    else:
        terminal().print_json(dumps(content))


def error(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]error[/] {_plain(message)}"
    )


def is_for_users(problem: BaseException) -> bool:
    """Return whether an error is of one of this project's own exception types.

    Their messages are written for users. Any other error is a bug, so its traceback is shown.
    """
    module = type(problem).__module__.split(".")[0]
    return module in {"shortlist", "models", "simulation", "flows", "monitoring", "services", "cli"}


def summary(content: dict[str, Any]) -> None:
    """Show the result of `shortlist run`: release, quality and next commands, then tables."""
    _print_headline(content)
    quality(content)
    gates(content)
    if "monitor" in content:
        guardrails(content["monitor"])
    if content["data"] is not None:
        account(content["data"])
    seconds = content["seconds"]
    listed = " · ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    terminal().print(f"{sum(seconds.values()):.0f} seconds: {listed}")
    terminal().print(f"peak memory {content['peak_memory_gb']} GB")


def _print_headline(content: dict[str, Any]) -> None:
    console = terminal()
    sizes = ", ".join(f"{count:,} {name}" for name, count in content["trained_on"].items())
    chain = content["metrics"]["chain"]["ndcg@10"]
    quality_line = f"nDCG@10 {chain['mean']:.3f} [{chain['low']:.3f}, {chain['high']:.3f}]"
    if content["baselines"]:
        best = max(
            content["baselines"], key=lambda name: content["metrics"][name]["ndcg@10"]["mean"]
        )
        lead = content["chain_ahead"][best]["ndcg@10"]
        quality_line += (
            f"; {lead['mean']:+.3f} [{lead['low']:+.3f}, {lead['high']:+.3f}] over {best},"
            " the best baseline"
        )
    rows = [
        ("built", f"release {content['release_id']} of run {content['run_id']}"),
        ("from", sizes),
        ("quality", quality_line),
    ]
    if content["promoted"]:
        rows.append(("serves", "the release was promoted"))
        next_steps = (
            (f"recommend {content['example_user']}", "a list with its reasons, no server needed"),
            ("serve", "the API and its documentation on http://127.0.0.1:3000"),
            ("report", "drift, diversity, engagement and guardrails"),
            ("doctor", "what is installed, reachable and fresh"),
        )
        rows += [
            ("next" if number == 0 else "", f".venv/bin/shortlist {command:<14} {meaning}")
            for number, (command, meaning) in enumerate(next_steps)
        ]
    else:
        serving = content["serving"]
        before = f"{serving} goes on serving" if serving else "no release serves"
        rows.append(("serves", f"the release was not promoted, {before}; see the gates below"))
    for name, text in rows:
        console.print(Text.assemble((f"{name:<9}", "bold"), text))
    console.print()


def account(content: dict[str, Any]) -> None:
    """Print how many events of the run's batch were accepted, quarantined and so on.

    The parts add up to the number of events that were read.
    """
    parts = ("accepted", "quarantined", "duplicates", "excluded", "applied")
    listed = " + ".join(f"{content[part]:,} {part}" for part in parts)
    if content.get("held_back"):
        listed += f" + {content['held_back']:,} held back"
    line = f"{content['read']:,} events read = {listed}"
    if not content["read"] and content["unchanged"]:
        line = "no new events: the lake has all events of the data source"
    terminal().print(line)


def quality(content: dict[str, Any]) -> None:
    """Print one row per method: first the chain and the champion, then the others by nDCG.

    The chain is the new recommender; the champion is the release that serves now. Figures after ±
    are half the width of 95% bootstrap intervals. The last column is the paired difference, chain
    minus method, on the same requests.
    """
    metrics = content["metrics"]
    table = Table(
        title=f"{content['dataset']}: test window, {content['n_requests']:,} requests of"
        f" {content['n_users']:,} users, full catalogue",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("method", overflow="fold")
    for name in (*TABLE_METRICS, *SHOWN_METRICS):
        title = name.split("@")[0] + f"\n@{name.split('@')[1]}"
        table.add_column(title, justify="right", no_wrap=True)
    first = [name for name in METHOD_ORDER if name in metrics]
    table.add_column("chain's lead\nndcg@10", justify="right", no_wrap=True)
    rest = sorted(set(metrics) - set(first), key=lambda name: -metrics[name]["ndcg@10"]["mean"])
    for name in (*first, *rest):
        values = metrics[name]
        main, *others = TABLE_METRICS
        cells = [interval(values[main])]
        cells += [figure(values[metric]["mean"]) for metric in (*others, *SHOWN_METRICS)]
        ahead = content["chain_ahead"].get(name)
        cells.append("" if ahead is None else interval(ahead["ndcg@10"], sign="+"))
        table.add_row(name, *cells, style="bold" if name == "chain" else None)
    terminal().print(table)


def gates(content: dict[str, Any]) -> None:
    table = Table(title="Promotion gates", title_justify="left")
    for column in ("gate", "verdict", "figures"):
        table.add_column(column)
    for gate in content["gates"]:
        table.add_row(gate["name"], _verdict("pass" if gate["passed"] else "fail"), gate["reason"])
    terminal().print(table)


def guardrails(content: dict[str, Any]) -> None:
    table = Table(title=f"Guardrails: {content['verdict']}", title_justify="left")
    for column in ("guardrail", "verdict", "why"):
        table.add_column(column)
    for row in content["guardrails"]:
        table.add_row(row["name"], _verdict(row["verdict"]), row["reason"])
    terminal().print(table)


def slate(content: dict[str, Any]) -> None:
    if "title" in content:
        title = f"Like '{content['title']}'"
    elif "query" in content:
        title = f"Search '{content['query']}'"
        title += f" for user {content['user_id']}" if content["user_id"] else ""
        title += "" if content["items"] else ": nothing found"
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
    terminal().print(table)


def releases(content: dict[str, Any]) -> None:
    table = Table()
    for column in ("release", "serves", "pinned", "dataset", "nDCG@10", "size", "damaged"):
        table.add_column(column)
    for row in content["releases"]:
        quality = row["ndcg@10"]
        table.add_row(
            row["release_id"],
            "yes" if row["serving"] else "",
            "yes" if row["pinned"] else "",
            row["dataset"] or "",
            "" if quality is None else f"{quality:.4f}",
            size(row["bytes"]),
            row["damaged"] or "",
        )
    terminal().print(table)


def size(number: float) -> str:
    """Format a number of bytes, such as 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def checks(content: dict[str, Any]) -> None:
    table = Table()
    for column in ("what", "status", "found"):
        table.add_column(column)
    for row in content["checks"]:
        table.add_row(row["name"], _verdict(row["status"]), row["found"])
    terminal().print(table)


def figure(value: float) -> str:
    """Format a figure; an empty text if it has no value, such as diversity without categories."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def interval(values: dict[str, float], *, sign: str = "") -> str:
    """Format a mean with half the width of its interval; `sign` "+" shows the sign of the mean."""
    half = (values["high"] - values["low"]) / 2
    return f"{values['mean']:{sign}.3f} ±{half:.3f}"


def _verdict(name: str) -> str:
    colour = {"pass": "green", "ok": "green", "warn": "yellow", "fail": "red", "hold": "red"}
    return f"[{colour.get(name, 'white')}]{name}[/]"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def terminal() -> Console:
    """Return the console that results are printed to."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)
