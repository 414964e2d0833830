"""Guesses the columns of a log of events, for `shortlist init`."""

import re

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.config import OPEN
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.readers import SEPARATORS
from shortlist.datasets.guess.names import NAMES, NO_ID, RATING, WORDS, plain
from shortlist.datasets.guess.nested import ask_for_lists
from shortlist.datasets.guess.returns import guess_returns
from shortlist.datasets.guess.sample import Guess, Sample
from shortlist.datasets.guess.times import guess_time
from shortlist.lake.engine import quoted

MUCH = 0.05
"""Share of all rows. If a user or item has more rows than each of MUCH, FAIR and FEW allows, the
value may stand for an unknown user or item and is reported.
"""
FAIR = 4
"""Multiple of the average number of rows per other user or item. See MUCH."""
MANY_COLUMNS = 40
"""If a table has more columns, messages list only so many."""
BINARY = re.compile(
    r"lik|recommend|thumb|vote|click|label|purchas|buy|bought|order|skip|watch|cart"
)
"""Regular expression of names of columns that may say yes or no about an event."""
YES_OR_NO = ({"0", "1"}, {"-1", "1"}, {"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
BEYOND = (99, 999, 9_999, -99, -999)
"""Numbers that stand for a missing rating in some data sets."""
FEW = 20
"""Number of rows. See MUCH."""


def guess_events(
    sample: Sample,
    chosen: dict[str, str],
    *,
    event_type: str | None,
    time_unit: str | None,
) -> Guess:
    """Guess the columns of the log.

    A required column that can't be guessed is marked OPEN in the mapping, with a question.

    Args:
        chosen: {name in the contract: column}, given by the user.
        event_type: type of all events, given by the user; None: guess it.
        time_unit: unit of times, given by the user; None: guess it.

    Raises:
        DatasetError: a chosen column doesn't exist, or `event_type` is unknown.
    """
    if event_type is not None and event_type not in EVENT_TYPES:
        raise DatasetError(f"--event-type {event_type}: want one of {', '.join(EVENT_TYPES)}")
    found = sample.guess(NAMES, chosen)
    if found.questions:  # no header
        found.mapping = dict.fromkeys((c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP), OPEN)
        found.more |= {"timestamp_unit": OPEN, "event_type": event_type or OPEN}
        return found
    if c.USER_ID not in found.mapping and c.SESSION_ID in found.mapping:
        column = found.mapping.pop(c.SESSION_ID)
        found.mapping[c.USER_ID] = column
        found.notes.append(f"GUESS: no column of users: each '{column}' is treated as a user")
    if c.ITEM_ID not in chosen and _numbers_rows(sample, found.mapping.get(c.ITEM_ID)):
        del found.mapping[c.ITEM_ID]
    one_column = sample.file.format == "csv" and len(sample.columns) == 1
    if one_column:
        found.questions.append(
            f"{sample.file.name}: has one column, '{sample.columns[0][:60]}'; want fields separated"
            f" by {', '.join(SEPARATORS[:2])}, tab, {' or '.join(SEPARATORS[3:])}, or set"
            " `separator` and `columns`"
        )
    for key in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP):
        if key not in found.mapping and one_column:
            found.mapping[key] = OPEN
        if key not in found.mapping:
            found.questions.append(
                f"{sample.file.name}: which column is {key}? There are"
                f" {_listed(sample.columns)}; say --column {key}=NAME{_nested(sample)}"
            )
            found.mapping[key] = OPEN
    ask_for_lists(sample, found)
    sample.guess_decimal(found, (c.VALUE, c.POSITION, c.EVENT_TIMESTAMP))
    if found.mapping[c.EVENT_TIMESTAMP] != OPEN:
        try:
            times = guess_time(sample, found.mapping[c.EVENT_TIMESTAMP], time_unit)
            found.more["timestamp_unit"] = times.unit
            found.notes += times.notes
            found.newest = times.newest
        except DatasetError as error:
            found.questions.append(str(error))
            found.more["timestamp_unit"] = OPEN
    _guess_types(sample, found, event_type)
    if "purchase" in (found.more.get("event_type"), *_types(found)):
        guess_returns(sample, found)
    _guess_nobody(sample, found)
    return found


def _types(found: Guess) -> set[str]:
    """Return the event types of a log with a column for them."""
    return {found.more["event_types"].get(word, word) for word in found.words}


def _listed(columns: list[str]) -> str:
    """Return the names of columns for a message; of many, the first ones and their number."""
    shown = ", ".join(columns[:MANY_COLUMNS])
    more = len(columns) - MANY_COLUMNS
    return shown if more <= 0 else f"{shown} and {more:,} more"


def _numbers_rows(sample: Sample, column: str | None) -> bool:
    """Return whether a column named `id` numbers the rows: each row has another value."""
    if column is None or plain(column) != "id":
        return False
    return sample.total > 1 and max(sample.counts(column).values(), default=0) == 1


def _nested(sample: Sample) -> str:
    """Return advice if a Parquet column is a list of structs, which may be events; otherwise ""."""
    lists = [
        column
        for column, column_type in sample.raw.types.items()
        if re.match(r"STRUCT.*\[\]$", column_type)
    ]
    if not lists:
        return ""
    return (
        f". '{lists[0]}' is a list of structs: if those are the events, write a file with a row for"
        f" each first (SELECT ..., unnest({lists[0]}, recursive := true))"
    )


def _guess_types(sample: Sample, found: Guess, event_type: str | None) -> None:
    """Guess the event types from the words of their column; without a column, one type for all."""
    if event_type is not None or c.EVENT_TYPE not in found.mapping:
        _one_type(sample, found, event_type)
        return
    words = sample.counts(found.mapping[c.EVENT_TYPE])
    spoken = {word: plain(word) for word in words}
    mapped = {word: WORDS[text] for word, text in spoken.items() if text in WORDS}
    mapped |= {
        word: spelled
        for word in words
        if (spelled := re.sub("[- ]", "_", word.lower())) in EVENT_TYPES and spelled != word
    }
    unknown = [word for word in words if word not in EVENT_TYPES and word not in mapped]
    column = found.mapping[c.EVENT_TYPE]
    if len(unknown) == len(words):
        found.questions.append(
            f"{sample.file.name}: column '{column}' has"
            f" {', '.join(unknown[:5])}, none of which is an event type; say --event-type for"
            f' all, or map them by hand: event_types = {{ "{unknown[0] if unknown else "word"}" ='
            ' "view" }'
        )
    elif unknown:
        found.notes.append(
            f"'{column}' has words that are no event type: {', '.join(unknown[:5])}; event_types"
            " may map them"
        )
    found.more["event_types"] = mapped
    found.words = words


def _one_type(sample: Sample, found: Guess, event_type: str | None) -> None:
    found.mapping.pop(c.EVENT_TYPE, None)
    value = plain(found.mapping.get(c.VALUE, ""))
    by_value = "rating" if RATING.search(value) else "view"
    by_value = "purchase" if re.search("price|amount|quantity|qty", value) else by_value
    found.more["event_type"] = event_type or by_value
    if event_type is None:
        found.notes.append(f"GUESS: every event is a {by_value}; --event-type if it is another")
    if c.VALUE not in found.mapping:
        _ask_for_ratings(sample, found)
    elif found.more["event_type"] == "rating":
        _guess_unrated(sample, found)


def _ask_for_ratings(sample: Sample, found: Guess) -> None:
    """Add a note for each unmapped column with few distinct small numbers, which may be ratings."""
    for column in sample.columns:
        values = set(sample.values[column])
        if column in found.mapping.values():
            continue
        plainly = {value.strip().lower().removesuffix(".0") for value in values}
        if plainly in YES_OR_NO and BINARY.search(plain(column)):
            high, low = (max(plainly), min(plainly))
            found.notes.append(
                f"'{column}' has only {low} and {high}, and is not read: if it says what happened,"
                f' map it by hand: event_type = "{column}" in columns, and event_types = {{'
                f' "{_spelled(high, values)}" = "like", "{_spelled(low, values)}" = "dislike" }}'
            )
        if not 3 <= len(values) <= 21:
            continue
        if all(re.fullmatch(r"\d{1,2}([.,]\d+)?", value) for value in values):
            found.notes.append(
                f"'{column}' has few small numbers ({', '.join(sorted(values)[:5])}): if those are"
                f" ratings, say --column value={column} --event-type rating"
            )


def _spelled(word: str, values: set[str]) -> str:
    """Return the spelling in the file of a word in lower case without `.0`."""
    return next(value for value in values if value.strip().lower().removesuffix(".0") == word)


def _guess_unrated(sample: Sample, found: Guess) -> None:
    """Set `unrated` if the ratings have a value that means "not rated".

    It is -1 as the lowest value, a 0 that is more frequent than any other rating, or a value of
    BEYOND that is far from all other ratings and not rare: a single one is an error of the log. If
    all ratings are from -1 to 1, -1 is a thumb down.
    """
    column = found.mapping[c.VALUE]
    counts = sample.numbers(column)
    rest = [rating for rating in counts if rating > 0]
    if not rest:
        return
    if min(counts) == -1 and max(counts) == 1:
        found.notes.append(
            f"GUESS: 1 in '{column}' is a thumb up, -1 ({counts[-1.0]:,} rows) a thumb down. If -1"
            " means not rated, set `unrated = -1`"
        )
        return
    often = counts.get(0.0, 0) > max(counts[rating] for rating in rest) and min(rest) >= 1
    mark = -1 if -1.0 in counts and min(counts) == -1 else 0 if often else None
    for far in BEYOND:
        others = [rating for rating in counts if rating != far]
        if not others or 100 * counts.get(far, 0) < sum(counts.values()):
            continue
        distance = min(abs(far - rating) for rating in others)
        if distance > 2 * (max(others) - min(others) + 1):
            mark = far
    if mark is not None:
        found.more["unrated"] = mark
        found.notes.append(
            f"GUESS: {mark} in '{column}' ({counts[mark]:,} rows) means not rated; such events"
            f" become views. If it is the worst rating, take out `unrated` and set `rating_range` ="
            f" [{mark}, {max(rest, key=lambda rating: (rating not in BEYOND, rating)):g}]"
        )


def _guess_nobody(sample: Sample, found: Guess) -> None:
    """Find values of the user column that mean an unknown user.

    Also add a note for each user or item with an implausibly large share of the rows (see MUCH).
    """
    session = found.mapping.get(c.SESSION_ID)
    alone = f"each '{session}' of such rows is then treated as a user"
    for key in (c.USER_ID, c.ITEM_ID):
        column = found.mapping[key]
        if column == OPEN:
            continue
        counts = sample.counts(column)
        nobody = sample.counts(column, words=NO_ID)
        distinct = sample.distinct(column)
        giants = (
            {
                word: rows
                for word, rows in counts.items()
                if rows
                > max(MUCH * sample.total, FAIR * (sample.total - rows) / (distinct - 1), FEW)
                and word not in nobody
            }
            if distinct > 1
            else {}
        )
        for word, rows in (nobody | giants).items():
            said = f"{rows:,} of {sample.total:,} rows have {key} '{word}'"
            if key == c.ITEM_ID or word in giants:
                hint = f'exclude = ["item_id = {quoted(word)}"]'
                if key == c.USER_ID:
                    hint = f'no_user = ["{word}"]'
                what = "user" if key == c.USER_ID else "item"
                found.notes.append(f"{said}: is that right? If that is no {what}, set {hint}")
                continue
            found.more.setdefault("no_user", []).append(word)
            then = alone if session else "without a column of sessions such rows have no user"
            found.notes.append(f"GUESS: {said}: no user; {then}. Take out `no_user` if it is one")
    column = found.mapping[c.USER_ID]
    empty = 0 if column == OPEN else sample.empty(column)
    if empty and session:
        found.more.setdefault("no_user", []).append("")
        found.notes.append(
            f"GUESS: {empty:,} of {sample.total:,} rows have no user: {alone} (`no_user`)"
        )
