"""Negative quantities and amounts in a log of purchases are returns, and `init` says so."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cli.guessing.guess import OpenQuestion
from shortlist.datasets.config import InteractionFile
from tests.cli.test_init_forms import look, take
from tests.cli.test_init_refused import noted

TIME = 1_700_000_000


def shop(head: str, *rows: str) -> bytes:
    """Return a CSV log of the rows, each with a user, an item and a time before it."""
    lines = [f"u{i % 4},a{i},{TIME + i},{row}" for i, row in enumerate(rows)]
    return "\n".join([f"CustomerID,StockCode,InvoiceDate,{head}", *lines, ""]).encode()


def events(folder: Path, toml: str) -> list[tuple[str, float | None]]:
    staged: pa.Table = take(folder, toml)[0]
    assert staged.column("faults").to_pylist() == [None] * staged.num_rows
    columns = (staged.column(name).to_pylist() for name in ("event_type", "value"))
    return list(zip(*columns, strict=True))


FORMS: dict[str, tuple[str, list[str], str, list[float]]] = {
    "a quantity beside a price": (
        "Quantity,UnitPrice",
        ["6,2.55", "1,3.39", "-1,3.39"],
        "Quantity",
        [2.55, 3.39, 3.39],
    ),
    "only a quantity": ("Quantity", ["6", "1", "-2"], "Quantity", [6, 1, 2]),
    "a short name": ("qty", ["1", "2", "-1"], "qty", [1, 2, 1]),
    "an amount": ("amount", ["12.5", "3", "-3"], "amount", [12.5, 3, 3]),
    "both": ("Quantity,Amount", ["6,15.3", "1,3.39", "-1,-3.39"], "Quantity", [15.3, 3.39, 3.39]),
    "another language": ("Price,Menge", ["2.5,1", "2.5,2", "2.5,-2"], "Menge", [2.5, 2.5, 2.5]),
    "a total beside a price": ("Price,LineTotal", ["2,4", "2,2", "2,-2"], "LineTotal", [2, 2, 2]),
    "a minus behind the number": ("Price,Qty", ["2,4", "2,2", "2,2-"], "Qty", [2, 2, 2]),
    "an amount in brackets": ("Amount", ["2.5", "3", "(12.50)"], "Amount", [2.5, 3, 12.5]),
    "a decimal comma": (
        "Quantity,Price",
        ['"1,0","2,5"', '"2,5","3,5"', '"-1,0","2,5"'],
        "Quantity",
        [2.5, 3.5, 2.5],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_negative_number_is_a_return(tmp_path: Path, name: str) -> None:
    head, rows, column, values = FORMS[name]
    found = look(tmp_path, shop(head, *rows))
    assert f'return_if_negative = "{column}"' in found["toml"]
    note = noted(found, "events of type `return`")
    assert note.startswith(f"GUESS: '{column}' is negative in 1 of 3 rows")
    types = ["purchase", "purchase", "return"]
    assert events(tmp_path, found["toml"]) == list(zip(types, values, strict=True))


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("Quantity,UnitPrice", ["6,2.55", "1,3.39"]),
        ("rating,quantity", ["5,1", "4,2", "1,-1"]),
        ("Price,Temperature", ["2,-3", "3,5"]),
    ],
)
def test_other_logs_have_no_returns(tmp_path: Path, head: str, rows: list[str]) -> None:
    found = look(tmp_path, shop(head, *rows))
    assert "return_if_negative" not in found["toml"]
    assert all(kind != "return" for kind, _ in events(tmp_path, found["toml"]))


def test_a_number_that_is_mostly_negative_is_said(tmp_path: Path) -> None:
    found = look(tmp_path, shop("Price,stock_units", "2,-1", "3,-2", "2,1"))
    assert "return_if_negative" not in found["toml"]
    assert "negative in 2 of 3 rows: they count like other rows" in noted(found, "GUESS: 'stock")
    with pytest.raises(OpenQuestion, match=r"a price or duration is negative; .*a return is"):
        look(tmp_path, shop("amount", "-2.5", "-3", "-1", "4"))


def test_a_log_with_event_types_keeps_them(tmp_path: Path) -> None:
    log = shop("event,Quantity", "purchase,2", "view,0", "purchase,-1")
    found = look(tmp_path, log)
    assert "'Quantity' is negative in 1 of 3 rows" in noted(found, "return_if_negative")
    assert [kind for kind, _ in events(tmp_path, found["toml"])] == ["purchase", "view", "purchase"]


@pytest.mark.parametrize("column", ["InvoiceNo", "receipt_id"])
def test_a_cancelled_invoice_without_a_quantity_is_said(tmp_path: Path, column: str) -> None:
    found = look(tmp_path, shop(f"{column},Price", "536365,2", "536366,3", "C536379,2"))
    assert "1 of the first 3 values" in noted(found, "e.g. C536379")


def table(**more: Any) -> InteractionFile:
    columns = {"user_id": "u", "item_id": "i", "event_timestamp": "t"}
    return InteractionFile(path="log.csv", columns=columns, **more)


def test_a_setting_without_effect_is_refused() -> None:
    assert table(event_type="purchase", return_if_negative="q").return_if_negative == "q"
    with pytest.raises(ValueError, match="return_if_negative has no effect"):
        table(event_type="view", return_if_negative="q")
