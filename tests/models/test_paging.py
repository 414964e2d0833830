"""Pages of one list: no item is shown twice or left out, even if something changes in between."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.data import Validation
from models.recommend.pages import MAX_AGE, ItemKeys
from models.recommend.recommender import Recommender
from shortlist import columns as c
from shortlist.http.api import Filters, RecommendRequest
from shortlist.http.cursor import MAX_LENGTH, MAX_RELEASE_ID, MAX_SHOWN, Cursor, item_key
from tests.models.recommenders import AT, Clicks, fitted, pack_of, recommender_of, with_new
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data

ITEMS = 620
SOURCES = ("item_knn", "popularity")
READ = [("u1", f"i{i:03d}", AT - 1_000 + i) for i in (2, 4, 6, 30)]
WORST = 4


@pytest.fixture(scope="module")
def models():
    """A catalogue of 620 items and two sources that find 20 items each: long lists need tiers."""
    rng = np.random.default_rng(3)
    catalogue = catalogue_of([["even" if i % 2 else "odd", f"c{i % 7}"] for i in range(ITEMS)])
    histories = [(rng.choice(ITEMS // 3, size=12, replace=False) + 1).tolist() for _ in range(40)]
    data = training_data(catalogue, histories)
    validation = Validation([(queries_of(histories), state_of(data.item_counts), histories)])
    return catalogue, fitted(SOURCES, data, validation)


def counted(items):
    """Return a pack in which item i has i events."""
    pack = pack_of(items)
    events = np.arange(1, items.num_rows + 1, dtype=np.float64)
    return replace(pack, state=pack.state | {"item_events": events})


def shop(models, *sources: str, clicks: list = READ, release_id="r1", **config) -> Recommender:
    recommender = recommender_of(
        models,
        *(sources or SOURCES),
        reader=Clicks(list(clicks)),
        release_id=release_id,
        candidates_per_source=20,
        **config,
    )
    recommender.swap_pack(counted(models[0].items))
    return recommender


@pytest.fixture(scope="module")
def recommender(models) -> Recommender:
    return shop(models)


@pytest.fixture(scope="module")
def reranked(models) -> Recommender:
    return shop(models, rerank={"kind": "mmr", "strength": 0.5, "pool": 25})


def page(recommender: Recommender, *, at: int = AT, **asked):
    request = RecommendRequest(**({"user_id": "u1", "explain": False} | asked))
    return recommender.recommend(request, at=at)


def ids(slate) -> list[str]:
    return [item.item_id for item in slate.items]


def pages(recommender: Recommender, sizes, **asked) -> list:
    """Return consecutive pages of these sizes; stop early where the list ends."""
    out, cursor = [], None
    for k in sizes:
        out.append(page(recommender, k=k, cursor=cursor, **asked))
        cursor = out[-1].next_cursor
        if cursor is None:
            break
    return out


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@pytest.mark.parametrize("which", ["recommender", "reranked"])
@given(sizes=SIZES)
@settings(max_examples=15, deadline=None)
def test_pages_of_any_size_are_parts_of_one_list(request, which, sizes):
    recommender = request.getfixturevalue(which)
    whole = page(recommender, k=sum(sizes))
    parts = pages(recommender, sizes)
    assert [ids(part) for part in parts] == [
        ids(whole)[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))
    ]
    joined = [item for part in parts for item in part.items]
    assert [item.rank for item in joined] == list(range(1, len(joined) + 1))
    assert joined == whole.items
    assert [row for part in parts for row in part.features] == whole.features


@given(k=st.integers(1, 500))
@settings(max_examples=20, deadline=None)
def test_a_short_list_is_the_start_of_a_long_one(reranked, k):
    assert ids(page(reranked, k=k)) == ids(page(reranked, k=500))[:k]


def test_a_page_after_500_items_and_the_end_of_the_list(recommender):
    first = page(recommender, k=500)
    second = page(recommender, k=500, cursor=first.next_cursor)
    everything = ids(first) + ids(second)
    seen = {item for _, item, _ in READ}
    assert len(everything) == ITEMS - len(seen)
    assert set(everything) == set(recommender.catalogue.vocab.ids) - seen
    assert second.next_cursor is None


def test_deep_pages_of_ten_leave_nothing_out(recommender):
    shown = [item for part in pages(recommender, [10] * 60) for item in ids(part)]
    assert len(set(shown)) == len(shown) == 600
    assert shown == ids(page(recommender, k=500)) + shown[500:]


def test_filters_hold_on_every_page_and_the_last_page_may_be_short(recommender):
    asked = {"filters": Filters(categories=["c3"]), "exclude": ["i004", "i011"]}
    parts = pages(recommender, [40, 40, 40], **asked)
    names = recommender.catalogue.category_lists
    allowed = {
        item
        for item, categories in zip(recommender.catalogue.vocab.ids, names[1:], strict=True)
        if "c3" in categories
    } - {"i004", "i011"}
    shown = [item for part in parts for item in ids(part)]
    assert set(shown) == allowed
    assert len(shown) == len(allowed)
    assert parts[-1].next_cursor is None


def test_events_between_pages_change_no_order_and_consumed_items_disappear(models):
    before = shop(models)
    whole = ids(page(before, k=60))
    after = shop(models, clicks=[*READ, ("u1", whole[3], AT + 5), ("u1", whole[12], AT + 6)])
    first = page(before, k=10)
    second = page(after, k=10, cursor=first.next_cursor, at=AT + 1_000)
    third = page(after, k=10, cursor=second.next_cursor, at=AT + 2_000)
    wanted = [item for item in whole[10:] if item != whole[12]]
    assert ids(second) + ids(third) == wanted[:20]
    assert second.at == third.at == AT
    anew = page(after, k=60, at=AT + 2_000)  # a new list reflects the events
    assert ids(anew) != [item for item in whole if item not in (whole[3], whole[12])]


def test_another_worker_continues_the_list(models, recommender):
    other = shop(models)
    first = page(recommender, k=10)
    second = page(other, k=10, cursor=first.next_cursor)
    assert ids(first) + ids(second) == ids(page(recommender, k=20))


@pytest.mark.parametrize(
    ("release_id", "later"), [("r2", 1_000), ("r1", MAX_AGE + 1)], ids=["release", "old"]
)
def test_after_a_new_release_or_an_hour_the_rest_is_ranked_anew(models, release_id, later):
    first = page(shop(models), k=30)
    other = shop(models, "popularity", release_id=release_id)
    second = page(other, k=500, cursor=first.next_cursor, at=AT + later)
    third = page(other, k=500, cursor=second.next_cursor, at=AT + later + 1)
    assert second.at == third.at == AT + later
    now = page(other, k=500, at=AT + later)
    unseen = [item for item in ids(now) if item not in ids(first)]
    assert ids(second)[: len(unseen)] == unseen
    everything = ids(first) + ids(second) + ids(third)
    assert len(everything) == len(set(everything)) == ITEMS - len(READ)
    assert second.release_id == release_id
    assert second.next_cursor is not None
    assert Cursor.decode(second.next_cursor).release_id == release_id


def test_a_catalogue_that_changes_between_pages(models):
    recommender = shop(models)
    whole = ids(page(recommender, k=60))
    first = page(recommender, k=10)
    items = models[0].items
    gone = {whole[2], whole[11]}
    kept = items.filter([item not in gone for item in items[c.ITEM_ID].to_pylist()])
    recommender.swap_pack(counted(with_new(kept, {"item_id": "a-new", "title": "new"})))
    second = page(recommender, k=500, cursor=first.next_cursor)
    third = page(recommender, k=500, cursor=second.next_cursor)
    everything = ids(first) + ids(second) + ids(third)
    assert len(everything) == len(set(everything))
    assert set(everything) == set(whole[:10]) | (
        set(kept[c.ITEM_ID].to_pylist()) - {item for _, item, _ in READ}
    ) | {"a-new"}
    assert whole[11] not in ids(second)


def test_a_visitor_pages_by_recent_items(recommender):
    asked = {"user_id": None, "recent_items": ["i002", "i004"]}
    whole = page(recommender, k=45, **asked)
    shown = [item for part in pages(recommender, [15] * 3, **asked) for item in ids(part)]
    assert shown == ids(whole)


def test_a_list_ends_after_max_shown(models, recommender):
    keys = np.array([item_key(f"other-{i}") for i in range(MAX_SHOWN - 10)], dtype=np.uint64)
    asked = RecommendRequest(user_id="u1").asked
    cursor = Cursor("r1", AT, asked, keys).encode()
    assert page(recommender, k=9, cursor=cursor).next_cursor is not None
    last = page(recommender, k=10, cursor=cursor)
    assert (len(last.items), last.items[0].rank, last.next_cursor) == (10, 991, None)


@given(
    release_id=st.text(st.characters(codec="ascii"), max_size=MAX_RELEASE_ID),
    at=st.integers(-(2**62), 2**62),
    asked=st.binary(min_size=8, max_size=8),
    keys=st.lists(st.integers(0, 2**48 - 1), max_size=MAX_SHOWN),
)
def test_a_cursor_is_bounded_url_safe_and_reads_back(release_id, at, asked, keys):
    text = Cursor(release_id, at, asked, np.array(keys, dtype=np.uint64)).encode()
    assert len(text) <= MAX_LENGTH
    assert set(text) <= set(base64.urlsafe_b64encode(bytes(range(256))).decode()) | set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )
    again = Cursor.decode(text)
    assert (again.release_id, again.at, again.asked) == (release_id, at, asked)
    assert again.shown.tolist() == keys


@given(data=st.data())
def test_a_changed_cursor_is_refused_with_a_sentence(recommender, data):
    cursor = page(recommender, k=3).next_cursor
    assert cursor is not None
    kind = data.draw(st.sampled_from(["replace", "cut", "append", "any"]))
    place = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.characters())
    changed = {
        "replace": cursor[:place] + letter + cursor[place + 1 :],
        "cut": cursor[:place],
        "append": cursor + letter,
        "any": data.draw(st.text(max_size=60)),
    }[kind]
    if changed == cursor:
        return
    with pytest.raises(ValidationError) as refusal:
        RecommendRequest(user_id="u1", cursor=changed)
    (problem,) = refusal.value.errors()
    assert problem["loc"] == ("cursor",)
    assert "send the next_cursor of an answer unchanged" in problem["msg"]


def test_a_cursor_of_another_list_is_refused_and_page_size_may_change(recommender):
    cursor = page(recommender, k=3).next_cursor
    for other in (
        {"user_id": "u2"},
        {"user_id": None, "recent_items": []},
        {"filters": Filters(max_price=3)},
        {"context": {"surface": "home"}},
    ):
        with pytest.raises(ValidationError, match="cursor: belongs to a list with another user_id"):
            RecommendRequest.model_validate({"user_id": "u1", "cursor": cursor} | other)
    assert page(recommender, k=7, cursor=cursor, explain=True).items[0].rank == 4
    with pytest.raises(ValidationError, match="at most"):
        RecommendRequest(user_id="u1", cursor="A" * (MAX_LENGTH + 1))


def test_keys_find_their_items_and_leave_out_unknown_ones():
    keys = ItemKeys(["b", "a", "c"])
    assert keys.find(keys.of(np.array([3, 1]))).tolist() == [3, 1]
    unknown = np.array([item_key("x"), item_key("a")], dtype=np.uint64)
    assert keys.find(unknown).tolist() == [2]
    assert ItemKeys([]).find(unknown).tolist() == []


def test_lists_of_a_batch_are_those_of_single_queries(reranked):
    """The rows need different numbers of tiers: only 12 items are allowed for the second user."""
    rng = np.random.default_rng(5)
    seen = [[2, 4, 6], sorted((rng.permutation(ITEMS)[: ITEMS - 12] + 1).tolist()), []]
    queries = replace(
        queries_of([[2, 4, 6], [3, 9], []]),
        seen=[np.array(items, dtype=np.int64) for items in seen],
        profile=np.zeros((3, 0), dtype=np.int64),
    )
    together = reranked.chain.rank(queries, reranked.items, k=150)
    assert (together.item_idx > 0).sum(1).tolist() == [150, 12, 150]
    for row in range(3):
        alone = reranked.chain.rank(queries.take(slice(row, row + 1)), reranked.items, k=150)
        one = together.row(row)
        for name in ("item_idx", "source", "found_by"):
            np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
        np.testing.assert_allclose(one.score, alone.score, rtol=1e-6)
        np.testing.assert_allclose(one.features, alone.features, rtol=1e-5, atol=1e-6)


RULES = {
    "pin": [
        {"name": "first", "item_id": "i400", "position": 2},
        {"name": "second", "item_id": "i401", "position": 7},
    ],
    "cap": [{"name": "mixed", "by": "categories", "at_most": 3}],
    "boost": [
        {"name": "odd", "where": [{"attribute": "categories", "equals": "odd"}], "places": 3}
    ],
}


def test_pages_under_rules_repeat_nothing_and_pins_count_from_the_first_page(recommender) -> None:
    rules = {key: RULES[key] for key in ("pin", "boost")}
    whole = page(recommender, k=15, rules=rules)
    parts = pages(recommender, [5, 5, 5], rules=rules)
    shown = [item for part in parts for item in part.items]
    assert [item.rank for item in shown] == list(range(1, 16))
    assert len({item.item_id for item in shown}) == 15
    assert (shown[1].item_id, shown[6].item_id) == ("i400", "i401")
    assert shown[1].rules[0] == "first"
    assert shown[6].rules[0] == "second"
    # Boosts are applied to each page separately, so the pages may differ a little from one long
    # list.
    assert len({item.item_id for item in shown} & set(ids(whole))) >= 12


def test_caps_hold_on_each_page_until_the_items_end(recommender) -> None:
    parts = pages(recommender, [6] * 4, rules={"cap": RULES["cap"]})
    assert len({i for part in parts for i in ids(part)}) == 24
    catalogue = recommender.catalogue
    for part in parts:
        names = [catalogue.category_lists[catalogue.vocab.idx(i)][0] for i in ids(part)]
        assert max(names.count("even"), names.count("odd")) <= 3


def test_a_cursor_belongs_to_its_rules(recommender) -> None:
    cursor = page(recommender, k=5, rules={"boost": RULES["boost"]}).next_cursor
    with pytest.raises(ValidationError, match="belongs to a list with another"):
        page(recommender, k=5, cursor=cursor)
