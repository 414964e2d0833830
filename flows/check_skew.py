"""Skew: recompute what the service served from the lake, and say which feature differs.

The lake's events, and posted ones that are not in it yet, are built into states of their own under
`skew/`, apart from what serves; every logged feature vector is computed again with the release that
its line names, each view at its logged as_of, and compared value by value. How old the views were
is reported apart.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from prefect import flow

from flows.featurize import quietly
from flows.releases.served_releases import newest_day, response_times
from flows.skew.compare import compare, merged
from flows.skew.serving_log import read_log, releases_of
from flows.skew.verdict import Limits, SkewFailed, judge
from models.ranking.schema import RankingSchema
from shortlist import columns as c
from shortlist.catalogue import Catalogue
from shortlist.config import Settings
from shortlist.datasets.service_log import load_posted_events
from shortlist.feature_store import (
    OfflineReader,
    apply,
    build_states,
    published_items,
    read_pack_history,
)
from shortlist.feature_store.packs import tick_of
from shortlist.feature_store.states.frozen import side_home
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.features.profiles import ProfileEncoder
from shortlist.lake import Lake
from shortlist.plain_json import write_json
from shortlist.release import ReleaseStore

REPORT = "skew.json"


class SkewError(RuntimeError):
    """There is nothing to compare, or not with this code; the message says what would be right."""


@flow(name="skew", log_prints=True)
def skew_flow(
    max_requests: int = 2_000,
    max_different: float = Limits.different,
    max_stale: float = Limits.stale,
    max_days_behind: float = Limits.days_behind,
) -> dict[str, Any]:
    """Compare the newest logged responses with the lake; the run fails if they do not agree.

    Args:
        max_requests: newest responses to take, of each release that answered in the log's last day.
        max_different: share of vectors in which a feature may differ.
        max_stale: share of requests in which a view may be behind the lake.
        max_days_behind: days that item and context states may be behind the newest tick.

    Raises:
        SkewError: nothing was logged that can be compared.
        SkewFailed: a limit was passed; the report is written, and in the error's `report`.
    """
    settings = Settings()
    limits = Limits(different=max_different, stale=max_stale, days_behind=max_days_behind)
    report = skew(settings, limits, max_requests=max_requests)
    if not report["passed"]:
        raise SkewFailed(report, where=str(settings.reports / REPORT))
    return report


def skew(settings: Settings, limits: Limits, *, max_requests: int) -> dict[str, Any]:
    """The flow's work; also written to reports/skew.json. `passed` says whether they agree."""
    recent = newest_day(response_times(settings.serving_log))
    releases, notes = releases_of(recent, ReleaseStore(settings.releases))
    logged, left_out = read_log(
        settings,
        releases=releases.keys(),
        limit=max_requests,
        tick=tick_of(settings.features),
    )
    responses = [response for own in logged.values() for response in own]
    if not responses:
        raise SkewError(
            f"{settings.serving_log}: no response that can be compared"
            f" ({'; '.join(notes) or left_out}); send traffic with `shortlist replay` or"
            " `shortlist serve`"
        )
    mirror = recompute(
        settings,
        tuple(next(iter(releases.values())).about["target_events"]),
        until=max(response.at for response in responses) + 1,
    )
    packs = read_pack_history(mirror, sorted({response.pack_as_of for response in responses}))
    published = published_items(settings.packs, {response.pack_id for response in responses})
    reader = OfflineReader(mirror)
    found = {
        release_id: compare(
            own,
            schema=RankingSchema.from_json(releases[release_id].about["ranking_schema"]),
            catalogue=Catalogue.load(releases[release_id].path / "items.parquet"),
            profiles=ProfileEncoder.from_json(
                json.loads((releases[release_id].path / "profiles.json").read_text())
            ),
            reader=reader,
            snapshots=mirror.features,
            packs=packs,
            published=published,
        )
        for release_id, own in logged.items()
        if own
    }
    shutil.rmtree(mirror.home, ignore_errors=True)
    report: dict[str, Any] = {
        "releases": {release_id: one.requests for release_id, one in found.items()},
        "left_out": left_out,
        "notes": notes,
    }
    report |= judge(merged(list(found.values())), limits)
    path = settings.reports / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    for reason in notes + report["reasons"]:
        print(f"skew: {reason}")
    print(
        f"skew: {report['vectors']:,} vectors of {report['requests']:,} responses,"
        f" {report['exact_share']:.2%} exact; {'passed' if report['passed'] else 'FAILED'} ({path})"
    )
    return report


def recompute(settings: Settings, target_events: tuple[str, ...], *, until: int) -> Settings:
    """States of the lake up to the last featurize and of what was posted, in a home of their own.

    Raises:
        SkewError: nothing was featurized yet.
    """
    snapshots = Snapshots.read(settings.features)
    if snapshots is None:
        raise SkewError(f"{settings.features}: no feature snapshots; run `shortlist featurize`")
    mirror = side_home(settings, settings.home / "skew")
    shutil.rmtree(mirror.home, ignore_errors=True)
    mirror.home.mkdir(parents=True)
    lake = Lake(settings.lake)
    events = _events_until(
        lake.interaction_files(), settings, mirror.home / "events.parquet", until=snapshots.until
    )
    build_states(
        events,
        lake.users(),
        folder=mirror.features,
        target_events=target_events,
        until=until,
        tick=snapshots.tick,
        lists=snapshots.lists,
        anew=True,
        profiles=settings.features,
    )
    quietly(apply, mirror)
    return mirror


def _events_until(
    files: Sequence[Path], settings: Settings, target: Path, *, until: int
) -> list[Path]:
    """The lake's events before `until`, and posted ones that became known later.

    Of those known by `until` a refresh has decided: what the lake doesn't have was refused.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT * FROM read_parquet($files, union_by_name = true)"
            f" WHERE epoch_us(event_timestamp) < {until}) TO '{_quoted(target)}' (FORMAT parquet)",
            {"files": [str(file) for file in files]},
        )
        if not any(settings.events.rglob("*.jsonl")):
            return [target]
        posted = load_posted_events(settings, now=until).interactions
        connection.register("posted", posted)
        new = target.with_name("posted.parquet")
        kept = connection.sql(
            f"SELECT * FROM posted ANTI JOIN '{_quoted(target)}' USING ({c.EVENT_ID}) WHERE"
            f" greatest(epoch_us(event_timestamp) + 1, epoch_us(ingested_at)) > {until}"
        ).to_arrow_table()
        pq.write_table(kept.cast(posted.schema), new)
    return [target, new]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
