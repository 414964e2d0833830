"""Pins, caps and quotas on one ranked list: by hand, and properties of random lists.

An item is a letter; the letter's place in the text is its rank. In caps, the letter is also the
group, so "aab" has two items of group a.
"""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recommend.business_rules.arrange import (
    Limit,
    Need,
    arrange,
    number_in_group,
    place_pins,
)
from models.recommend.business_rules.missing import within_caps


def limit(groups: str, *, at_most: int, first: int = 500, name: str = "cap") -> Limit:
    """A cap by letter; a blank is in no group."""
    codes = np.array([0 if letter == " " else ord(letter) - 96 for letter in groups], dtype=int)
    return Limit(name, codes[:, None], 26, at_most, first)


def need(marks: str, *, at_least: int, first: int = 500, name: str = "quota") -> Need:
    """A quota of the items marked with x."""
    return Need(name, np.array([mark == "x" for mark in marks], dtype=bool), at_least, first)


def order(
    num: int, *, k: int, pins=(), limits=(), needs=(), only_pinned: tuple[int, ...] = ()
) -> list[int]:
    return arranged(num, k=k, pins=pins, limits=limits, needs=needs, only_pinned=only_pinned)[0]


def arranged(num: int, *, k: int, pins=(), limits=(), needs=(), only_pinned=()):
    free = np.ones(num, dtype=bool)
    free[list(only_pinned)] = False
    done = arrange(list(pins), list(limits), list(needs), free=free, k=k)
    return done.places.tolist(), done.kept_by, done.capped


def test_without_rules_the_order_is_that_of_rank() -> None:
    assert order(5, k=3) == [0, 1, 2]
    assert order(2, k=3) == [0, 1]
    assert order(0, k=3) == []


def test_a_pin_takes_its_position_and_the_others_keep_their_order() -> None:
    assert order(5, k=4, pins=[(4, 2)]) == [0, 4, 1, 2]
    assert order(5, k=4, pins=[(0, 3)]) == [1, 2, 0, 3]
    assert order(5, k=5, pins=[(4, 1), (3, 5)]) == [4, 0, 1, 2, 3]


def test_pins_for_one_position_take_the_next_ones_that_no_pin_asked_for() -> None:
    assert order(6, k=5, pins=[(3, 1), (4, 1), (5, 2)]) == [3, 5, 4, 0, 1]


def test_a_pin_beyond_k_has_no_effect_and_of_too_many_pins_the_first_count() -> None:
    assert order(5, k=3, pins=[(4, 4)]) == [0, 1, 2]
    assert order(6, k=2, pins=[(3, 1), (4, 1), (5, 1)]) == [3, 4]
    assert order(5, k=3, pins=[(4, 3), (3, 3)]) == [0, 1, 4]


def test_an_item_is_pinned_once() -> None:
    assert order(4, k=3, pins=[(3, 2), (3, 1)]) == [0, 3, 1]


def test_in_a_shorter_list_a_pin_is_at_the_end() -> None:
    assert order(3, k=10, pins=[(0, 7)]) == [1, 2, 0]
    assert order(3, k=10, pins=[(0, 8), (1, 7)]) == [2, 1, 0]
    assert order(4, k=10, pins=[(0, 4), (1, 4)]) == [2, 3, 1, 0]  # the first keeps its position


def test_an_item_that_is_only_pinned_is_nowhere_else() -> None:
    assert order(3, k=3, pins=[(0, 2)], only_pinned=(0,)) == [1, 0, 2]
    assert order(3, k=3, pins=[(0, 4)], only_pinned=(0,)) == [1, 2]
    assert place_pins([(0, 1)], free=np.array([False]), k=1) == {1: 0}


def test_a_cap_passes_over_items_of_a_full_group() -> None:
    places, _, capped = arranged(6, k=4, limits=[limit("aaabbc", at_most=1)])
    assert places == [0, 3, 5, 1]  # three groups, then the best of what is left
    assert capped == ["cap"]
    assert order(6, k=4, limits=[limit("aaabbc", at_most=2)]) == [0, 1, 3, 4]


def test_a_cap_ends_with_its_window_and_leaves_items_without_the_attribute() -> None:
    assert order(5, k=5, limits=[limit("aaabc", at_most=1, first=2)]) == [0, 3, 1, 2, 4]
    assert order(4, k=3, limits=[limit("   a", at_most=1)]) == [0, 1, 2]
    assert order(4, k=3, limits=[limit("a  a", at_most=0, first=2)]) == [1, 2, 0]


def test_if_every_item_breaks_a_cap_the_one_that_breaks_fewest_is_taken() -> None:
    limits = [limit("aaab", at_most=1), limit("ccde", at_most=1, name="other")]
    # 0 fills a and c. 1 breaks both, 2 only the first, 3 none.
    assert order(4, k=4, limits=limits) == [0, 3, 2, 1]


def test_pinned_items_count_for_caps_at_earlier_positions_too() -> None:
    assert order(5, k=3, pins=[(4, 3)], limits=[limit("abcda", at_most=1)]) == [1, 2, 4]
    # Beyond the window the pin doesn't count.
    assert order(5, k=3, pins=[(4, 3)], limits=[limit("abcda", at_most=1, first=2)]) == [0, 1, 4]


def test_a_quota_takes_the_last_positions_of_its_window() -> None:
    places, kept_by, _ = arranged(6, k=4, needs=[need("....xx", at_least=1, first=3)])
    assert places == [0, 1, 4, 2]
    assert kept_by == {4: ["quota"]}
    assert order(6, k=4, needs=[need("....xx", at_least=2)]) == [0, 1, 4, 5]
    places, kept_by, _ = arranged(6, k=4, needs=[need("x..x..", at_least=2)])
    assert (places, kept_by) == ([0, 1, 2, 3], {})  # rank alone meets it


