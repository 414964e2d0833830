"""Business rules in a complete Recommender, with a catalogue of 40 items."""

import pyarrow as pa
import pytest

from models.recommend.recommender import Recommender
from shortlist.http.api import SimilarRequest
from shortlist.http.rule_config import RuleSet
from tests.models.recommenders import AT, pack_of
from tests.models.rule_shop import CATALOGUE, ask, item, make, numbers, where


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return make()


def test_filters_hold_before_retrieval_so_a_narrow_one_still_fills_the_list(recommender) -> None:
    slate = ask(recommender, {"filter": [{"name": "dear", "keep": where("price", at_least=30)}]})
    assert numbers(slate) == [30, 31, 32, 33, 34]
    assert slate.rules == ["dear"]
    both = [{"attribute": "brand", "equals": "acme"}, {"attribute": "price", "at_most": 8}]
    slate = ask(recommender, {"filter": [{"name": "cheap acme", "drop": both}]}, k=9)
    assert numbers(slate) == [1, 2, 3, 5, 6, 9, 10, 11, 12]  # i07 is not available
    new = where("published_at", within_days=2)
    assert numbers(ask(recommender, {"filter": [{"name": "new", "keep": new}]})) == [39, 40]


def test_include_and_exclude(recommender) -> None:
    rules = {
        "include": [
            {"name": "only", "item_ids": ["i20", "i21", "i07", "unknown"]},
            {"name": "and", "item_ids": ["i20", "i21", "i22"]},
        ],
        "exclude": [{"name": "never", "item_ids": ["i21"]}],
    }
    slate = ask(recommender, rules)
    assert numbers(slate) == [20]
    assert slate.rules == ["only", "and", "never"]
    assert ask(recommender, {"exclude": [{"name": "none", "item_ids": ["unknown"]}]}).rules == []


def test_a_rule_set_compiled_once_is_used_again(recommender) -> None:
    rules = RuleSet.model_validate({"filter": [{"name": "f", "keep": where("price", at_most=3)}]})
    compiler = recommender.view.rules
    assert compiler(rules) is compiler(RuleSet.model_validate(rules.model_dump()))


def test_pins_show_items_that_no_source_found(recommender) -> None:
    slate = ask(recommender, {"pin": [{"name": "ad", "item_id": "i35", "position": 2}]})
    assert numbers(slate) == [1, 35, 2, 3, 4]
    assert [shown.rules for shown in slate.items] == [[], ["ad"], [], [], []]
    assert [shown.source for shown in slate.items] == ["first", "rules", "first", "first", "first"]
    assert len({len(features) for features in slate.features}) == 1
    assert slate.items[1].score == -35  # the score is the ranker's


def test_pins_never_show_what_may_not_be_shown(recommender) -> None:
    def pinned(item_id: str, *, user="u", **more):
        pin = {"name": "p", "item_id": item_id, "position": 1}
        even = more.pop("even_if_seen", False)
        return numbers(ask(recommender, {"pin": [pin | {"even_if_seen": even}]}, user=user, **more))

    assert pinned("i09")[0] == 9
    assert 1 not in pinned("i01")  # the user consumed it
    assert pinned("i01", even_if_seen=True)[0] == 1
    assert 3 not in pinned("i03", even_if_seen=True)  # the user refused it
    assert 7 not in pinned("i07", even_if_seen=True)  # not available
    assert 1 not in pinned("i01", even_if_seen=True, exclude=["i01"])
    assert 9 not in pinned("i09", filters={"max_price": 8})
    assert pinned("nobody knows it") == pinned("i07")


def test_a_seen_item_whose_pin_finds_no_position_is_not_shown_where_it_ranks(recommender) -> None:
    pins = [
        {"name": "p", "item_id": "i09", "position": 5},
        {"name": "q", "item_id": "i01", "position": 5, "even_if_seen": True},
    ]
    assert numbers(ask(recommender, {"pin": pins}, user="u")) == [4, 5, 6, 8, 9]


def test_boost_and_bury_move_by_places(recommender) -> None:
    up = {"name": "up", "where": where("item_id", equals="i05"), "places": 2}
    slate = ask(recommender, {"boost": [up]})
    assert numbers(slate) == [1, 2, 5, 3, 4]
    assert [shown.rules for shown in slate.items] == [[], [], ["up"], [], []]
    down = {"name": "down", "where": where("item_id", equals="i01"), "places": 3}
    assert numbers(ask(recommender, {"bury": [down]})) == [2, 3, 4, 1, 5]
    assert numbers(ask(recommender, {"boost": [up], "bury": [down]})) == [2, 5, 3, 4, 1]
    away = down | {"places": 10_000}
    # The source finds 12 items. i07 is not among them, and i01 is now the last.
    assert numbers(ask(recommender, {"bury": [away]}, k=11))[-1] == 13
    assert numbers(ask(recommender, {"bury": [away]}, k=12))[-1] == 1


def test_moves_of_two_rules_add_up(recommender) -> None:
    rules = {
        "boost": [{"name": "a", "where": where("item_id", equals="i06"), "places": 3}],
        "bury": [{"name": "b", "where": where("brand", equals="core"), "places": 1}],
    }
    assert item(6)["brand"] == "core"
    slate = ask(recommender, rules, k=6)
    assert numbers(slate)[3] == 6  # moves up by 3 - 1 places, from 6 to 4
    assert next(shown.rules for shown in slate.items if shown.item_id == "i06") == ["a", "b"]


