"""Training and evaluation see prices and availability as of each request."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from flows.featurize import featurize
from flows.runtime.configuration import FeaturesConfig, RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import RunData, fit_profiles, load_run_data
from flows.training.ranking_data import assemble_ranking, gather
from flows.training.windows import read_windows
from models.baselines.popularity import Popularity
from models.recommend.chain import Chain, ChainConfig
from models.recommend.explaining.explain import Wording
from models.recommend.view import View
from shortlist.feature_store import FeatureStoreError, read_pack
from tests.flows.conftest import DAY, START, House, event, item

CONFIG = RunConfig.model_validate(
    {
        "name": "small",
        "data": {"source": "movielens-100k", "clock": "replay"},
        "train": {"sources": [{"kind": "popularity"}], "rankers": []},
    }
)
WINDOWS = ("ranker_train", "validation", "test")
EDGES = (0, 49, 55, 60)
"""Edges of the batches, in events. There is one event per day, and each batch comes with the items
of CHANGES at its last event."""
GONE, DEARER, LATE = 11, 12, 13
CHANGES = (
    [item(i) for i in range(20) if i != LATE],
    [item(GONE, available=False), item(DEARER, price=9.0), item(LATE, price=4.0)],
    [item(GONE, available=True)],
)


def events(first: int, end: int) -> list[dict]:
    """Return one event per day, without events of LATE.

    With an event before its arrival, LATE would count as imported history.
    """
    rows = [event(i, user_id=f"u{i % 7}", item_id=f"i{i % 20}") for i in range(first, end)]
    return [row for row in rows if row["item_id"] != f"i{LATE}"]


def lived(house: House, config: RunConfig = CONFIG) -> tuple[RunData, dict, dict[int, pa.Table]]:
    """Ingest three batches and start a run.

    Returns:
        The run's data, its requests by window, and the items of the lake after each batch by time.
    """
    served = {}
    for first, end, changes in zip(EDGES, EDGES[1:], CHANGES, strict=False):
        house.validate(events(first, end), [{"available": True} | one for one in changes])
        served[START + (end - 1) * DAY if served else 0] = house.lake.items()
    until = CONFIG.clock(house.settings).now()
    featurize(house.settings, CONFIG.data.target_events, until=until)
    run = Run.start(house.settings, config)
    run_data = load_run_data(house.settings, run)
    ticks, _ = read_windows(house.settings, run_data, config, windows=WINDOWS)
    return run_data, ticks, served


def test_a_request_sees_the_catalogue_that_the_service_served_then(house: House) -> None:
    run_data, ticks, served = lived(house)
    encode = run_data.catalogue.vocab.encode
    (gone, dearer, late) = encode([f"i{i}" for i in (GONE, DEARER, LATE)])
    chain = popular(run_data)
    pack = read_pack(house.settings, run_data.windows["test"][1])
    seen: dict[int, int] = {}
    for tick in [tick for window in WINDOWS for tick in ticks[window]]:
        at = tick.queries.at
        moments = [since for since in served if since <= at.min()]
        assert moments == [since for since in served if since <= at.max()], "one catalogue a batch"
        then = View.build(
            chain,
            replace(pack, items=served[moments[-1]]),
            trained_on=run_data.catalogue,
            item_knn=None,
            wording=Wording(),
        ).catalogue
        mine = tick.over(chain).catalogue
        np.testing.assert_array_equal(mine.available, then.available)
        np.testing.assert_array_equal(
            mine.log_price[mine.available], then.log_price[then.available]
        )
        np.testing.assert_array_equal(tick.queries.blocked, ~then.available)
        seen[moments[-1]] = seen.get(moments[-1], 0) + len(at)
        for wanted in [*tick.relevant, *tick.next_set]:
            assert then.available[wanted].all()
        # No source retrieves items that were unavailable, and ranking rows have the prices as of
        # the request.
        gathered = gather(chain, [tick])
        shortlist = gathered[0].shortlist.item_idx
        assert not np.isin(shortlist, np.flatnonzero(~then.available)[1:]).any()
        rows = assemble_ranking(chain, [tick], gathered).data
        price = rows.x[:, chain.schema.names.index("price_log")]
        np.testing.assert_array_equal(price, mine.log_price[rows.item_idx])
        if moments[-1] > 0:
            assert mine.log_price[dearer] == np.float32(np.log1p(9.0))
        else:
            assert not mine.available[late]
            assert np.isnan(mine.log_price[late])
        assert mine.available[gone] == (moments[-1] != START + 54 * DAY)
    assert len(seen) == 3, seen
    assert min(seen.values()) > 0


def popular(run_data: RunData) -> Chain:
    config = ChainConfig(candidate_sources=("popularity",), score_sources=("popularity",))
    return Chain(
        config,
        sources={"popularity": Popularity("popularity", days=None)},
        ranker=None,
        catalogue=run_data.catalogue,
        profiles=fit_profiles(run_data, end=run_data.windows["retrieval_train"][1]),
    )


def test_the_tick_is_an_hour_on_the_wall_clock_and_of_what_the_features_were_built(
    house: House,
) -> None:
    """The default tick depends on the clock; a run's tick must equal that of the built features."""
    wall = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"clock": "wall"})})
    assert (CONFIG.tick, wall.tick) == (DAY, DAY // 24)
    six = CONFIG.model_copy(update={"features": FeaturesConfig(tick="6h")})
    with pytest.raises(ValueError, match="want a length that divides a day"):
        FeaturesConfig(tick="7h")
    with pytest.raises(FeatureStoreError, match=r"86400 s, the run's .* tick is 21600 s"):
        lived(house, config=six)
    until = CONFIG.clock(house.settings).now()
    featurize(house.settings, CONFIG.data.target_events, until=until, tick=six.tick)
    run = Run.start(house.settings, six)
    run_data = load_run_data(house.settings, run)
    ticks, _ = read_windows(house.settings, run_data, six, windows=WINDOWS)
    for tick in [tick for window in WINDOWS for tick in ticks[window]]:
        assert (tick.queries.at // six.tick * six.tick == tick.items.as_of).all()
