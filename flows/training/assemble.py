"""Assembles training data and evaluation requests from the lake and Feast, without Prefect.

The lake stores validated events, items and users; Feast stores the feature states.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from models.content.reviews import Reviews
from models.data import TrainingData, Validation
from models.queries import Candidates, Queries
from models.recommend.chain import Chain
from models.recommend.queries import build_queries
from models.recommend.rules import blocked_items
from models.recommend.search import with_search
from models.search.pairs import SearchPairs
from models.user_log import UserLog
from shortlist import columns as c
from shortlist.behaviour.counting import POSTED, known_at
from shortlist.behaviour.value import EVENT_TYPES as OUTCOME_TYPES
from shortlist.behaviour.value import Reactions
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, event_codes, microseconds
from shortlist.feature_store import FeatureReader
from shortlist.features.finalize import context_id
from shortlist.features.pack import FeaturePack, ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue
from shortlist.items.catalogue_history import COLUMNS, CatalogueHistory
from shortlist.lake import Lake
from shortlist.lake.snapshot import LakeError
from shortlist.splits import HORIZON, Requests, Windows, draw_requests
from shortlist.ticks import newest_tick

BATCH = 256
"""Number of requests ranked together; it limits the memory of the (B, C, F) float32 features."""


@dataclass(frozen=True)
class RunData:
    """The frozen data of one run: target events, catalogue, users and the four windows.

    Target events are those of the types that models learn from. Shape: E target events.
    """

    interactions: pa.Table  # target events, sorted by time
    asked: np.ndarray  # (E,) int64 microseconds, time of the page request that led to each event
    users: pa.Table
    catalogue: Catalogue
    windows: Windows
    versions: pa.Table | None = None
    """Item versions, columns `catalogue_history.COLUMNS`; None: the catalogue never changed."""
    repeat_after: int | None = None
    """Microseconds after which an item may be recommended again; None: never."""
    lake: Lake | None = None
    """The lake at the run's snapshot, for `reviews`; None: there are none."""
    reads_outcomes: bool = False
    """Whether requests have outcomes (shortlist/behaviour/value.py): something reads them."""
    drawn: dict[tuple[str, int, int], Requests] = field(default_factory=dict)
    """Cache of `draw_window`: (window, seed, maximum requests per user) -> requests."""

    @cached_property
    def catalogues(self) -> CatalogueHistory:
        """The catalogue as of any time."""
        first_event = np.full(self.catalogue.num_items + 1, np.iinfo(np.int64).max)
        item_ids = self.interactions.column(c.ITEM_ID).to_pylist()
        np.minimum.at(first_event, self.catalogue.vocab.encode(item_ids), self.time)
        return CatalogueHistory(self.catalogue, self.versions, first_event=first_event)

    @cached_property
    def time(self) -> np.ndarray:
        """(E,) int64 microseconds, time of each target event."""
        return microseconds(self.interactions.column(c.EVENT_TIMESTAMP)).to_numpy()

    @cached_property
    def reviews(self) -> pa.Table | None:
        """Events of type `review` with a text, sorted by time; None if there are none."""
        try:
            events = self.lake.interactions(event_types=["review"]) if self.lake else None
        except LakeError:  # no review in the lake
            events = None
        if events is None:
            return None
        kept = pc.and_(events.column(c.TEXT).is_valid(), events.column(c.ITEM_ID).is_valid())
        columns = [c.ITEM_ID, c.EVENT_TIMESTAMP, c.INGESTED_AT, c.SOURCE, c.TEXT]
        return events.select(columns).filter(kept)

    def reactions(self, window: str) -> Reactions:
        """Read the events of a window from which the outcomes are read."""
        assert self.lake is not None, "a run that reads outcomes has a lake"
        since, until = self.windows[window]
        try:
            events = self.lake.interactions(since=since, until=until, event_types=OUTCOME_TYPES)
        except LakeError:  # no such event in the window
            events = INTERACTIONS.empty_table()
        users = events.column(c.USER_ID).to_numpy().astype(str)
        order = np.argsort(users, kind="stable")  # events are sorted by time
        return Reactions(
            users=users[order],
            item_idx=self.catalogue.vocab.encode(events.column(c.ITEM_ID).to_pylist())[order],
            event_type=events.column(c.EVENT_TYPE).to_numpy().astype(str)[order],
            time=microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()[order],
            value=events.column(c.VALUE).to_numpy().astype(np.float64)[order],
        )

    @cached_property
    def searches(self) -> pa.Table | None:
        """Searches with the target events that followed them; see shortlist/lake/searches.py."""
        return None if self.lake is None else self.lake.chosen_after_search(self.interactions)

    def with_requests(self, window: str, config: RunConfig, requests: Requests) -> "RunData":
        """Return the data with other requests in a window than those that `draw_window` draws."""
        return replace(self, drawn={_drawn_by(window, config): requests})

    def before(self, end: int) -> pa.Table:
        """Return the target events strictly before `end` (microseconds)."""
        return self.interactions.slice(0, int(np.searchsorted(self.time, end)))

    @cached_property
    def attributes(self) -> dict[str, dict[str, str]]:
        """user_id -> attributes."""
        ids = self.users.column(c.USER_ID).to_pylist()
        rows = self.users.column(c.ATTRIBUTES).to_pylist()
        return {user_id: dict(row or []) for user_id, row in zip(ids, rows, strict=True)}