def test_caps_look_beyond_the_first_k_and_beyond_the_candidates(recommender) -> None:
    cap = {"name": "one each", "by": "brand", "at_most": 1}
    slate = ask(recommender, {"cap": [cap]}, k=3)
    assert numbers(slate) == [1, 2, 3]  # brands bolt, core, none
    slate = ask(recommender, {"cap": [cap]})
    assert numbers(slate) == [1, 2, 3, 4, 11]  # items without a brand aren't capped
    assert slate.rules == ["one each"]
    keep = [{"name": "f", "keep": where("brand", any_of=["bolt", "core"])}]
    slate = ask(recommender, {"cap": [cap], "filter": keep}, k=4)
    assert numbers(slate) == [1, 2, 5, 6]  # only two brands exist; the list is full
    # The source finds 12 items, of which only i10 has supplier x.
    few = {"name": "few", "where": where("attributes.supplier", none_of=["x"]), "at_most": 1}
    shown = numbers(ask(recommender, {"cap": [few]}, k=4))
    assert sum(item(n)["attributes"][:1] == [("supplier", "x")] for n in shown) == 3


def test_quotas_bring_items_that_no_source_found(recommender) -> None:
    quota = {
        "name": "new",
        "at_least": 2,
        "first": 4,
        "where": where("published_at", within_days=5),
    }
    slate = ask(recommender, {"quota": [quota]})
    assert numbers(slate) == [1, 2, 36, 37, 3]
    assert [shown.rules for shown in slate.items] == [[], [], ["new"], ["new"], []]
    assert slate.skipped_stages == []


def test_rules_of_the_file_and_of_the_request_add_up() -> None:
    file = {
        "exclude": [{"name": "file", "item_ids": ["i01"]}],
        "pin": [{"name": "file pin", "item_id": "i30", "position": 1}],
    }
    recommender = make(rules=file)
    assert numbers(ask(recommender)) == [30, 2, 3, 4, 5]
    request = {"pin": [{"name": "own pin", "item_id": "i31", "position": 1}]}
    slate = ask(recommender, request)
    assert numbers(slate) == [31, 30, 2, 3, 4]
    assert slate.rules == ["file"]


def test_the_version_names_the_rules_in_force(recommender) -> None:
    rules = {"exclude": [{"name": "e", "item_ids": ["i01"]}]}
    one, other = ask(recommender, rules), ask(make(rules=rules))
    assert ask(recommender).rules_version == "1"
    assert one.rules_version == other.rules_version == f"1-{RuleSet.model_validate(rules).id}"
    both = ask(make(rules=rules), {"exclude": [{"name": "f", "item_ids": ["i02"]}]})
    assert both.rules_version.startswith("1-")
    assert both.rules_version != one.rules_version


def test_new_rules_hold_for_a_running_recommender_and_a_new_catalogue() -> None:
    recommender = make()
    recommender.rules.rules = RuleSet.model_validate(
        {"filter": [{"name": "f", "keep": where("price", at_least=38)}]}
    )
    assert numbers(ask(recommender)) == [38, 39, 40]
    items = CATALOGUE.items.to_pylist()
    items[0]["price"] = 99.0
    recommender.swap_pack(pack_of(pa.Table.from_pylist(items, schema=CATALOGUE.items.schema)))
    assert numbers(ask(recommender)) == [1, 38, 39, 40]


def test_ids_and_values_that_no_item_has_are_named(recommender) -> None:
    rules = {
        "exclude": [{"name": "e", "item_ids": ["i01", "i99"]}],
        "boost": [{"name": "b", "where": where("brand", any_of=["acme", "Acme"]), "places": 1}],
    }
    assert recommender.prepare_rules(RuleSet.model_validate(rules)) == [
        "e: no item has item_id 'i99'",
        "b: no item has brand 'Acme'",
    ]


def test_hard_rules_of_the_file_hold_for_similar_items() -> None:
    rules = {"exclude": [{"name": "e", "item_ids": ["i02"]}]}
    assert make(rules=rules).similar(SimilarRequest(item_id="i01"), at=AT) == []


def test_soft_rules_that_fail_leave_the_list_without_them(recommender, monkeypatch) -> None:
    def broken(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr("models.recommend.business_rules.list_rules.arrange", broken)
    rules = {
        "pin": [{"name": "p", "item_id": "i09", "position": 1}],
        "exclude": [{"name": "e", "item_ids": ["i01"]}],
    }
    slate = ask(recommender, rules)
    assert numbers(slate) == [2, 3, 4, 5, 6]
    assert slate.skipped_stages == ["rules"]


def test_rules_after_mmr_still_hold() -> None:
    recommender = make(mmr_strength=0.5)
    without = numbers(ask(recommender, k=4))
    assert without != [1, 2, 3, 4]
    rules = {"pin": [{"name": "p", "item_id": "i12", "position": 3}]}
    assert numbers(ask(recommender, rules, k=4)) == [*without[:2], 12, without[2]]
