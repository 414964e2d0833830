"""Real Great Expectations runs: what is bad goes to quarantine, what is too bad stops the batch."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.validate import ValidateConfig, ValidationFailed, told, validate_batch
from flows.validate_suites import Judge
from shortlist.config import ConfigError, Settings
from shortlist.contracts import INTERACTIONS
from shortlist.datasets import DataConfig, stage_source
from shortlist.lake import Lake, LakeError
from shortlist.validation import Figures, Rule

DAY = 86_400_000_000
START = 10_000 * DAY  # microseconds
GENEROUS = ValidateConfig(failure_budget=0.5)


def event(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{i}",
        "user_id": f"u{i % 4}",
        "item_id": f"i{i % 5}",
        "event_type": "rating",
        "event_timestamp": START + i * DAY,
        "value": float(1 + i % 5),
        "operation": "insert",
    } | changes


def item(i: int, **changes: Any) -> dict[str, Any]:
    return {"item_id": f"i{i}", "title": f"T{i}", "price": 1.5} | changes


GOOD_EVENTS = [event(i) for i in range(20)]
GOOD_ITEMS = [item(i) for i in range(5)]
GOOD_USERS = [{"user_id": f"u{i}"} for i in range(4)]


class House:
    """A home, and batches of JSON Lines for it."""

    def __init__(self, home: Path):
        self.settings = Settings(home=home / "home")
        self.lake = Lake(self.settings.lake)
        self.folder = home
        self.batch_id = ""

    def stage(
        self,
        events: list[dict[str, Any]] = GOOD_EVENTS,
        items: list[dict[str, Any]] = GOOD_ITEMS,
        users: list[dict[str, Any]] = GOOD_USERS,
        **data: Any,
    ) -> str:
        files = {}
        for name, rows in (("interactions", events), ("items", items), ("users", users)):
            if not rows:
                continue
            path = self.folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            columns = {key: key for row in rows for key in row}
            files[name] = {"path": path, "columns": columns, "timestamp_unit": "us"}
        config = DataConfig.model_validate({"source": "files", "files": files} | data)
        self.batch_id = stage_source(config, self.settings, now=START + 1_000 * DAY).batch_id
        return self.batch_id

    def validate(self, *rows: Any, config: ValidateConfig = GENEROUS, **data: Any) -> Any:
        return validate_batch(self.settings, self.stage(*rows, **data), config, clock="replay")

    def quarantined(self, name: str) -> list[dict[str, Any]]:
        path = self.settings.quarantine / self.batch_id / f"{name}.parquet"
        return pq.read_table(path).to_pylist()

    def reasons(self, name: str) -> dict[str, str]:
        key = "event_id" if name == "interactions" else name[:-1] + "_id"
        return {row[key]: row["expectation"] for row in self.quarantined(name)}

    def files(self) -> dict[Path, bytes]:
        current = self.lake.root / "current"
        found = current.resolve().rglob("*") if current.is_symlink() else []
        return {path: path.read_bytes() for path in found if path.is_file()}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_good_batch_joins_the_lake_and_is_documented(house: House) -> None:
    result = house.validate(config=ValidateConfig())
    assert (result["read"], result["accepted"], result["items"], result["users"]) == (20, 20, 5, 4)
    assert (result["quarantined"], result["duplicates"], result["quarantine"]) == (0, 0, None)
    assert house.lake.interactions().num_rows == 20
    assert not house.lake.incoming(house.batch_id).exists()
    docs = house.settings.data_docs
    index = (docs / "index.html").read_text()
    for name, rows in (("interactions", 20), ("items", 5), ("users", 4), ("batch", 20)):
        assert (docs / "expectations" / f"{name}.html").is_file()
        pages = list((docs / "validations" / name).rglob("*.html"))
        assert len(pages) == 1
        assert "Succeeded" in pages[0].read_text()
        link = pages[0].relative_to(docs).as_posix()
        assert f'<td><a href="{link}">{name}</a></td><td>succeeded</td><td>{rows}</td>' in index
    assert "<td>20</td><td>20</td><td>0</td><td>0</td><td>0</td><td>0</td>" in index
    assert told(result)[0] == (
        "20 events read = 20 accepted + 0 quarantined + 0 duplicates + 0 excluded + 0 applied"
    )


def test_bad_events_are_quarantined_with_reason_and_original(house: House) -> None:
    bad = [
        event(20, event_type="stare"),
        event(21, value=11.0),
        event(22, item_id="nowhere"),
        event(23, user_id=""),
        event(24, event_timestamp=-DAY),
        event(25, event_type="stare", item_id="nowhere"),
        event(26, event_type="purchase", value=-3.0),
        event(27, value="four"),
        event(28, item_id="x" * 300),
        event(29, user_id="NaN"),
    ]
    # A value beyond the range of ratings is right for another type.
    fine = event(30, event_type="watch", value=3_600.0)
    result = house.validate([*GOOD_EVENTS, *bad, fine])
    assert (result["read"], result["accepted"], result["quarantined"]) == (31, 21, 10)
    assert result["quarantine"] == str(house.settings.quarantine / house.batch_id)
    assert house.reasons("interactions") == {
        "e20": "event_type.known",
        "e21": "value.rating_range",
        "e22": "item_id.known",
        "e23": "user_id.required",
        "e24": "event_timestamp.range",
        "e25": "event_type.known; item_id.known",
        "e26": "value.not_negative",
        "e27": "value.number",
        "e28": "item_id.length; item_id.known",
        "e29": "user_id.placeholder",
    }
    rows = {row["event_id"]: row for row in house.quarantined("interactions")}
    assert json.loads(rows["e27"]["original"]) == bad[7]
    assert (rows["e27"]["file"], rows["e27"]["line"]) == ("interactions.jsonl", 28)
    assert rows["e21"]["reason"] == "range of ratings: want 1 to 5"
    assert set(INTERACTIONS.names) - {"event_order"} < set(rows["e21"])
    kept = house.lake.interactions().column("event_id").to_pylist()
    assert set(kept) == {row["event_id"] for row in [*GOOD_EVENTS, fine]}
    docs = house.settings.data_docs
    page = next((docs / "validations" / "interactions").rglob("*.html")).read_text()
    assert "Failed" in page
    assert page.index("shortlist-docs") < page.index("bootstrap")  # whose style wins online
    index = (docs / "index.html").read_text()
    assert "interactions</a></td><td>failed</td><td>31</td>" in index
    assert "<th>value.rating_range</th>" in index


def test_ids_that_stand_for_two_things_are_quarantined(house: House) -> None:
    twice = item(4, title="Another")
    events = [*GOOD_EVENTS, event(3, value=1.0), event(1)]
    users = [*GOOD_USERS, {"user_id": ""}, {"user_id": "u9"}, {"user_id": "u9"}]
    result = house.validate(events, [*GOOD_ITEMS, twice, item(0)], users)
    assert [row["title"] for row in house.quarantined("items")] == ["T4", "Another"]
    assert house.reasons("users") == {None: "user_id.required"}
    # Which of two films i4 is, nobody knows: its four events cannot be used either.
    gone = [row["event_id"] for row in house.quarantined("interactions")]
    assert sorted(gone) == ["e14", "e19", "e3", "e3", "e4", "e9"]
    assert (result["quarantined_items"], result["quarantined_users"]) == (2, 1)
    assert (result["read"], result["accepted"], result["quarantined"]) == (22, 15, 6)
    assert result["duplicates"] == 1  # e1 came twice with the same content
    assert (result["items"], result["users"]) == (4, 5)


def test_over_budget_stops_and_the_lake_is_untouched(house: House) -> None:
    house.validate()
    before = house.files()
    bad = [event(30, value=0.5), event(31, value=9.0)]
    events = [*(event(i) for i in range(20, 29)), *bad]
    with pytest.raises(ValidationFailed) as error:
        house.validate(events, config=ValidateConfig(failure_budget=0.1))
    message = str(error.value)
    assert "interactions: 2 of 11 rows are bad (18.2%), the budget is 10.0%" in message
    assert "most of all 2 by value.rating_range: range of ratings: want 1 to 5" in message
    assert str(house.settings.quarantine / house.batch_id) in message
    assert str(house.settings.data_docs / "index.html") in message
    assert house.reasons("interactions") == {
        "e30": "value.rating_range",
        "e31": "value.rating_range",
    }
    assert house.files() == before
    # With a budget it is accepted, and the quarantine is that of the last try.
    result = house.validate(events)
    assert (result["accepted"], result["quarantined"]) == (9, 2)


def test_volume_stops_the_batch(house: House) -> None:
    with pytest.raises(ValidationFailed, match=r"volume.rows: .*found 20, want at least 21"):
        house.validate(config=ValidateConfig(min_rows=21))
    with pytest.raises(ValidationFailed, match="found 20, want at least 1 and at most 19"):
        house.validate(config=ValidateConfig(max_rows=19))
    assert house.files() == {}


def test_a_stale_batch_is_judged_by_the_newest_event_there_is(house: House) -> None:
    config = ValidateConfig(max_age_days=30)
    house.validate(config=config)
    late = [event(i, event_timestamp=START + 100 * DAY) for i in range(20, 22)]
    house.validate(late, config=config)
    with pytest.raises(ValidationFailed, match=r"time.age_days: days from .* want at most 30"):
        house.validate([event(i) for i in range(22, 30)], config=config)


def test_the_second_time_everything_is_a_duplicate(house: House) -> None:
    house.validate()
    before = house.lake.interactions(), house.lake.items(), house.lake.users()
    result = house.validate([*GOOD_EVENTS, event(0)])  # the file has grown by a repetition
    assert (result["read"], result["accepted"], result["duplicates"]) == (21, 0, 21)
    after = house.lake.interactions(), house.lake.items(), house.lake.users()
    assert all(a.equals(b) for a, b in zip(before, after, strict=True))


def test_corrections_deletions_and_exclusions_are_accounted_for(house: House) -> None:
    house.validate()
    changes = [
        event(0, operation="delete"),
        event(1, operation="correct", value=5.0),
        event(77, operation="delete"),  # there is no such event
        event(40, user_id="test-robot"),
        event(41),
        event(41),
        event(42, operation="frobnicate"),
    ]
    result = house.validate(changes, exclude=["user_id LIKE 'test-%'"])
    parts = ("accepted", "quarantined", "duplicates", "excluded", "applied")
    assert [result[part] for part in parts] == [1, 2, 1, 1, 2]
    assert result["read"] == 7
    assert house.reasons("interactions") == {"e77": "operation.target", "e42": "operation.known"}
    rows = {row["event_id"]: row for row in house.lake.interactions().to_pylist()}
    assert "e0" not in rows
    assert rows["e1"]["value"] == 5.0


def test_items_are_corrected_and_taken_off_the_shelf(house: House) -> None:
    house.validate()
    house.validate([event(50)], [item(0, title="New"), item(1, operation="delete")])
    rows = {row["item_id"]: row for row in house.lake.items().to_pylist()}
    assert (rows["i0"]["title"], rows["i0"]["available"]) == ("New", True)
    assert (rows["i1"]["available"], rows["i2"]["available"]) == (False, True)


@pytest.mark.parametrize(
    ("policy", "figures", "catalogue"),
    [("quarantine", (20, 1), 5), ("keep", (21, 0), 5), ("create", (21, 0), 6)],
)
def test_policies_for_unknown_items(
    house: House, policy: str, figures: tuple[int, int], catalogue: int
) -> None:
    config = ValidateConfig.model_validate({"failure_budget": 0.5, "unknown_items": policy})
    result = house.validate([*GOOD_EVENTS, event(20, item_id="new")], config=config)
    assert (result["accepted"], result["quarantined"]) == figures
    assert house.lake.items().num_rows == catalogue


OWN = [
    {"name": "no low ratings", "row": "value >= 2", "action": "warn"},
    {"name": "titles", "table": "items", "row": "title IS NOT NULL", "budget": 0.0},
    {"name": "mean", "batch": "avg(value)", "min": 2, "max": 4, "action": "warn"},
]


def test_expectations_of_ones_own(house: House) -> None:
    config = ValidateConfig.model_validate({"expectations": OWN})
    result = house.validate(config=config)
    assert result["accepted"] == 20
    assert result["warnings"] == [
        "interactions: no low ratings: 4 of 20 rows (20.0%): no low ratings: want value >= 2,"
        " the budget is 0.0%"
    ]
    low = [event(i, value=1.0) for i in range(20, 24)]
    with pytest.raises(ValidationFailed, match=r"items: titles: 1 of 2 rows \(50.0%\)"):
        house.validate(low, [item(0), {"item_id": "i9"}], config=config)
    result = house.validate(low, config=config)
    assert (
        result["warnings"][1] == "batch: mean: avg(value): found 1, want at least 2 and at most 4"
    )
    wrong = ValidateConfig.model_validate({"expectations": [{"name": "x", "row": "vale > 2"}]})
    with pytest.raises(ConfigError, match=r"'x': .*vale.* want an SQL condition on the columns"):
        house.validate([event(60)], config=wrong)
    wrong = ValidateConfig.model_validate(
        {"expectations": [{"name": "x", "batch": "avg(vale)", "min": 0}]}
    )
    with pytest.raises(ConfigError, match=r"'x': .*vale.* want an SQL aggregate"):
        house.validate([event(60)], config=wrong)


def test_actions_and_budgets_of_rules_can_be_changed(house: House) -> None:
    events = [*GOOD_EVENTS, event(20, value=9.0)]

    def rule(**change: Any) -> ValidateConfig:
        rules = {"value.rating_range": change}
        return ValidateConfig.model_validate({"failure_budget": 0.5, "rules": rules})

    with pytest.raises(ValidationFailed, match=r"value.rating_range: 1 of 21 rows .* 4.0%"):
        house.validate(events, config=rule(budget=0.04))
    with pytest.raises(ValidationFailed, match=r"value.rating_range: 1 of 21 rows .* 0.0%"):
        house.validate(events, config=rule(action="stop"))
    result = house.validate(events, config=rule(budget=0.05))
    assert (result["quarantined"], result["warnings"]) == (1, [])
    result = house.validate([event(21, value=9.0)], config=rule(action="warn"))
    assert (result["accepted"], result["quarantined"]) == (1, 0)
    assert result["warnings"][0].startswith("interactions: value.rating_range: 1 of 1 rows")
    unknown = ValidateConfig.model_validate({"rules": {"value.range": {"action": "warn"}}})
    with pytest.raises(ConfigError, match=r"'value.range' is unknown, want one of available.flag"):
        house.validate([event(22)], config=unknown)


def test_a_batch_unlike_the_last_ones_is_warned_about(house: House) -> None:
    house.validate([event(i, surface="web") for i in range(100)], config=ValidateConfig())
    strange = [event(100 + i, surface="watch" if i else None, value=None) for i in range(5)]
    burst = [event(200 + i, user_id="u1", event_timestamp=START + 300 * DAY) for i in range(1_200)]
    result = house.validate([*strange, *burst])
    warned = [warning.split(": ")[1] for warning in result["warnings"]]
    assert warned == [
        *("user_id.burst", "volume.ratio", "nulls.change"),
        *("user_id.top_share", "user_id.bursts"),
    ]


def test_bots_can_be_held_back(house: House) -> None:
    burst = [event(200 + i, user_id="u1", event_timestamp=START) for i in range(12)]
    rules = {"user_id.burst": {"action": "quarantine", "budget": 1.0}}
    config = ValidateConfig.model_validate(
        {"failure_budget": 0.5, "burst_per_minute": 10, "rules": rules}
    )
    result = house.validate([*GOOD_EVENTS, *burst], config=config)
    assert (result["accepted"], result["quarantined"]) == (20, 12)


def test_a_batch_that_is_not_there_is_named(house: House) -> None:
    with pytest.raises(LakeError, match=r"batch 'b7' was not ingested .* waiting are none"):
        validate_batch(house.settings, "b7", GENEROUS, clock="replay")


def test_an_expectation_that_cannot_be_judged_stops(tmp_path: Path) -> None:
    rule = Rule("users", "user_id.required", "user_id IS NULL", "user_id is missing")
    rows = [{"part": "all", "rows": 1, "bad": 0, "other": 0}]
    figures = Figures(violations={"users": rows, "interactions": []})
    (finding,) = Judge(tmp_path).run(figures, [rule], ValidateConfig(), batch_id="b1")[:1]
    assert finding.action == "stop"
    assert "no result: " in finding.text


def test_an_id_that_looks_like_a_date_is_judged_too(tmp_path: Path) -> None:
    rows = [{"part": "all", "rows": 1, "bad": 0}]
    judge = Judge(tmp_path)
    # dateutil takes this one for a date and overflows; one in 2,500 batch ids is like it.
    found = judge.run(
        Figures(violations={"users": rows, "interactions": rows}),
        [],
        ValidateConfig(),
        batch_id="6449763540995043",
    )
    assert found == []
