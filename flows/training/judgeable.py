"""Checks, before anything is trained, that the windows of a run have requests to evaluate."""

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import RunData, draw_window
from shortlist.moments import moment_text
from shortlist.splits import SplitError

LEARNED_FROM = ("ranker_train", "validation", "test")
"""Windows from which requests are drawn: to train rankers, to choose the chain and to evaluate."""


def require_judgeable(
    run_data: RunData, config: RunConfig, *, windows: tuple[str, ...] = LEARNED_FROM
) -> None:
    """Raise SplitError if a window has no requests, or none with an available relevant item."""
    available = np.concatenate([[False], run_data.catalogue.available[1:]])
    for window in windows:
        start, end = run_data.windows[window]
        events = int(np.subtract(*np.searchsorted(run_data.time, [end, start])))
        where = (
            f"window '{window}' ({moment_text(start)} to {moment_text(end)}, {events:,} target"
            " events) can't be judged"
        )
        requests = draw_window(run_data, window, config)
        if len(requests) == 0:
            raise SplitError(
                f"{where}: nobody chooses anything new in it. Give it a larger share in [split]"
                ' fractions; or set [data] repeats = "allow" if people come back for the same'
            )
        wanted = [item_id for relevant in requests.relevant for item_id in relevant]
        if not available[run_data.catalogue.vocab.encode(wanted)].any():
            raise SplitError(
                f"{where}: none of the {len(set(wanted)):,} items that people choose in it is in"
                f" the catalogue and available (it has {int(available.sum()):,} such items). Do the"
                " ids of log and catalogue agree?"
            )
