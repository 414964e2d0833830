"""Guesses the columns and settings of a user's files and writes them as a run's TOML file."""

import time
from pathlib import Path
from typing import Any

from cli.guessing.habits import (
    MANY_REPEATS,
    liked_from,
    low_rating,
    rating_scale,
    rows_of_type,
    share_of_repeats,
)
from cli.guessing.refused import avoid_refusals
from cli.guessing.toml import run_toml
from shortlist import columns as c
from shortlist.behaviour.repeats import ALLOW, EXCLUDE
from shortlist.config import Settings
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.cells import MISSING_WORDS
from shortlist.datasets.guess.events import guess_events
from shortlist.datasets.guess.names import SAID, plain
from shortlist.datasets.guess.sample import Guess, Sample, chosen_by_table
from shortlist.datasets.guess.tables import guess_items, guess_users

OLD = 30 * 86_400
"""If the newest event is older than this, in seconds, `clock` is "replay": 'now' is then the end of
the data.
"""
PREFERRED = ("purchase", "rating", "click", "watch", "like", "review", "view")
"""Event types that become the target event, in order of preference."""
ENOUGH = 1_000
"""Minimum number of events of a preferred type."""


class OpenQuestion(DatasetError):
    """A required column or its format cannot be guessed; the message says what to specify."""

    def __init__(self, message: str, toml: str):
        super().__init__(message)
        self.toml = toml
        """The run's TOML. A column that is not known has the value `?`, and a comment
        `# OPEN: ...` asks for it."""


