"""Guesses the columns of a catalogue and of a table of users."""

import re
from typing import Any

from shortlist import columns as c
from shortlist.datasets.config import ItemFile
from shortlist.datasets.guess.names import ITEM_NAMES, USER_NAMES
from shortlist.datasets.guess.sample import OPEN, Guess, Sample
from shortlist.datasets.lists import categories_sql

SEPARATORS = ("|", ";", ">", ",")
OBJECT_NAMES = ("name", "title", "label", "text", "value", "id")


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
    if key not in found.mapping:
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
    categories = found.mapping.get(c.CATEGORIES)
    if categories is not None and _are_lists(sample, categories):
        _guess_lists(sample, found, categories)
    elif categories is not None:
        _guess_separator(sample, found, categories)
    return found


def _guess_separator(sample: Sample, found: Guess, column: str) -> None:
    """Guess the separator of category names, and add a note with the first names."""
    cells = sample.values[column]
    text = re.sub(r"&#?\w+;", "&", "".join(cells))  # &amp; has no separator
    counts = {mark: text.count(mark) for mark in SEPARATORS}
    best = max(counts, key=lambda mark: counts[mark])
    found.more["category_separator"] = best if counts[best] else "|"
    if counts[best]:
        first = next(cell for cell in cells if best in cell)
        names = ", ".join(repr(cell.strip()) for cell in first.split(best) if cell.strip())
        sure = best in "|>" and not any(rows for mark, rows in counts.items() if mark != best)
        found.notes.append(
            f"{'' if sure else 'GUESS: '}names in '{column}' are separated by '{best}': {names}"
        )


def _are_lists(sample: Sample, column: str) -> bool:
    values = sample.values[column]
    return sample.raw.types[column].endswith("[]") or (
        sum(bool(re.match(r"\s*([\[{]|\(\s*['\")])", value)) for value in values) > len(values) / 2
    )


def _guess_lists(sample: Sample, found: Guess, column: str) -> None:
    """Guess how category lists are read, and add a note with the first ones.

    If most lists can't be read, a question is added instead.
    """
    text = " ".join(sample.values[column][:50])
    keys = re.findall(r"[{,]\s*['\"]?(\w+)['\"]?\s*:", text)
    key = next(
        (categories for categories in OBJECT_NAMES if categories in keys), None
    ) or _key_of_texts(text, keys)
    if key is None:
        found.questions.append(
            f"{sample.name}: objects in '{column}' have no names, only numbers under"
            f" {', '.join(dict.fromkeys(keys))}; want lists of names, or set category_key"
        )
        return
    if key != "name":
        found.more["category_key"] = key
    table = ItemFile(path="-", columns={c.ITEM_ID: "-"}, category_key=key)
    lists, unreadable = categories_sql(sample.raw, column, table, sample.name)
    ((first,),) = sample.ask(
        f"SELECT list(x) FROM (SELECT {lists} AS x FROM {sample.raw.relation} LIMIT 3)"
    )
    ((lost, cells),) = sample.ask(
        "SELECT count(*) FILTER (bad), count(*) FROM (SELECT"
        f" {unreadable} AS bad, {sample.text(column)} AS t FROM {sample.raw.relation})"
        " WHERE trim(t) NOT IN ('', '[]', '{}', '()')"
    )
    if lost > cells / 2:
        found.questions.append(
            f"{sample.name}: {lost:,} of {cells:,} lists in '{column}' cannot be read, e.g."
            f" {sample.values[column][0][:60]!r}; want names between separators, or a list like"
            ' ["Drama", "War"]'
        )
        return
    shown = "; ".join(", ".join(categories) or "none" for categories in first)
    of = f" of objects, by their '{key}'" if keys else ""
    guess = "GUESS: " if keys and key not in OBJECT_NAMES else ""
    found.notes.append(f"{guess}'{column}' is read as lists{of}: {shown}")


def _key_of_texts(text: str, keys: list[str]) -> str | None:
    """Return the first key whose values are not numbers; "name" if there are no keys."""
    for key in dict.fromkeys(keys):
        values = re.findall(rf"['\"]?\b{re.escape(key)}['\"]?\s*:\s*['\"]?([^'\",}}\]]+)", text)
        if not all(re.fullmatch(r"\s*[-+\d.eE]+\s*", value) for value in values):
            return key
    return None if keys else "name"


def guess_users(sample: Sample, chosen: dict[str, str], user_column: str) -> Guess:
    """Guess the columns of a table of users; columns with few distinct values become attributes."""
    found = _guess_beside_log(sample, chosen, USER_NAMES, c.USER_ID, in_log=user_column)
    used = set(found.mapping.values())
    few = [
        column for column in sample.columns if column not in used and _few(sample.values[column])
    ]
    found.more["attributes"] = few
    return found


def _few(values: list[str]) -> bool:
    return 1 < len(set(values)) <= max(20, len(values) // 20)
