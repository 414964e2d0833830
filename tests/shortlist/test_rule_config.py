"""The rules file and the `rules` of a request: what is valid, and what each mistake is told."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from shortlist.config import ConfigError
from shortlist.http.api import RecommendRequest
from shortlist.http.rule_config import MAX_IDS, MAX_K, Condition, RuleSet, load_rules

COMPLETE = """
[[filter]]
name = "no wine on the home page"
drop = [{ attribute = "categories", equals = "wine" }]

[[filter]]
name = "this year"
keep = [{ attribute = "published_at", at_least = 2026-01-01, at_most = 2026-12-31T23:59:59Z }]

[[include]]
name = "campaign"
item_ids = ["1", "2"]

[[exclude]]
name = "recall"
item_ids = ["3"]

[[pin]]
name = "banner"
item_id = "1"
position = 1

[[boost]]
name = "own brand"
places = 20
where = [{ attribute = "brand", any_of = ["acme"] }, { attribute = "price", at_most = 20 }]

[[bury]]
name = "last pieces"
places = 50
where = [{ attribute = "attributes.stock", at_most = 3 }]

[[cap]]
name = "two of a brand"
by = "brand"
at_most = 2
first = 10

[[quota]]
name = "new"
at_least = 2
first = 10
where = [{ attribute = "published_at", within_days = 14 }]
"""


def load(tmp_path: Path, text: str) -> RuleSet:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return load_rules(path)


def test_a_file_with_every_type_of_rule(tmp_path) -> None:
    rules = load(tmp_path, COMPLETE)
    assert [rule.name for rule in rules.rules][:2] == ["no wine on the home page", "this year"]
    assert len(rules.rules) == 9
    assert rules.quota[0].first == 10
    assert rules.pin[0].even_if_seen is False
    dates = rules.filter[1].keep
    assert dates is not None
    assert dates[0].bounds == (1_767_225_600e6, 1_798_761_599e6)
    assert load(tmp_path, "") == RuleSet()


def test_the_examples_of_the_documentation_are_valid(tmp_path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    rules = load(tmp_path, example)
    assert all(getattr(rules, field) for field in RuleSet.model_fields)  # one of every type
    (body,) = re.findall(r"-d '(.*?)'", page, re.DOTALL)
    request = RecommendRequest.model_validate_json(body)
    assert request.rules is not None
    assert [rule.name for rule in request.rules.rules] == ["landing page", "mixed"]


def test_without_a_file_there_are_no_rules(tmp_path) -> None:
    assert load_rules(tmp_path / "rules.toml").rules == []


def test_a_set_survives_json_with_its_id(tmp_path) -> None:
    """A request has the shape of the file, and the same rules have the same id."""
    rules = load(tmp_path, COMPLETE)
    again = RuleSet.model_validate_json(rules.model_dump_json(exclude_defaults=True))
    assert again.id == rules.id
    request = RecommendRequest.model_validate({"user_id": "u", "rules": rules.model_dump()})
    assert request.rules is not None
    assert request.rules.id == rules.id
    assert load(tmp_path, COMPLETE.replace("places = 20", "places = 21")).id != rules.id
    assert load(tmp_path, COMPLETE + "# a comment\n").id == rules.id


FILTER = '[[filter]]\nname = "f"\n'
PIN = '[[pin]]\nname = "p"\nitem_id = "1"\n'
CAP = '[[cap]]\nname = "c"\nat_most = 1\n'
QUOTA = '[[quota]]\nname = "q"\nwhere = [{ attribute = "brand", equals = "b" }]\n'


def keep(attribute: str, operators: str, *, name: str = "f") -> str:
    """Return the TOML of a filter with one condition."""
    condition = ", ".join(part for part in (f'attribute = "{attribute}"', operators) if part)
    return f'[[filter]]\nname = "{name}"\nkeep = [{{ {condition} }}]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[filters]]\n", r"rules.toml: filters: unknown key"),
        ("[[filter]\n", r"rules.toml: not valid TOML"),
        (FILTER, r"filter.0: want either keep or drop, each a list of conditions"),
        (FILTER + "keep = []", r"filter.0.keep: List should have at least 1 item"),
        (
            keep("prize", "at_most = 1"),
            r"'prize' is unknown, want one of item_id, categories, .*, attributes.<key>",
        ),
        (keep("attributes.", 'equals = "a"'), r"'attributes\.' is unknown"),
        (keep("price", ""), r"no operator for 'price', want one of equals, at_least, at_most"),
        (
            keep("price", 'any_of = ["1"]'),
            r"'any_of' is not an operator of 'price', want one of equals, at_least, at_most",
        ),
        (keep("price", 'at_most = "20"'), r"at_most: '20' is not a number"),
        (keep("price", "at_least = 9, at_most = 1"), r"at_least 9 is above at_most 1"),
        (keep("price", "at_most = nan"), r"at_most: want a number from -1e18 to 1e18"),
        (keep("price", "equals = true"), r"equals: want a text or a number"),
        (keep("brand", "equals = 7"), r"equals: 7 is not a text, as 'brand' needs"),
        (
            keep("published_at", 'at_least = "soon"'),
            r"at_least: 'soon' is not a date, want one such as 2026-11-30",
        ),
        (
            keep("published_at", "at_least = 1700000000"),
            r"at_least: 1700000000 looks like seconds, want microseconds",
        ),
        (keep("published_at", "within_days = 0"), r"within_days: Input should be greater than 0"),
        (PIN, r"pin.0.position: is required"),
        (PIN + "position = 0", r"pin.0.position: Input should be greater than or equal to 1"),
        (PIN.replace('"1"', '"null"') + "position = 1", r"pin.0.item_id: 'null' is a placeholder"),
        (
            PIN.replace('"p"', '" p"') + "position = 1",
            r"pin.0.name: want a name of 1 to 64 printable characters",
        ),
        (CAP, r"cap.0: want by \(an attribute\), where \(conditions\), or both"),
        (
            CAP + 'by = "price"',
            r"by: 'price' has no values to count, want categories, brand or attr",
        ),
        (QUOTA + "at_least = 3\nfirst = 2\n", r"quota.0: at_least 3 is more than first 2"),
        (
            QUOTA + "at_least = 1\n" + keep("brand", 'equals = "b"', name="q"),
            r"rule name 'q' is used twice",
        ),
    ],
)
def test_mistakes(tmp_path, text, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_limits_are_inclusive() -> None:
    ids = [f"i{n}" for n in range(MAX_IDS)]
    RuleSet.model_validate({"exclude": [{"name": "e", "item_ids": ids}]})
    with pytest.raises(ValidationError, match="at most 10000 items"):
        RuleSet.model_validate({"exclude": [{"name": "e", "item_ids": [*ids, "x"]}]})
    two = [{"name": "e", "item_ids": ids}, {"name": "f", "item_ids": ["x"]}]
    with pytest.raises(ValidationError, match="exclude: 10,001 item_ids in all, want at most"):
        RuleSet.model_validate({"exclude": two})
    pin = {"name": "p", "item_id": "i"}
    RuleSet.model_validate({"pin": [pin | {"position": MAX_K}]})
    with pytest.raises(ValidationError):
        RuleSet.model_validate({"pin": [pin | {"position": MAX_K + 1}]})


@pytest.mark.parametrize("value", [10**400, "\ud800", float("inf"), ["a"], {}])
def test_odd_values_of_a_request_are_refused(value) -> None:
    with pytest.raises(ValidationError, match="equals"):
        Condition.model_validate({"attribute": "price", "equals": value})


def test_every_rule_is_in_the_schema_of_a_request() -> None:
    schema = RecommendRequest.model_json_schema()
    fields = schema["$defs"]["RuleSet"]["properties"]
    assert set(fields) == set(RuleSet.model_fields)
    assert schema["$defs"]["Condition"]["properties"]["equals"]["type"] == [
        "string",
        "number",
        "null",
    ]
