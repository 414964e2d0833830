"""Loads the live traffic of a home: the serving log joined with the events that are known now."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.board.judge import Arms
from monitoring.traffic.join import Delays, Traffic, join_outcomes
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.datasets.service.traffic_log import load_traffic_log
from shortlist.experiment import NO_EXPERIMENT, Experiment
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake


def live_traffic(
    settings: Settings,
    events: pa.Table,
    *,
    catalogue: Catalogue,
    target_events: Sequence[str],
    until: int,
    since: int | None = None,
    delays: Delays | None = None,
    list_size: int = 10,
) -> Traffic:
    """Join the serving log of all releases and arms with the known events.

    Args:
        events: contract INTERACTIONS, the lake's and the posted ones, each once.
        catalogue: the release's catalogue; items that came later are added from the lake.
        until: microseconds, the home's now.
        since: microseconds; earlier responses are left out.
    """
    requests, shown = load_traffic_log(settings.serving_log, since=since)
    now = catalogue.with_current(Lake(settings.lake).items())
    first = pc.min(requests.column("at")).as_py() or 0
    times = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
    targets = pa.array(list(target_events))
    before = events.filter(pa.array(times < first))
    before = before.filter(pc.is_in(before.column(c.EVENT_TYPE), value_set=targets))
    counts = np.bincount(
        now.vocab.encode(before.column(c.ITEM_ID).to_pylist()), minlength=now.num_items + 1
    )
    return join_outcomes(
        requests,
        shown,
        events,
        catalogue=now,
        item_counts=counts,
        target_events=tuple(target_events),
        until=until,
        delays=delays,
        list_size=list_size,
    )


def champion_rows(traffic: Traffic, release_id: str, experiment: Experiment | None) -> np.ndarray:
    """Return (R,) bool: the requests by which the serving release is judged.

    These are its requests outside experiments and those of the champion's arm, and all requests
    before its first one, so that there are windows to compare with.
    """
    arms = {NO_EXPERIMENT}
    if experiment is not None:
        arms.add(experiment.config.champion)
    rows = traffic.requests
    mine = rows["release_id"] == release_id
    first = rows["at"][mine].min() if mine.any() else np.inf
    earlier = rows["at"] < first
    return (rows["arm"].isin(list(arms)) & (mine | earlier)).to_numpy()


def arms_of(experiment: Experiment) -> Arms:
    config = experiment.config
    return Arms(
        config.name,
        experiment.started,
        config.champion,
        config.challenger,
        config.shares,
        config.holdout,
    )
