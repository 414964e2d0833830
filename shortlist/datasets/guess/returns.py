"""Guesses which rows of a log of purchases are returns or cancellations."""

import re

from shortlist import columns as c
from shortlist.datasets.guess.names import plain
from shortlist.datasets.guess.sample import Guess, Sample

QUANTITY = re.compile(r"quantit|qty|units|pieces|menge|anzahl|cantidad|quantite")
AMOUNT = re.compile(
    r"amount|price|total|revenue|sales|turnover|betrag|summe|umsatz|importe|montant"
)
INVOICE = re.compile(r"invoice|receipt|order|transaction|bill")


def guess_returns(sample: Sample, found: Guess) -> None:
    """Set `return_if_negative` if a quantity or an amount is negative in some rows, and say so.

    If it is negative in most rows, or a column has event types, only a note is added.
    """
    typed = c.EVENT_TYPE in found.mapping
    for column in _candidates(sample, found):
        numbers = sample.numbers(column)
        negative = sum(rows for number, rows in numbers.items() if number < 0)
        if not negative:
            continue
        said = f"'{column}' is negative in {negative:,} of {sample.total:,} rows"
        if typed or 2 * negative > sum(numbers.values()):
            found.notes.append(
                f"GUESS: {said}: they count like other rows. If they are returns, set"
                f' return_if_negative = "{column}"'
            )
            return
        found.more["return_if_negative"] = column
        found.notes.append(
            f"GUESS: {said}: they are events of type `return`, not purchases. Take out"
            " `return_if_negative` if that is wrong"
        )
        return
    if not typed:
        _say_cancelled_invoices(sample, found)


def _candidates(sample: Sample, found: Guess) -> list[str]:
    """Return the columns that may be quantities or amounts, the likeliest first."""
    names = {column: plain(column.rpartition(".")[2]) for column in sample.columns}
    taken = {column for key, column in found.mapping.items() if key != c.VALUE}
    quantities = [column for column, name in names.items() if QUANTITY.search(name)]
    amounts = [column for column, name in names.items() if AMOUNT.search(name)]
    value = [found.mapping[c.VALUE]] if c.VALUE in found.mapping else []
    listed = dict.fromkeys([*quantities, *value, *amounts])
    return [column for column in listed if column not in taken]


def _say_cancelled_invoices(sample: Sample, found: Guess) -> None:
    """Add a note if some numbers of invoices have a C before them, as cancellations have."""
    for column, values in sample.values.items():
        if not INVOICE.search(plain(column)):
            continue
        cancelled = [value for value in values if re.fullmatch(r"[Cc]\d{3,}", value.strip())]
        numbers = [value for value in values if re.fullmatch(r"\d{3,}", value.strip())]
        if cancelled and len(cancelled) < len(numbers):
            found.notes.append(
                f"GUESS: {len(cancelled):,} of the first {len(values):,} values of '{column}' begin"
                f" with C, e.g. {cancelled[0]}: if those are cancellations, take their rows out of"
                " the file; they count as purchases"
            )
            return
