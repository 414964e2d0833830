"""Shows parts of an evaluation beside the quality table: slices, value, heads, re-ranking."""

from typing import Any

from rich import box
from rich.table import Table

from cli import show
from cli.show_off_policy import off_policy
from cli.show_rerank import rerank_prices

CHAINS = ("chain", "without_refit")
HEAD_METRICS = ("auc", "gauc", "logloss", "ece", "rmse")


def evaluation(content: dict[str, Any]) -> None:
    """Print the result of `shortlist evaluate`."""
    show.quality(content)
    slices(content)
    value(content)
    if content["off_policy"]["explored"] or content["off_policy"].get("open"):
        off_policy(content["off_policy"])
    rerank_prices(content["rerank"])


def slices(content: dict[str, Any]) -> None:
    """Print the chain's figures for each slice of users and items, and the best other method."""
    table = Table(
        title="Slices of users and items",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("slice")
    names: list[str] = []
    for slice_name, methods in content["slices"].items():
        chain = methods["chain"]
        if not names:
            names = [name for name in chain if not name.startswith("precision")]
            for column in ("users", *names, "best other method"):
                table.add_column(column, justify="right")
        (main,) = (name for name in names if name.startswith("ndcg"))
        if not chain[main]["users"]:
            table.add_row(slice_name, "0")
            continue
        others = {
            name: figures[main]["mean"] for name, figures in methods.items() if name not in CHAINS
        }
        best = max(others, key=lambda name: others[name])
        cells = [show.interval(chain[name]) for name in names]
        last = f"{best} {others[best]:.3f}"
        table.add_row(slice_name, f"{chain[main]['users']:,}", *cells, last)
    show.terminal().print(table)


def value(content: dict[str, Any]) -> None:
    """Print what users did with the first 10 items of each method, if the run has `[value]`."""
    if "value" not in content:
        return
    weights = content["value"]["weights"]
    formula = " ".join(f"{weight:+g} {name}" for name, weight in weights.items())
    table = Table(title=f"Value of the first 10 items: {formula}", title_justify="left")
    table.add_column("method")
    for name in ("value", *weights, "chain's lead"):
        table.add_column(name, justify="right")
    metrics = content["metrics"]
    for name in sorted(metrics, key=lambda name: -metrics[name]["value@10"]["mean"]):
        of = metrics[name]
        cells = [show.figure(of[f"{key}@10"]["mean"]) for key in ("value", *weights)]
        ahead = content["chain_ahead"].get(name)
        table.add_row(
            name, *cells, "" if ahead is None else show.interval(ahead["value@10"], sign="+")
        )
    show.terminal().print(table)
    curve = content["value"]["curve"]
    if curve:
        first = content["value"]["outcome"]
        window = content["value"]["window"]
        table = Table(title=f"From {first} alone to the formula, {window}", title_justify="left")
        for name in ("share of the formula", f"{first}@10", "value@10"):
            table.add_column(name, justify="right")
        for point in curve:
            cells = (point["share"], point[f"{first}@10"], point["value@10"])
            table.add_row(*(f"{cell:g}" for cell in cells))
        show.terminal().print(table)
    if content["value"].get("heads"):
        show.terminal().print(_heads(content["value"]["heads"]))


def _heads(heads: dict[str, Any]) -> Table:
    """Return a table of the heads of the ranker `value`, on validation."""
    table = Table(title="Heads of the ranker value, validation", title_justify="left")
    table.add_column("outcome")
    for name in ("training events", *HEAD_METRICS):
        table.add_column(name, justify="right")
    for outcome, head in heads.items():
        figures = [head.get(name) for name in HEAD_METRICS]
        cells = ["" if figure is None else f"{figure:.4f}" for figure in figures]
        table.add_row(outcome, f"{head['training_events']:,}", *cells)
    return table
