"""Care: flows for the upkeep of a home: ingest, compaction, garbage collection, monitoring.

A home is the folder SHORTLIST_HOME. The lake stores all validated events, items and users.
"""

from dataclasses import asdict
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State

from flows.forget import erase_pending
from flows.monitor import monitor_flow
from flows.operations import artifacts, lineage
from flows.operations.endings import HELD, REFUSED, ended, hold
from flows.refresh import take_in_source
from flows.releases.collect import collect_garbage, sizes
from flows.releases.retention import RETENTION, RetentionConfig
from flows.runtime.configuration import load_run_config
from flows.runtime.retries import step_options
from shortlist.config import Settings, load_toml
from shortlist.home.home_lock import REFRESH_WAIT, HomeLocked, home_lock
from shortlist.lake import LakeError
from shortlist.lake.compaction import compact_lake
from shortlist.validation import ValidationFailed


@flow(name="take-in", log_prints=True)
def take_in_flow(config: str) -> dict[str, Any] | State[Any]:
    """Ingest and validate new rows of the source; features stay as they are until the next refresh.

    Args:
        config: path of the run's TOML file.

    Raises:
        DatasetError, OSError: the source can't be read.
        ValidationFailed: the batch was refused; the flow run ends as Refused.
    """
    run_config = load_run_config(config)
    what = "shortlist take-in"
    with home_lock(Settings(), "refresh", what=what, wait_seconds=REFRESH_WAIT):
        failed = take_in_source(run_config)
    if isinstance(failed, ValidationFailed):
        return ended(REFUSED, failed)
    if failed is not None:
        raise failed
    return {"source": run_config.data.source}


@flow(name="watch", log_prints=True)
def watch_flow(
    run: str | None = None, guardrails: str | None = None
) -> dict[str, Any] | State[Any]:
    """Report on the served lists; the flow run ends as Held if a guardrail asks to hold.

    Args:
        run: id of a run; empty: that of the release that answered most requests in 24 h.
        guardrails: path of the TOML file with the limits; empty: that of the run's configuration.

    Raises:
        TrafficHeld: the verdict is `hold`; `result` has the figures.
    """
    settings = Settings()
    result = monitor_flow(run, guardrails)
    artifacts.show_guardrails(settings, result)
    if result["verdict"] == "hold":
        lineage.held_traffic(settings, result)
        return ended(HELD, hold(result, result))
    return result


@flow(name="compact", log_prints=True)
def compact_flow() -> dict[str, Any]:
    """Rewrite each partition of the lake as one file; erase people who asked to be forgotten."""
    result = compact_task()
    print(f"compact: {result['files_before']} files are {result['files_after']} now")
    return result


@task(name="compact", **step_options("compact", hours=2, retried=True))
def compact_task() -> dict[str, Any]:
    settings = Settings()
    with home_lock(settings, "refresh", what="shortlist compact", wait_seconds=REFRESH_WAIT):
        result = asdict(compact_lake(settings.lake))
    try:
        erased = erase_pending(settings)
    except (HomeLocked, LakeError) as error:  # the next compaction tries again
        print(f"compact: people who asked to be forgotten stay pending: {error}")
        return result
    if erased["removed"]:
        print(f"compact: removed rows of people who asked to be forgotten: {erased['removed']}")
    if erased["left"]:
        print(f"compact: not everything could be erased: {'; '.join(erased['left'])}")
    return result


@flow(name="gc", log_prints=True)
def gc_flow(retention: str = str(RETENTION), dry_run: bool = False) -> dict[str, Any]:
    """Remove releases, runs, Bentos, logs and reports that the retention rules don't keep.

    Args:
        retention: path of the TOML file with the rules.
        dry_run: remove nothing, and only show what would be removed.
    """
    settings = Settings()
    result = gc_task(retention, dry_run)
    rows = [entry | {"bytes": f"{entry['bytes']:,}"} for entry in result["removed"]]
    artifacts.table(settings, "removed", rows, f"{result['bytes']:,} bytes")
    left = [{"part": name, "bytes": f"{size:,}"} for name, size in sizes(settings).items()]
    artifacts.table(settings, "sizes", left, "Size of each part of the home")
    print(f"gc: {len(result['removed'])} files and folders, {result['bytes']:,} bytes")
    return result


@task(name="gc", **step_options("gc", hours=2))
def gc_task(retention: str, dry_run: bool) -> dict[str, Any]:
    return collect_garbage(Settings(), load_toml(retention, RetentionConfig), dry_run=dry_run)
