"""Off-policy evaluation of a run: what its chain would have got on lists that users were shown.

The serving log of the test window has lists with random positions, if exploration was on. The
backtest's chains, fitted on everything before this window, rank the same requests again.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from flows.runtime.runs import Run
from flows.training.assemble import RunData
from flows.training.windows import read_windows
from models.queries import pad_lists
from models.recommend.chain import Chain
from monitoring.off_policy.compare import CHALLENGER, compare_off_policy
from monitoring.off_policy.served import Served, delays_of, served_lists
from monitoring.off_policy.support import problem_of_log
from monitoring.traffic.join import join_outcomes
from shortlist import columns as c
from shortlist.behaviour.counting import SHOWN
from shortlist.config import Settings
from shortlist.datasets.service.traffic_log import load_traffic_log
from shortlist.splits import Requests

MAX_LISTS = 10_000
"""Maximum number of logged lists that are ranked again."""


def off_policy(
    settings: Settings, run: Run, run_data: RunData, chains: dict[str, Chain]
) -> dict[str, Any]:
    """Estimate what each chain would have got in the test window.

    Args:
        chains: "challenger" and, if it was fitted, "champion"; for the test window. They have the
            same encoder of user attributes.

    Returns:
        The document of `compare_off_policy`, with `window`: start and end in microseconds.
    """
    config = run.config
    k = config.evaluate.list_size
    served = lists_of_window(settings, run, run_data, k=k)
    rng = np.random.default_rng([config.seed, *b"off_policy"])
    served = served.sample(MAX_LISTS, rng=rng)
    wanted: dict[str, np.ndarray] = {}
    if problem_of_log(served) is None:
        print(f"evaluate: {len(served.logged):,} explored lists, judged off-policy")
        wanted = wanted_lists(settings, run, run_data, served, chains, k=k)
    num_items = run_data.catalogue.num_items
    result = compare_off_policy(served, wanted, num_items=num_items, seed=config.seed)
    print(f"evaluate: off-policy: {result['refused'] or 'estimated'}")
    return {"window": list(run_data.windows["test"])} | result


def lists_of_window(settings: Settings, run: Run, run_data: RunData, *, k: int) -> Served:
    """Join the serving log of the test window with the events of the run's snapshot."""
    start, end = run_data.windows["test"]
    requests, shown = load_traffic_log(settings.serving_log, since=start)
    if requests.num_rows == 0:
        return Served.nothing(k=k)
    events = run.lake(settings).interactions(since=start)
    # Leave out impressions of the service, because served lists are read from the serving log.
    events = events.filter(pc.not_equal(events.column(c.SOURCE), SHOWN))
    traffic = join_outcomes(
        requests,
        shown,
        events,
        catalogue=run_data.catalogue,
        item_counts=np.zeros(run_data.catalogue.num_items + 1),
        target_events=tuple(run.config.data.target_events),
        until=run.data_end,
        delays=delays_of(start, end),
        list_size=k,
    )
    return served_lists(traffic, start=start, end=end, k=k)


def wanted_lists(
    settings: Settings,
    run: Run,
    run_data: RunData,
    served: Served,
    chains: dict[str, Chain],
    *,
    k: int,
) -> dict[str, np.ndarray]:
    """Rank the logged requests with each chain; return {name: (R, k) item_idx}."""
    rows = served.requests
    requests = Requests(
        rows[c.USER_ID].tolist(),
        rows["at"].to_numpy(),
        [[] for _ in range(len(rows))],
        [[] for _ in range(len(rows))],
        list(zip(rows[c.SURFACE], rows[c.DEVICE], strict=True)),
    )
    data = replace(run_data, reads_outcomes=False).with_requests("test", run.config, requests)
    profiles = chains[CHALLENGER].profiles
    windows, _ = read_windows(
        run.states(settings), data, run.config, windows=("test",), profiles=profiles
    )
    row_of = {key: row for row, key in enumerate(zip(rows[c.USER_ID], rows["at"], strict=True))}
    wanted = {name: np.zeros((len(rows), k), dtype=np.int64) for name in chains}
    for tick in windows["test"]:
        keys = zip(tick.queries.user_ids, tick.queries.at.tolist(), strict=True)
        places = [row_of[key] for key in keys]
        for name, chain in chains.items():
            ranked = tick.over(chain).rank(tick.queries, tick.items, k=k)
            wanted[name][places] = pad_lists(ranked.item_idx, k)
    return wanted