def load_run_data(settings: Settings, run: Run) -> RunData:
    """Load the data that a run froze. Raises LakeError if its snapshot was removed."""
    lake = run.lake(settings)
    interactions = lake.interactions(event_types=run.config.data.target_events)
    return RunData(
        interactions=interactions,
        asked=lake.asked_at(interactions),
        users=lake.users(),
        catalogue=run.catalogue,
        windows=run.windows,
        versions=lake.item_versions(COLUMNS),
        repeat_after=run.config.data.repeat_after,
        lake=lake,
        reads_outcomes=bool(run.config.value),
    )


def reviews_before(run_data: RunData, end: int) -> Reviews | None:
    """Return the reviews that were written and known before `end` (microseconds)."""
    if run_data.reviews is None:
        return None
    time = microseconds(run_data.reviews.column(c.EVENT_TIMESTAMP)).to_numpy()
    table = run_data.reviews.filter(pa.array((time < end) & (_known(run_data.reviews) < end)))
    return Reviews(
        item_idx=run_data.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist()),
        texts=table.column(c.TEXT).to_pylist(),
    )


def searches_before(run_data: RunData, end: int) -> SearchPairs | None:
    """Return the searches whose chosen item was known before `end` (microseconds)."""
    table = run_data.searches
    if table is None:
        return None
    time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
    table = table.filter(pa.array((time < end) & (_known(table) < end)))
    return SearchPairs(
        queries=table.column(c.QUERY).to_pylist(),
        item_idx=run_data.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist()),
    )


def _known(table: pa.Table) -> np.ndarray:
    """Return the time at which each event became known, in microseconds."""
    time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
    arrived = microseconds(table.column(c.INGESTED_AT)).to_numpy()
    source = table.column(c.SOURCE).fill_null("")
    posted = np.any([pc.starts_with(source, prefix).to_numpy() for prefix in POSTED], axis=0)
    return known_at(time, arrived, posted=posted)


def fit_profiles(run_data: RunData, *, end: int) -> ProfileEncoder:
    """Fit the profile encoder, which converts user attributes, surfaces and devices to codes.

    Args:
        end: microseconds; only users with target events before it count, and only these events.
    """
    events = run_data.before(end)
    active = sorted(set(events.column(c.USER_ID).to_pylist()))
    pairs = events.select([c.SURFACE, c.DEVICE]).group_by([c.SURFACE, c.DEVICE])
    counted = pairs.aggregate([([], "count_all")]).to_pylist()
    return ProfileEncoder.fit(
        (run_data.attributes.get(user_id, {}) for user_id in active),
        places={(row[c.SURFACE], row[c.DEVICE]): row["count_all"] for row in counted},
    )


def training_data(run_data: RunData, profiles: ProfileEncoder, *, end: int) -> TrainingData:
    """Return the sources' training data: all target events before `end` (microseconds), and the
    users' histories made of these events.
    """
    table = run_data.before(end)
    time = run_data.time[: table.num_rows]
    user_names, user = np.unique(table.column(c.USER_ID).to_numpy(), return_inverse=True)
    user_ids = [str(name) for name in user_names]
    log = UserLog.build(
        user,
        num_users=len(user_ids),
        num_items=run_data.catalogue.num_items,
        item_idx=_item_numbers(run_data.catalogue, table.column(c.ITEM_ID)),
        time=time,
        known=_known(table),
        value=table.column(c.VALUE).to_numpy().astype(np.float64),
        type_code=event_codes(table.column(c.EVENT_TYPE)),
        repeat_after=run_data.repeat_after,
    )
    return TrainingData.from_log(
        log,
        catalogue=run_data.catalogue,
        user_ids=user_ids,
        profile=profiles.encode(run_data.attributes.get(user_id, {}) for user_id in user_ids),
        profile_cardinalities=profiles.cardinalities,
        read_reviews=lambda: reviews_before(run_data, end),
        read_searches=lambda: searches_before(run_data, end),
    )


def _item_numbers(catalogue: Catalogue, item_ids: pa.ChunkedArray) -> np.ndarray:
    """Return (E,) item_idx of events; 0 if the event has no item.

    Each item that the catalogue lacks gets a separate number above `num_items`.
    """
    item_idx = catalogue.vocab.encode(item_ids.to_pylist())
    missing = np.flatnonzero((item_idx == 0) & item_ids.is_valid().to_numpy())
    _, number = np.unique(item_ids.take(pa.array(missing)).to_numpy(), return_inverse=True)
    item_idx[missing] = catalogue.num_items + 1 + number
    return item_idx


