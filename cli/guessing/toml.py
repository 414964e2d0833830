"""Formats the run's TOML file that `shortlist init` writes."""

import json
from pathlib import Path
from typing import Any

from shortlist.behaviour.repeats import EXCLUDE
from shortlist.datasets.guess.sample import Guess


def _from_anywhere(path: str) -> str:
    """Return an absolute path, so that the TOML file can be moved; a URI is returned unchanged."""
    return path if "://" in path else str(Path(path).absolute())


def run_toml(name: str, tables: list[tuple[str, Guess]], run: dict[str, Any]) -> str:
    """Return the text of a run's TOML file, with comments.

    Args:
        name: name of the data set.
        tables: (interactions | items | users, its guessed columns and options).
        run: the other settings, as `cli.guessing.guess` collects them.
    """
    lines = [
        "# Written by `shortlist init`. Every key is explained in docs/data.md.",
        f"name = {json.dumps(name)}",
        "",
        "[data]",
        'source = "files"',
        "# what recommendations are learned from",
        f"target_events = {json.dumps(run['target_events'])}",
    ]
    if run["wording"]:
        lines.append(f"wording = {_value(run['wording'])} # verbs in the reasons of lists")
    if run["like_threshold"] is not None:
        lines.append(
            f"like_threshold = {run['like_threshold']} # a rating this high is also a `like`"
        )
    if run["low_rating"] is not None:
        lines.append(
            f"low_rating = {run['low_rating']:g} # a rating up to this value is negative feedback:"
            " the item isn't shown to that user again"
        )
    if run["repeats"] != EXCLUDE:
        lines.append(
            f'repeats = "{run["repeats"]}" # consumed items may be recommended again; or'
            ' "after 7 days", or "exclude"'
        )
    lines.append(
        f"clock = \"{run['clock']}\" # replay: 'now' is the end of the data; wall: the current time"
    )
    if run["clock"] == "replay" and run["can_hold_back"]:
        lines.append(
            "hold_back = 0.05 # share of target events, the newest; `shortlist replay` sends them"
        )
    for key, table in tables:
        lines += ["", f"[data.files.{key}]", f"path = {json.dumps(_from_anywhere(table.path))}"]
        lines += [f"# OPEN: {question}" for question in table.questions]
        lines += [
            f"{option} = {_value(value)}"
            for option, value in table.more.items()
            if value or value == 0
        ]
        lines.append(f"columns = {_value(table.mapping)}")
    lines += _validation(run)
    again = ["personal"] if run["repeats"] != EXCLUDE else []
    sources = [*again, "two_tower", "ials", "item_knn", "ease", "popularity", "recent_popularity"]
    lines += ["", "[train]", "sources = ["]
    for source in sources:
        epochs = ", optimiser = { learning_rate = 3e-3, num_epochs = 6 }"
        lines.append(f'    {{ kind = "{source}"{epochs if source == "two_tower" else ""} }},')
    lines += ["]", 'rankers = [{ kind = "lambdamart" }]', ""]
    return "\n".join(lines)


def _validation(run: dict[str, Any]) -> list[str]:
    lines = []
    if run["rating_range"]:
        low, high = run["rating_range"]
        lines.append(f"rating_range = [{low:g}, {high:g}]")
    if run["earliest"]:
        lines.append(f"earliest = {run['earliest']:04d}-01-01T00:00:00Z # older events are refused")
    budgets = run["budgets"]
    if "interactions" in budgets:
        lines.append(
            f"failure_budget = {budgets['interactions']:g} # share of bad rows, which go to"
            " quarantine, before a batch is refused"
        )
    lines += [
        f'rules."{table}.bad_share" = {{ max = {budgets[table]:g} }}'
        for table in ("items", "users")
        if table in budgets
    ]
    return ["", "[validation]", *lines] if lines else []


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {json.dumps(text)}" for key, text in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)
