"""A small shop behind the console: two sources, clicks of three users, two releases, a log."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.data import Validation
from services.serving_log import ServingLog, entry_of
from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.http.api import RecommendRequest
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import about, publish
from tests.models.recommenders import AT, Clicks, fitted, recommender_of
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data
from tests.services.console.desk import Desk

ITEMS = 40
SOURCES = ("item_knn", "popularity")
REQUEST_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="session")
def models():
    """40 items, of which each user consumed even or odd ones, and two fitted sources."""
    rng = np.random.default_rng(5)
    catalogue = catalogue_of([["even" if i % 2 else "odd"] for i in range(ITEMS)])
    histories = [
        (rng.permutation(ITEMS // 2)[:9] * 2 + 1 + user % 2).tolist() for user in range(40)
    ]
    data = training_data(catalogue, histories)
    validation = Validation([(queries_of(histories), state_of(data.item_counts), histories)])
    return catalogue, fitted(SOURCES, data, validation)


@pytest.fixture
def desk(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The console's deployment: `first` served before `second`, which serves now."""
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    settings = Settings()
    store = ReleaseStore(settings.releases)
    first = publish(store, about())
    store.promote(first)
    second = publish(store, about(compared_with=first), payload="other weights")
    store.promote(second)
    events = [("u1", f"i{i:03d}", AT - 1_000 + i) for i in (2, 4, 6)]
    events.append(("<u&2>", "i003", AT - 5))
    reader = Clicks(events)
    recommender = recommender_of(models, *SOURCES, reader=reader, release_id=second)
    other = recommender_of(models, "popularity", reader=reader, release_id=first)
    return Desk(
        settings,
        HomeClock(settings, "replay", start=AT),
        recommender,
        others={first: other},
        events=events,
        recent_users=deque(["u1", "<u&2>"]),
    )


@pytest.fixture
def console(desk: Desk) -> Iterator[TestClient]:
    with TestClient(desk.app(), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def logged(desk: Desk) -> str:
    """The id of a request of u1 that is in the serving log."""
    slate = desk.recommender.recommend(RecommendRequest(user_id="u1", k=5), at=AT)
    log = ServingLog(desk.settings.serving_log)
    log.write(
        partial(
            entry_of, slate, request_id=REQUEST_ID, user_id="u1", clock="replay", seconds=0.0123
        )
    )
    log.close()
    return REQUEST_ID
