"""Guesses how a column holds an item's categories."""

import re
from typing import Any

from shortlist import columns as c
from shortlist.datasets.config import ALL_KEYS, ItemFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.list_texts import (
    EQUALS,
    FLAGS,
    LITERALS,
    OBJECTS,
    STRUCTURED,
    WRAPPER,
)
from shortlist.datasets.files.lists import FLAGS as FLAG_TYPES
from shortlist.datasets.files.lists import NESTED, categories_sql, value_type
from shortlist.datasets.guess.sample import Guess, Sample
from shortlist.lake.engine import quoted

SEPARATORS = ("|", ";", ">", ",")
OBJECT_NAMES = ("name", "title", "label", "text", "value", "id")
KEY = re.compile(r"""[{,]\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([\w-]+))\s*[:=]""")
"""A key of an object, as Python, JSON or Java write it."""
NOTATION = r"^[\[{]|^\(\s*['\"]|[\]}]$|^['\"]|=>|^\w+\(['\"\[{]"
"""Regular expression of a name that is part of a list's notation instead."""
WANT = 'want names between separators, or a list like ["Drama", "War"]'


def guess_categories(sample: Sample, found: Guess) -> None:
    """Guess the notation of the categories, and add a note with the first names.

    If most cells can't be read, a question is added instead.
    """
    column = found.mapping.get(c.CATEGORIES)
    if column is None:
        return
    typed = value_type(sample.raw, column)
    if typed.id in NESTED:
        _guess_typed(sample, found, column, typed)
    elif _most(sample.values[column], STRUCTURED, LITERALS, r"\[", WRAPPER):
        _guess_texts(sample, found, column)
    else:
        _guess_separator(sample, found, column)


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


def _most(cells: list[str], *patterns: str) -> bool:
    """Return whether more than half of the cells that aren't empty match one of the patterns."""
    there = [cell.strip() for cell in cells if cell.strip()]
    return sum(_fits(cell, *patterns) for cell in there) > len(there) / 2


def _fits(cell: str, *patterns: str) -> bool:
    return any(re.match(pattern, cell) for pattern in patterns)


def _guess_typed(sample: Sample, found: Guess, column: str, typed: Any) -> None:
    depth = 0
    while typed.id in ("list", "array"):
        typed, depth = typed.children[0][1], depth + 1
    children = dict(typed.children) if typed.id in ("struct", "map") else {}
    if typed.id not in ("struct", "map") or (typed.id == "map" and children["value"].id in NESTED):
        _check(sample, found, column, "name", "")
        return
    if typed.id == "map" and children["value"].id in FLAG_TYPES:
        _check(sample, found, column, "name", " of the keys of maps")
        return
    if typed.id == "map":
        keys = _keys_of_maps(sample, column) if not depth else []
        texts = [key for key in keys if key in OBJECT_NAMES]
        flags = False
    else:
        keys = list(children)
        texts = [key for key in keys if children[key].id not in FLAG_TYPES]
        flags = not texts and not depth
    named = next((key for key in OBJECT_NAMES if key in keys), None)
    key = named or (ALL_KEYS if flags else next(iter(texts), None))
    _use_key(sample, found, column, key, keys)


def _keys_of_maps(sample: Sample, column: str) -> list[str]:
    keys = f"SELECT unnest(map_keys({sample.raw.expressions[column]})) AS k"
    rows = sample.ask(
        f"SELECT k::VARCHAR FROM ({keys} FROM {sample.raw.relation}) GROUP BY 1 ORDER BY count(*)"
        " DESC, 1 LIMIT 50"
    )
    return [key for (key,) in rows]


def _guess_texts(sample: Sample, found: Guess, column: str) -> None:
    cells = sample.values[column][:200]
    objects = [cell.strip() for cell in cells if _fits(cell.strip(), OBJECTS, EQUALS)]
    text = " ".join(objects)
    keys = ["".join(groups) for groups in KEY.findall(text)]
    if not keys:
        _check(sample, found, column, "name", "")
        return
    key = next((known for known in OBJECT_NAMES if known in keys), None)
    if key is None:
        maps = re.sub(r"([{,]\s*)([^{}=,'\":]+)=", r"\1'\2':", "\n".join(objects)).split("\n")
        are_flags = _most(maps, FLAGS)
        key = ALL_KEYS if are_flags else _key_of_texts(text, keys)
    _use_key(sample, found, column, key, keys)


def _use_key(sample: Sample, found: Guess, column: str, key: str | None, keys: list[str]) -> None:
    if key is None:
        found.questions.append(
            f"{sample.name}: objects in '{column}' have no names, only numbers under"
            f" {', '.join(list(dict.fromkeys(keys))[:10])}; want lists of names, or set"
            " category_key"
        )
        return
    if key == ALL_KEYS:
        _check(sample, found, column, key, " of the keys of maps", sure=False)
        return
    sure = key in OBJECT_NAMES
    _check(sample, found, column, key, f" of objects, by their '{key}'", sure=sure)


def _key_of_texts(text: str, keys: list[str]) -> str | None:
    """Return the first key whose values are not numbers."""
    for key in dict.fromkeys(keys):
        values = re.findall(
            rf"['\"]?(?<!\w){re.escape(key)}['\"]?\s*[:=]\s*['\"]?([^'\",}}\]]+)", text
        )
        if not all(re.fullmatch(r"\s*([-+\d.eE]+|None|null|nan)\s*", value) for value in values):
            return key
    return None


def _check(
    sample: Sample, found: Guess, column: str, key: str, of: str, *, sure: bool = True
) -> None:
    """Set `category_key`, and add a note with the first lists; a question if most are unreadable.

    Args:
        key: the `category_key` to use.
        of: words for the form of the lists.
        sure: False marks the note as a guess.
    """
    if key != "name":
        found.more["category_key"] = key
    table = ItemFile(path="-", columns={c.ITEM_ID: "-"}, category_key=key)
    try:
        lists, bad = categories_sql(sample.raw, column, table, sample.name)
    except DatasetError as error:
        found.questions.append(str(error))
        return
    ((first,),) = sample.ask(
        f"SELECT list(names) FROM (SELECT {lists} AS names FROM {sample.raw.relation} LIMIT 3)"
    )
    odd = f"len(list_filter(names, lambda y: regexp_matches(y, {quoted(NOTATION)}))) > 0"
    ((lost, cells),) = sample.ask(
        f"SELECT count(*) FILTER (bad OR {odd}), count(*) FROM (SELECT {lists} AS names,"
        f" {bad} AS bad, {sample.text(column)} AS cell FROM {sample.raw.relation})"
        " WHERE trim(cell) NOT IN ('', '[]', '{}', '()')"
    )
    if lost > cells / 2:
        found.questions.append(
            f"{sample.name}: {lost:,} of {cells:,} lists in '{column}' cannot be read, e.g."
            f" {sample.values[column][0][:60]!r}; {WANT}"
        )
        return
    shown = "; ".join(", ".join(categories) or "none" for categories in first)
    found.notes.append(f"{'' if sure else 'GUESS: '}'{column}' is read as lists{of}: {shown}")