def test_a_quota_larger_than_what_exists_takes_what_exists() -> None:
    assert order(5, k=3, needs=[need("....x", at_least=3)]) == [0, 1, 4]
    assert order(3, k=3, needs=[need("...", at_least=2)]) == [0, 1, 2]
    assert order(5, k=2, needs=[need("...xx", at_least=5)]) == [3, 4]


def test_quotas_with_the_same_window_are_all_met() -> None:
    needs = [need("...xx..", at_least=2, name="a"), need(".....xx", at_least=1, name="b")]
    places, kept_by, _ = arranged(7, k=4, needs=needs)
    assert places == [0, 3, 4, 5]
    assert kept_by == {3: ["a"], 4: ["a"], 5: ["b"]}


def test_an_item_that_several_quotas_need_counts_for_all() -> None:
    needs = [need("...x.x", at_least=1, name="a"), need("....xx", at_least=1, name="b")]
    places, kept_by, _ = arranged(6, k=2, needs=needs)
    assert places == [5, 0]
    assert kept_by == {5: ["a", "b"]}


def test_caps_are_stronger_than_quotas_and_pins_count_for_quotas() -> None:
    needs = [need("...xxx", at_least=3)]
    assert order(6, k=4, limits=[limit("abcddd", at_most=1)], needs=needs) == [0, 1, 2, 3]
    assert order(6, k=4, pins=[(5, 1)], needs=[need("...xxx", at_least=1)]) == [5, 0, 1, 2]


groups = st.text("abcd ", min_size=0, max_size=14)
pin_lists = st.lists(st.tuples(st.integers(0, 13), st.integers(1, 12)), max_size=5)


@st.composite
def cases(draw):
    letters = draw(groups)
    num = len(letters)
    k = draw(st.integers(1, 16))
    limits = [
        limit(draw(st.permutations(letters)), at_most=draw(st.integers(0, 3)), first=first)
        for first in draw(st.lists(st.integers(1, 16), max_size=2))
    ]
    needs = [
        need("".join(draw(st.lists(st.sampled_from("x."), min_size=num, max_size=num))),
             at_least=draw(st.integers(1, 4)), first=first)
        for first in draw(st.lists(st.integers(1, 16), max_size=2))
    ]  # fmt: skip
    pins = [(i, p) for i, p in draw(pin_lists) if i < num]
    seen = draw(st.sets(st.integers(0, max(num - 1, 0)), max_size=3)) if num else set()
    return num, k, pins, limits, needs, tuple(seen)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_lists_are_full_without_repeats_and_seen_items_only_where_pinned(case) -> None:
    num, k, pins, limits, needs, seen = case
    places = order(num, k=k, pins=pins, limits=limits, needs=needs, only_pinned=seen)
    assert len(places) == len(set(places))
    shown_by_pin = {index for index, position in pins if position <= k}
    assert set(places) & set(seen) <= shown_by_pin
    assert len(places) >= min(k, num - len(seen))
    assert len(places) <= min(k, num)
    first_pin: dict[int, int] = {}  # an item is pinned once
    for index, position in pins:
        if position <= k:
            first_pin.setdefault(index, position)
    holder: dict[int, int] = {}
    for index, position in first_pin.items():
        holder.setdefault(position, index)
    for position, index in holder.items():
        if position <= len(places):
            assert places[position - 1] == index


@given(groups, st.integers(1, 3), st.integers(1, 16), st.integers(1, 16))
def test_one_cap_holds_unless_too_few_items_remain(letters, at_most, first, k) -> None:
    places = order(len(letters), k=k, limits=[limit(letters, at_most=at_most, first=first)])
    window = min(first, len(places))
    counts = Counter(letters[i] for i in places[:window] if letters[i] != " ")
    exist = Counter(letter for letter in letters if letter != " ")
    possible = letters.count(" ") + sum(min(count, at_most) for count in exist.values())
    if possible >= window:
        assert all(count <= at_most for count in counts.values())
    else:  # all that is possible, and then the best of the rest
        assert (
            sum(min(count, at_most) for count in counts.values())
            + sum(letters[i] == " " for i in places[:window])
            == possible
        )


@given(
    st.text("abx", max_size=14),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(4, 16),
    st.integers(4, 16),
    st.integers(1, 16),
)
def test_quotas_of_disjoint_items_hold_if_enough_exist(letters, a, b, first, later, k) -> None:
    quotas = (("a", a, first), ("b", b, later))
    needs = []
    for of, at_least, end in quotas:
        marks = "".join("x" if letter == of else "." for letter in letters)
        needs.append(need(marks, at_least=at_least, first=end, name=of))
    places = order(len(letters), k=k, needs=needs)
    for of, n, end in quotas:
        got = sum(letters[i] == of for i in places[:end])
        enough = min(n, letters.count(of))
        both = min(a, letters.count("a")) + min(b, letters.count("b"))
        if both <= min(first, later, len(places)):
            assert got >= enough


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), max_size=12))
def test_the_number_in_a_group_counts_earlier_rows(rows) -> None:
    codes = np.array(rows, dtype=np.int64).reshape(-1, 2)
    want = np.full(codes.shape, -1)
    seen: Counter = Counter()
    for row, pair in enumerate(codes.tolist()):
        for place, code in enumerate(pair):
            if code:
                want[row, place] = seen[code]
                seen[code] += 1
    assert number_in_group(codes).tolist() == want.tolist()


def test_without_caps_everything_is_within_them() -> None:
    assert within_caps(np.array([3, 1]), [], at=0).tolist() == [True, True]
