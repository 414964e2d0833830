"""Finds cells of a log that hold a list of events or items."""

import re

from shortlist import columns as c
from shortlist.datasets.config import OPEN
from shortlist.datasets.guess.sample import Guess, Sample

IDS = re.compile(r"[^\s,;|]*\d[^\s,;|]*([\s,;|]+[^\s,;|]*\d[^\s,;|]*)+")
"""Regular expression of a text with several ids; each has a digit."""


def ask_for_lists(sample: Sample, found: Guess) -> None:
    """Add questions about mapped columns that hold several events or items in a cell."""
    _ask_for_objects(sample, found)
    _ask_for_ids(sample, found)


def _ask_for_objects(sample: Sample, found: Guess) -> None:
    """Add a question for each mapped column that reads only the first object of longer lists."""
    for key, column in found.mapping.items():
        rows = sample.lists_with_more(column) if "[0]" in column else 0
        if rows:
            each = column.replace("[0]", "[]")
            found.questions.append(
                f"{sample.name}: '{column}' ({key}) reads only the first object of each list, and"
                f" {rows:,} lists have more. If each object is an event, write {each} for {key} in"
                " `columns`, and the same for the other columns of that list"
            )


def _ask_for_ids(sample: Sample, found: Guess) -> None:
    """Add a question if most cells of the item column are lists of ids, such as a basket."""
    column = found.mapping[c.ITEM_ID]
    cells = [] if column == OPEN else sample.values[column]
    lists = [cell for cell in cells if IDS.fullmatch(cell.strip())]
    sizes = {len(re.findall(r"[\s,;|]+", cell.strip())) for cell in lists}
    if len(lists) > len(cells) / 2 and len(sizes) > 1:
        found.questions.append(
            f"{sample.name}: cells of '{column}' look like lists of ids, e.g. {lists[0][:60]!r},"
            " and each would be read as one item; write a file with a row for each id first, or set"
            " --column item_id=NAME"
        )