@dataclass(frozen=True)
class EvaluationBatch:
    """A batch of evaluation requests, and the relevant items of each.

    All requests have the same item features and the same catalogue. A tick is a time at which item
    features change.
    """

    queries: Queries
    items: ItemState
    relevant: list[np.ndarray]  # item_idx of the user's new, available items of the next 24 h
    next_set: list[np.ndarray]  # item_idx of those that the user chose on the requested page
    context_ids: list[str]
    outcomes: list[tuple[np.ndarray, np.ndarray]] | None = None
    """What each user did within 24 h: item_idx (M,) and amounts (M, S); None without `[value]`."""
    catalogues: CatalogueHistory | None = None
    """The catalogue as of any time; None: the catalogue of the models is used."""
    moment: int = 0
    """Microseconds; time as of which `catalogues` is read (`CatalogueHistory.as_of`)."""
    shown: Candidates | None = None
    """The lists that the requests were answered with (`shown_lists.py`); None: none are known."""

    def over(self, models: Chain) -> Chain:
        """Return the chain with the catalogue that a service would have had for these requests."""
        if self.catalogues is None:
            return models
        return models.live(self.catalogues.as_of(self.moment), models.new)


def judged_requests(
    run_data: RunData,
    window: str,
    *,
    profiles: ProfileEncoder,
    reader: FeatureReader,
    packs: dict[int, FeaturePack],
    config: RunConfig,
    searched: Sequence[str] | None = None,
    requests: Requests | None = None,
    shown: Candidates | None = None,
) -> list[EvaluationBatch]:
    """Draw the requests of a window and read their features and catalogue as of each request.

    Returns batches; all requests of a batch have the same item features and catalogue. Unavailable
    items are excluded from the lists, so they don't count as relevant.

    Args:
        window: name of the window.
        reader: reads states as of any time.
        packs: tick in microseconds -> item features as of it.
        searched: text of the search that each request answers; None: requests are no searches.
        requests: requests of the window; None: they are drawn.
        shown: lists that were shown for `requests`.
    """
    requests = draw_window(run_data, window, config) if requests is None else requests
    contexts = [
        context_id(surface=surface, device=device, at=int(at))
        for (surface, device), at in zip(requests.contexts, requests.at, strict=True)
    ]
    read = reader.read(requests.user_ids, contexts, requests.at)
    if searched is not None:  # a search that arrived late is not in the state yet
        read = with_search(read, searched)
    encode = run_data.catalogue.vocab.encode
    outcomes = None
    if run_data.reads_outcomes:
        until = np.minimum(requests.at + HORIZON, run_data.windows[window][1])
        reactions = run_data.reactions(window)
        outcomes = reactions.outcomes(requests.user_ids, requests.at, until=until)
    seen_as_of = np.stack(
        [newest_tick(requests.at, config.tick), run_data.catalogues.moments(requests.at)]
    )
    ticks = []
    for tick, moment in np.unique(seen_as_of, axis=1).T.tolist():
        items = packs[tick].align(run_data.catalogue.vocab)
        blocked = blocked_items(run_data.catalogues.as_of(moment))

        def available(item_ids: list[str], blocked: np.ndarray = blocked) -> np.ndarray:
            item_idx = encode(item_ids)
            return item_idx[~blocked[item_idx]]

        alike = np.flatnonzero((seen_as_of == [[tick], [moment]]).all(axis=0))
        for start in range(0, len(alike), BATCH):
            rows = alike[start : start + BATCH]
            ticks.append(
                EvaluationBatch(
                    queries=build_queries(
                        read.take(rows),
                        catalogue=run_data.catalogue,
                        profiles=profiles,
                        exclude=blocked,
                        repeat_after=run_data.repeat_after,
                    ),
                    items=items,
                    context_ids=[contexts[i] for i in rows],
                    relevant=[available(requests.relevant[i]) for i in rows],
                    next_set=[available(requests.next_set[i]) for i in rows],
                    outcomes=None if outcomes is None else [outcomes[i] for i in rows],
                    catalogues=run_data.catalogues,
                    moment=moment,
                    shown=None
                    if shown is None
                    else Candidates(shown.item_idx[rows], shown.score[rows]),
                )
            )
    return ticks


def draw_window(run_data: RunData, window: str, config: RunConfig) -> Requests:
    """Draw the requests of a window. All steps of a run draw the same ones, by the run's seed."""
    key = _drawn_by(window, config)
    if key not in run_data.drawn:
        run_data.drawn[key] = draw_requests(
            run_data.interactions,
            run_data.windows[window],
            rng=np.random.default_rng([config.seed, *window.encode()]),
            max_per_user=config.split.max_requests_per_user,
            asked=run_data.asked,
            repeat_after=run_data.repeat_after,
        )
    return run_data.drawn[key]


def _drawn_by(window: str, config: RunConfig) -> tuple[str, int, int]:
    """Return the key of `RunData.drawn`: what the drawn requests depend on."""
    return window, config.seed, config.split.max_requests_per_user


def as_validation(ticks: list[EvaluationBatch]) -> Validation:
    return Validation(ticks=[(tick.queries, tick.items, tick.relevant) for tick in ticks])
