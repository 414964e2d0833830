"""A shop of 40 items with brand, price, date and attributes, and a recommender that prefers small
numbers, for the tests of business rules.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from models.queries import Candidates
from models.recommend.chain import Chain, ChainConfig
from models.recommend.hydrate import empty_rows
from models.recommend.recommender import Recommender
from models.recommend.slate import Slate
from shortlist.behaviour.refusals import Refusals
from shortlist.features.profiles import ProfileEncoder
from shortlist.http.api import RecommendRequest
from shortlist.http.rule_config import RuleSet, RulesInForce
from shortlist.items.catalogue import Catalogue
from tests.models.recommenders import AT, pack_of

NUM = 40
BRANDS = ("acme", "bolt", "core", None)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
NOW = LONG_AGO + timedelta(microseconds=AT)


def item(n: int) -> dict:
    """Item n of 1 to 40. The brand repeats every 4 items; items 36 to 40 are of the last days."""
    return {
        "item_id": f"i{n:02d}",
        "categories": [["a"], ["b"], ["a", "b"], []][n % 4],
        "brand": BRANDS[n % 4],
        "price": None if n == 5 else float(n),
        "published_at": None if n == 6 else NOW - timedelta(days=NUM - n, hours=1),
        "available": n != 7,
        "attributes": [("supplier", "x" if n % 10 == 0 else "y"), ("stock", str(n))][: n % 3],
    }


CATALOGUE = Catalogue.from_items(
    pa.Table.from_pylist(
        [item(n) for n in range(1, NUM + 1)],
        schema=pa.schema(
            [
                ("item_id", pa.string()),
                ("categories", pa.list_(pa.string())),
                ("brand", pa.string()),
                ("price", pa.float64()),
                ("published_at", pa.timestamp("us", tz="UTC")),
                ("available", pa.bool_()),
                ("attributes", pa.map_(pa.string(), pa.string())),
            ]
        ),
    )
)


class FirstItems:
    """A source that finds the 12 allowed items with the smallest numbers, in this order."""

    name = "first"

    def retrieve(self, queries, items, *, k):
        (rows,) = np.nonzero(queries.allowed(0, NUM))
        found = rows[: min(k, 12)][None].astype(np.int64)
        return Candidates(found, -found.astype(np.float32))

    def score(self, queries, items, candidates):
        return -candidates.astype(np.float32)


class Users:
    """A feature reader with one user, who consumed i01 and i02 and refused i03."""

    def read(self, user_ids, context_ids, at):
        rows = empty_rows(user_ids, context_ids, at)
        if user_ids == ["u"]:
            rows.history_items[0] = ["i01", "i02"]
            rows.history_times[0] = at - np.array([2, 1])
            rows.history_values[0] = np.full(2, np.nan)
            rows.history_types[0] = np.ones(2, dtype=np.int64)
            rows.refusals[0] = Refusals(("i03",), (int(at[0]) - 1,))
        return rows


class ByNumber:
    """A ranker that prefers small numbers."""

    def predict(self, x, item_idx, requests=None):
        return -item_idx.astype(np.float32)


def make(*, mmr_strength: float = 0.0, rules: dict | None = None) -> Recommender:
    profiles = ProfileEncoder.fit([])
    return Recommender(
        chain=Chain(
            ChainConfig(
                candidate_sources=("first",),
                score_sources=("first",),
                candidates_per_source=12,
                mmr_strength=mmr_strength,
            ),
            sources={"first": FirstItems()},
            ranker=ByNumber(),
            catalogue=CATALOGUE,
            profiles=profiles,
        ),
        catalogue=CATALOGUE,
        profiles=profiles,
        reader=Users(),
        pack=pack_of(CATALOGUE.items),
        about={},
        rules=RulesInForce(RuleSet.model_validate(rules or {})),
    )


def ask(recommender: Recommender, rules: dict | None = None, *, k: int = 5, user=None, **request):
    who = {"recent_items": []} if user is None else {"user_id": user}
    return recommender.recommend(
        RecommendRequest.model_validate({"k": k, "rules": rules} | who | request), at=AT
    )


def numbers(slate: Slate) -> list[int]:
    """Return the numbers of the shown items."""
    return [int(shown.item_id[1:]) for shown in slate.items]


def where(attribute: str, **operators) -> list[dict]:
    return [{"attribute": attribute, **operators}]
