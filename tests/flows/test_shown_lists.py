"""Lists that were shown become training requests of rankers, if there are enough of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from flows.featurize import featurize
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training import ranking_data, shown_lists
from flows.training.assemble import RunData, load_run_data
from flows.training.ranking_data import RankingWindows, fit_rankers, gather, ranker_options
from flows.training.shown_lists import SHOWN
from flows.training.windows import read_windows
from models.baselines.popularity import Popularity
from models.ranking.trees.lambdamart import Lambdamart
from models.recommend.chain import Chain, ChainConfig
from tests.flows.conftest import DAY, START, House, event, item

MINUTE = 60_000_000
ITEMS, DAYS, SLATE = 20, 60, 4
CONFIG = RunConfig.model_validate(
    {
        "name": "small",
        "data": {"source": "movielens-100k", "clock": "replay"},
        "split": {"fractions": [0.4, 0.3, 0.2, 0.1]},
        "train": {
            "sources": [{"kind": "popularity"}],
            "rankers": [{"kind": "lambdamart", "num_rounds": 5, "labels": "shown"}],
        },
    }
)


def shown(day: int) -> list[str]:
    return [f"i{(3 * day + place) % ITEMS}" for place in range(SLATE)]


def log(days: Sequence[int]) -> list[dict]:
    """Return a list each day, of which the user chooses the second item a minute later."""
    rows = []
    for day in days:
        at, user, page = START + day * DAY, f"u{day % 7}", f"r{day}"
        of_page = {"user_id": user, "request_id": page}
        rows += [
            event(day, **of_page, event_id=f"s{day}-{place}", item_id=item_id)
            | {"event_type": "impression", "event_timestamp": at, "position": place + 1}
            | {"value": 0.5 / (place + 1)}
            for place, item_id in enumerate(shown(day))
        ]
        chosen = event(day, **of_page, item_id=shown(day)[1], event_timestamp=at + MINUTE)
        rows.append(chosen | {"position": 2})
    return rows


def prepared(house: House) -> tuple[RunData, dict, Chain]:
    house.validate(log(range(DAYS)), [item(i, available=True) for i in range(ITEMS)])
    until = CONFIG.clock(house.settings).now()
    featurize(house.settings, CONFIG.data.target_events, until=until)
    run_data = load_run_data(house.settings, Run.start(house.settings, CONFIG))
    ticks, profiles = read_windows(
        house.settings,
        run_data,
        CONFIG,
        windows=("ranker_train", "validation"),
        rankers=CONFIG.rankers,
    )
    names = ("popularity",)
    chain = Chain(
        ChainConfig(candidate_sources=names, score_sources=names, candidates_per_source=5),
        sources={"popularity": Popularity("popularity", days=None)},
        ranker=None,
        catalogue=run_data.catalogue,
        profiles=profiles,
    )
    return run_data, ticks, chain


def test_rows_are_the_shown_items_with_position_propensity_and_choice(house, monkeypatch):
    for module in (shown_lists, ranking_data):
        monkeypatch.setattr(module, "MIN_CHOSEN", 5)
    run_data, ticks, chain = prepared(house)
    gathered = {window: gather(chain, ticks[window]) for window in ticks}
    window = RankingWindows.of(chain, ticks, gathered)
    assert window.shown is not None
    data, ids = window.shown.data, run_data.catalogue.vocab.ids
    assert data.position is not None
    assert data.propensity is not None
    start, end = run_data.windows["ranker_train"]
    lists = [day for day in range(DAYS) if start <= START + day * DAY < end]
    assert len(data) == len(lists)
    queries = [tick.queries for tick in ticks[SHOWN]]
    at = np.concatenate([q.at for q in queries])
    seen = [items for q in queries for items in q.seen]
    ends = np.cumsum(data.group)
    for row, last in enumerate(ends):
        part = slice(last - data.group[row], last)
        items = [ids[i - 1] for i in data.item_idx[part]]
        every = shown((int(at[row]) - START) // DAY)
        had = {ids[i - 1] for i in seen[row] if i > 0}
        assert set(items) == set(every) - had
        assert data.position[part].tolist() == [every.index(one) + 1 for one in items]
        np.testing.assert_allclose(data.propensity[part], 0.5 / data.position[part])
        chosen = {one for one, label in zip(items, data.label[part], strict=True) if label}
        in_time = at[row] + MINUTE < end  # choices in the next window aren't known yet
        assert chosen == ({every[1]} - had if in_time else set())
    # Other windows still have the sources' candidates as rows.
    assert window.train.data.position is None
    rankers = fit_rankers(CONFIG.rankers, window, ranker_options(CONFIG))
    assert isinstance(rankers["lambdamart"], Lambdamart)


def test_with_few_lists_rankers_learn_from_candidates(house, capsys):
    _, ticks, chain = prepared(house)
    assert SHOWN not in ticks
    assert "want 200: rankers learn from the sources' candidates" in capsys.readouterr().out
    window = RankingWindows.of(chain, ticks, {name: gather(chain, ticks[name]) for name in ticks})
    (config,) = CONFIG.rankers
    assert window.of_ranker(config) is window.train.data


@pytest.mark.parametrize("most", [1, 2])
def test_lists_of_a_user_are_limited(house, monkeypatch, most):
    monkeypatch.setattr(shown_lists, "MIN_CHOSEN", 1)
    house.validate(log(range(DAYS)), [item(i, available=True) for i in range(ITEMS)])
    featurize(house.settings, CONFIG.data.target_events, until=START + DAYS * DAY)
    run_data = load_run_data(house.settings, Run.start(house.settings, CONFIG))
    split = CONFIG.split.model_copy(update={"max_requests_per_user": most})
    config = CONFIG.model_copy(update={"split": split})
    found = shown_lists.read_shown(run_data, config, "ranker_train")
    assert found is not None
    _, counts = np.unique(found.requests.user_ids, return_counts=True)
    assert counts.max() == most
    assert (np.diff(found.requests.at) >= 0).all()