def guess(
    interactions: str,
    *,
    items: str | None,
    users: str | None,
    columns: dict[str, str],
    event_type: str | None,
    name: str | None,
    time_unit: str | None = None,
    headers: dict[str, tuple[str, ...]] | None = None,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Guess columns and settings from samples of the files.

    Args:
        interactions, items, users: path, glob or URI of each table; None if there is none.
        columns: {standard column name: column in the file}, corrections of the guess. A name like
            `item_id` applies to every table that has it; `items.item_id` to the items alone.
        event_type: type of all events, if no column has their types.
        name: name of the data set; None: guess it from the path.
        time_unit: unit or pattern of the times; None: guess it.
        headers: {table: column names}, for files without a header.
        encoding: encoding of text files; None: guess it.

    Returns:
        {"toml": text of the TOML file, "said": one line about the guess, "notes": remarks, one
        line each, "summary": the result for `--json`, "tables": the guessed columns with examples}.

    Raises:
        OpenQuestion: a required column cannot be guessed; `toml` marks the question.
        DatasetError: a file cannot be read, or `columns` has a name that no table has.
    """
    cache = Settings().cache
    headers = headers or {}
    sample = Sample(
        interactions, cache, headers.get("interactions", ()), encoding=encoding, explode=True
    )
    given = [name for name, path in (("items", items), ("users", users)) if path is not None]
    chosen = chosen_by_table(columns, ["interactions", *given])
    events = guess_events(
        sample, chosen["interactions"], event_type=event_type, time_unit=time_unit
    )
    tables, samples = [("interactions", events)], {"interactions": sample}
    if items is not None:
        samples["items"] = Sample(items, cache, headers.get("items", ()), encoding=encoding)
        by_item = guess_items(samples["items"], chosen["items"], events.mapping[c.ITEM_ID])
        tables.append(("items", by_item))
    if users is not None:
        samples["users"] = Sample(users, cache, headers.get("users", ()), encoding=encoding)
        by_user = guess_users(samples["users"], chosen["users"], events.mapping[c.USER_ID])
        tables.append(("users", by_user))
    run = _run(sample, events)
    title = name or _plain_name(interactions)
    if not any(table.questions for _, table in tables):
        trusted = time_unit is not None
        avoid_refusals(
            samples, dict(tables), run, lambda: run_toml(title, tables, run), trust_times=trusted
        )
    toml = run_toml(title, tables, run)
    said = f"target: {', '.join(run['target_events'])}; clock: {run['clock']}"
    if run["rating_range"]:
        low, high = run["rating_range"]
        said += f"; ratings from {low:g} to {high:g}"
    if run["like_threshold"] is not None:
        said += f", liked from {run['like_threshold']:g}"
    if run["repeats"] == ALLOW:
        share, target = run["share_of_repeats"], run["target_events"][0]
        said += (
            f"; repeats allowed (GUESS: in {share:.0%} of the {target} events, the user had the"
            ' item before; if repeats are not wanted, set repeats = "exclude")'
        )
    questions = [question for _, table in tables for question in table.questions]
    if questions:
        raise OpenQuestion("; ".join(questions), toml)
    notes = [note for _, table in tables for note in table.notes]
    return {
        "toml": toml,
        "said": said,
        "notes": notes,
        "summary": {
            "name": title,
            "columns": {key: table.mapping for key, table in tables},
            "notes": notes,
        }
        | {key: run[key] for key in ("target_events", "clock", "like_threshold", "repeats")},
        "tables": [_shown(key, table) for key, table in tables],
    }


def write_toml(toml: str, out: Path, *, checked: bool = True) -> None:
    """Write the TOML to `out`.

    Args:
        checked: whether to check it first by parsing it as `shortlist run` does; False for a TOML
            with open questions.

    Raises:
        DatasetError: the file exists already, or its folder doesn't.
    """
    from flows.runtime.configuration import load_run_config

    if out.exists():
        raise DatasetError(f"{out}: is there already; choose another --out, or remove it first")
    if not out.parent.is_dir():
        raise DatasetError(
            f"{out}: there is no folder {out.parent}; choose an --out in an existing folder"
        )
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(toml, encoding="utf-8")
    try:
        if checked:
            load_run_config(partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _shown(name: str, guessed: Guess) -> dict[str, Any]:
    rows = [
        (
            column,
            ", ".join(k for k, mapped in guessed.mapping.items() if mapped == column),
            examples,
        )
        for column, examples in guessed.examples.items()
    ]
    return {"name": name, "path": guessed.path, "columns": rows}


def _run(sample: Sample, events: Guess) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    for word, count in events.words.items():
        event_type = events.more["event_types"].get(word, word)
        if event_type in EVENT_TYPES:
            kinds[event_type] = kinds.get(event_type, 0) + count
    if not events.words:
        kinds = {events.more["event_type"]: ENOUGH}
    target = next(
        (event_type for event_type in PREFERRED if kinds.get(event_type, 0) >= ENOUGH), None
    )
    target = target or max(kinds, key=lambda event_type: kinds[event_type], default="view")
    rating = liked = low = None
    if "rating" in kinds and c.VALUE in events.mapping:
        unrated = events.more.get("unrated")
        column, rated = events.mapping[c.VALUE], rows_of_type(sample, events, "rating")
        numbers = sample.numbers(column, without=unrated, where=rated)
        scale, beyond = rating_scale(numbers)
        if not events.words:
            _say_unrated(sample, events, column)
        rating = (min(scale), max(scale)) if scale else None
        if beyond:
            events.notes.append(
                f"GUESS: {beyond:,} ratings in '{column}' are beyond the scale of"
                f" {min(scale):g} to {max(scale):g}: all ratings are from {min(numbers):g} to"
                f" {max(numbers):g}; set `rating_range` if these ratings are right"
            )
        if rating is not None and rating[0] == rating[1]:
            events.notes.append(
                f"GUESS: every rating is {rating[0]:g}: none counts as a like, and the range of"
                " ratings is unknown"
            )
            rating = None if 1 <= rating[0] <= 5 else (min(1, rating[0]), max(5, rating[1]))
        elif rating is not None:
            liked, low = liked_from(scale), low_rating(scale)
    repeats = 0.0 if events.questions else share_of_repeats(sample, events, target=target)
    again = repeats >= MANY_REPEATS
    is_old = events.newest is None or events.newest < (time.time() - OLD) * 1e6
    return {
        "target_events": [target],
        "rating_range": rating,
        "like_threshold": liked,
        "low_rating": low if again or target != "rating" else None,
        "repeats": ALLOW if again else EXCLUDE,
        "share_of_repeats": round(repeats, 2),
        "clock": "replay" if is_old else "wall",
        "wording": _wording(events),
        "budgets": {},
        "earliest": None,
        "can_hold_back": True,
    }


def _say_unrated(sample: Sample, events: Guess, column: str) -> None:
    """Add a note about ratings whose value is missing."""
    missing = sample.empty(column) + sum(sample.counts(column, words=MISSING_WORDS).values())
    if missing:
        events.notes.append(
            f"{missing:,} of {sample.total:,} ratings have no value in '{column}': they count as"
            " events without a rating"
        )


def _wording(events: Guess) -> dict[str, str]:
    """Return {event type: verb in the reasons of recommendations}.

    Only for event types that the log names by a single word with a known verb.
    """
    words: dict[str, set[str]] = {}
    for word in events.words:
        words.setdefault(events.more["event_types"].get(word, word), set()).add(plain(word))
    return {
        event_type: SAID[word]
        for event_type, forms in words.items()
        if len(forms) == 1 and (word := min(forms)) in SAID
    }


def _plain_name(path: str) -> str:
    stem = Path(path.rstrip("/*")).name.split(".")[0]
    folder = Path(path).parent.name
    plain = "".join(ch if ch.isalnum() else "-" for ch in (folder or stem).lower()).strip("-")
    return plain or "my-data"
