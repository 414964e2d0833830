"""Freezes the inputs of a run: lake version, windows, catalogue and feature states."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from flows.featurize import quietly
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.feature_store import current_pack_id
from shortlist.feature_store.states.frozen import freeze_states
from shortlist.features.pack import PackError
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake
from shortlist.lake.leases import lease_holders, take_lease
from shortlist.splits import split_windows

if TYPE_CHECKING:
    from flows.runtime.runs import Run

STATES = "states"


def freeze_inputs(run: "Run", settings: Settings) -> None:
    """Do the work of `Run.freeze` for a run that isn't frozen yet."""
    config, base = run.config, run.base(settings)
    with home_lock(settings, "refresh", what="start of a run", wait_seconds=REFRESH_WAIT):
        lake = Lake(settings.lake)
        manifest = lake.manifest
        events = lake.interactions(event_types=config.data.target_events)
        times = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
        if base is None:
            windows = split_windows(times, config.split.fractions)
            catalogue = Catalogue.from_items(lake.items())
        else:
            windows = base.windows(times)
            catalogue = base.catalogue.with_current(lake.items())
        assert manifest.latest is not None, "there are events"
        run.write("windows.json", {"edges": list(windows.edges)} | windows.to_json())
        catalogue.save(run.path / "items.parquet")
        take_lease(settings.lake, run.run_id, version=manifest.version)
        shutil.rmtree(run.path / STATES, ignore_errors=True)  # left by a killed freeze
        quietly(freeze_states, settings, run.path / STATES)
        for path in _without_lease(settings):
            shutil.rmtree(path / STATES)
        content = {
            "version": manifest.version,
            "data_end": manifest.latest + 1,
            "pack_id": _pack_id(settings),
        }
        run.write("lake.json", content)


def _without_lease(settings: Settings) -> list[Path]:
    """Return the folders of runs that have frozen states but no lease.

    Such runs were killed and never resumed.
    """
    leases = lease_holders(settings.lake)
    frozen = [path.parent for path in settings.runs.glob(f"*/{STATES}")]
    return [path for path in frozen if path.name not in leases]


def _pack_id(settings: Settings) -> str | None:
    """Return the id of the published feature pack; None if there is none."""
    try:
        return current_pack_id(settings.packs)
    except PackError:
        return None
