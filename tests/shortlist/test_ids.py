"""Invalid ids: the service's Python rule and validation's SQL rule refuse the same values."""

import json

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from shortlist.config import Settings
from shortlist.datasets import DataConfig, stage_source
from shortlist.ids import ANONYMOUS, MAX_ID, MISSING_ID_WORDS, id_problem
from shortlist.lake import open_staged
from shortlist.lake.staging import staged_events
from shortlist.validation.rules import Rule, ids, item_required, required
from tests.invalid_values import NO_IDS
from tests.shortlist.conftest import POSTED, STAGED_AT

IDS = [
    *("u1", "00196", "0", "-1", "a b", "Ünï", "東京", "nobody", "na", "none-such", "null1", "1e5"),
    *(
        "[REC]",
        "{x",
        "x" * 256,
        "a\u200bb",
        "👩‍👩‍👧",
        "3.1.4",
        "unknown",
        "true",
        "i.0",
    ),
]


def by_sql(value: str, *, of_user: bool) -> bool:
    column = "user_id" if of_user else "item_id"
    given = f"(SELECT ? AS {column}, NULL::VARCHAR[] AS faults)"
    ((found,),) = duckdb.execute(broken(ids("interactions", column), given), [value]).fetchall()
    return found


def broken(rules: list[Rule], relation: str, *, key: str | None = None) -> str:
    """Return a query that selects, for each row, whether it breaks one of the rules."""
    columns = {rule.check.column: rule.value for rule in rules if rule.value}
    derived = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
    bad = " OR ".join(f"({rule.bad})" for rule in rules)
    return f"SELECT {key + ', ' if key else ''}{bad} FROM (SELECT *, {derived} FROM {relation})"


@pytest.mark.parametrize("value", NO_IDS)
def test_what_means_nothing_is_no_id(value: str) -> None:
    """Placeholders such as "null" are refused as ids."""
    assert id_problem(value, of_user=True)
    assert id_problem(value, of_user=False)


@pytest.mark.parametrize("value", IDS)
def test_what_looks_odd_may_be_an_id(value: str) -> None:
    """Unusual values that could be real ids are accepted."""
    assert id_problem(value, of_user=True) is None
    assert not by_sql(value, of_user=True)


def test_nobody_is_called_anonymous_but_an_item_may_be() -> None:
    """`anonymous` is reserved for visitors without an id; as an item id it is valid."""
    assert "is reserved for visitors" in (id_problem(ANONYMOUS, of_user=True) or "")
    assert by_sql(ANONYMOUS, of_user=True)
    assert id_problem(ANONYMOUS.upper(), of_user=True)
    assert by_sql(ANONYMOUS.upper(), of_user=True)
    assert id_problem(ANONYMOUS, of_user=False) is None
    assert not by_sql(ANONYMOUS, of_user=False)


CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\u00a0\u200b\x00\x7fnulafie/<>")
)
WORDS = st.sampled_from([*NO_IDS, *IDS, *MISSING_ID_WORDS])


@limits(deadline=None)
@given(st.one_of(st.text(CHARACTERS, max_size=12), WORDS.map(str.title), WORDS, st.text()))
@example("nİl")
@example("nıl")
@example("x" * MAX_ID + "e\u0301")
def test_both_rules_are_one(value: str) -> None:
    """The Python rule and the SQL rule agree on any text except numbers with a fraction."""
    in_python = id_problem(value, of_user=True)
    read_as_number = in_python is not None and "a number with a fraction" in in_python
    assert by_sql(value, of_user=True) == (in_python is not None and not read_as_number)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_posted_row_is_bad_where_the_service_refuses_it(settings: Settings, column: str) -> None:
    """Rows of an inbox file break a validation rule exactly if the service refuses their id."""
    values = [*NO_IDS, *IDS]
    folder = settings.events
    folder.mkdir(parents=True)
    lines = [POSTED | {"event_id": f"e{i}", column: value} for i, value in enumerate(values)]
    (folder / "0001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batch = stage_source(DataConfig(source="service"), settings, now=STAGED_AT)
    staged, _ = open_staged(settings.lake, batch.batch_id)
    every = [*ids("interactions", column), *required("interactions"), item_required()]
    mine = [rule for rule in every if rule.name.startswith(f"{column}.")]
    with duckdb.connect() as connection:
        query = broken(mine, staged_events(staged), key="event_id")
        by_id = dict(connection.execute(query).fetchall())
    refused = {f"e{i}": id_problem(v, of_user=column == "user_id") for i, v in enumerate(values)}
    assert by_id == {event_id: problem is not None for event_id, problem in refused.items()}
