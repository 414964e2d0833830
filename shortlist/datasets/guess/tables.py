"""Guesses the columns of a catalogue and of a table of users."""

import re
from typing import Any

from shortlist import columns as c
from shortlist.datasets.config import OPEN
from shortlist.datasets.files.lists import NESTED, value_type
from shortlist.datasets.guess.categories import guess_categories
from shortlist.datasets.guess.names import ITEM_NAMES, USER_NAMES
from shortlist.datasets.guess.sample import Guess, Sample


def _guess_beside_log(
    sample: Sample, chosen: dict[str, str], names: Any, key: str, *, in_log: str
) -> Guess:
    """Guess the columns of a table of items or users.

    If the table has a column with the same name as the log's id column, that column is its id.

    Args:
        names: {name in the contract: known column names}.
        key: name of the id in the contract.
        in_log: name of the id's column in the log.
    """
    if in_log in sample.columns:
        chosen = {key: in_log} | chosen
    found = sample.guess(names, chosen)
    if found.questions:  # no header
        found.mapping[key] = OPEN
    elif key not in found.mapping:
        found.mapping[key] = OPEN
        found.questions.append(
            f"{sample.file.name}: which column is the {key.removesuffix('_id')}'s id? There are"
            f" {', '.join(sample.columns)}; say --column {key.removesuffix('_id')}s.{key}=NAME"
        )
    return found


def guess_items(sample: Sample, chosen: dict[str, str], item_column: str) -> Guess:
    """Guess the columns of a catalogue, including how categories are written."""
    found = _guess_beside_log(sample, chosen, ITEM_NAMES, c.ITEM_ID, in_log=item_column)
    title = found.mapping.get(c.TITLE)
    if c.PUBLISHED_AT not in found.mapping and title is not None:
        years = [bool(re.search(r"\(\d{4}\)\s*$", text)) for text in sample.values[title]]
        if years and sum(years) / len(years) > 0.5:
            found.mapping[c.PUBLISHED_AT] = title
    sample.guess_decimal(found, (c.PRICE,))
    guess_categories(sample, found)
    return found


def guess_users(sample: Sample, chosen: dict[str, str], user_column: str) -> Guess:
    """Guess the columns of a table of users; columns with few distinct values become attributes."""
    found = _guess_beside_log(sample, chosen, USER_NAMES, c.USER_ID, in_log=user_column)
    if found.questions:
        return found
    used = set(found.mapping.values())
    few = [
        column
        for column in sample.columns
        if column not in used
        and value_type(sample.raw, column).id not in (*NESTED, "blob")
        and _few(sample.values[column])
    ]
    found.more["attributes"] = few
    return found


def _few(values: list[str]) -> bool:
    return 1 < len(set(values)) <= max(20, len(values) // 20)
