"""Skew: recompute what the service served from the lake, and say which feature differs.

The lake's events, and posted ones that are not in it yet, are built into states of their own under
`skew/`, apart from what serves; every logged feature vector is computed again, each view at its
logged as_of, and compared value by value. How old the views were is reported apart.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
from prefect import flow

from flows.featurize import quietly
from flows.skew_compare import compare
from flows.skew_states import Logged
from flows.skew_verdict import Limits, SkewFailed, judge
from models.ranking.schema import RankingSchema
from shortlist import columns as c
from shortlist.api import ANONYMOUS
from shortlist.catalogue import Catalogue
from shortlist.config import Settings
from shortlist.datasets.service_log import load_posted_events, read_lines
from shortlist.feature_store import (
    OfflineReader,
    apply,
    build_states,
    published_items,
    read_pack_history,
)
from shortlist.feature_store.packs import tick_of
from shortlist.feature_store.snapshots import Snapshots
from shortlist.lake import Lake
from shortlist.plain_json import write_json
from shortlist.profiles import ProfileEncoder
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
        max_requests: newest responses to take.
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
    release = ReleaseStore(settings.releases).open()
    logged, left_out = read_log(
        settings,
        release_id=release.release_id,
        limit=max_requests,
        tick=tick_of(settings.features),
    )
    if not logged:
        raise SkewError(
            f"{settings.serving_log}: nothing of release {release.release_id} that can be compared"
            f" ({left_out}); send it traffic with `shortlist replay` or `shortlist serve`"
        )
    about = release.about
    mirror = recompute(
        settings,
        tuple(about["target_events"]),
        until=max(response.at for response in logged) + 1,
    )
    ticks = sorted({response.pack_as_of for response in logged})
    found = compare(
        logged,
        schema=RankingSchema.from_json(about["ranking_schema"]),
        catalogue=Catalogue.load(release.path / "items.parquet"),
        profiles=ProfileEncoder.from_json(json.loads((release.path / "profiles.json").read_text())),
        reader=OfflineReader(mirror),
        snapshots=mirror.features,
        packs=read_pack_history(mirror, ticks),
        published=published_items(settings.packs, {response.pack_id for response in logged}),
    )
    shutil.rmtree(mirror.home, ignore_errors=True)
    report: dict[str, Any] = {"release_id": release.release_id, "left_out": left_out}
    report |= judge(found, limits)
    path = settings.reports / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    for reason in report["reasons"]:
        print(f"skew: {reason}")
    print(
        f"skew: {report['vectors']:,} vectors of {report['requests']:,} responses,"
        f" {report['exact_share']:.2%} exact; {'passed' if report['passed'] else 'FAILED'} ({path})"
    )
    return report


def read_log(
    settings: Settings, *, release_id: str, limit: int, tick: int
) -> tuple[list[Logged], dict[str, int]]:
    """The newest responses of a release that can be recomputed, and how many cannot, by reason.

    Args:
        tick: of the item states, microseconds.
    """
    reasons = (
        *("another release", "visitor", "without features", "no items", "no as_of by view"),
        "another tick",
    )
    left_out: dict[str, int] = dict.fromkeys(reasons, 0)
    logged = []
    for _, _, entry in read_lines(settings.serving_log):
        if entry["release_id"] != release_id:
            left_out["another release"] += 1
        elif entry["user_id"] == ANONYMOUS:  # recent_items of the request are not in the log
            left_out["visitor"] += 1
        elif "features" in entry["skipped_stages"]:
            left_out["without features"] += 1
        elif not entry["items"]:
            left_out["no items"] += 1
        elif "as_of" not in entry:  # a line of before the log had it
            left_out["no as_of by view"] += 1
        elif pack_as_of(entry) % tick:  # of before the grid was made coarser
            left_out["another tick"] += 1
        else:
            logged.append(
                Logged(
                    request_id=entry["request_id"],
                    user_id=entry["user_id"],
                    context_id=entry["context_id"],
                    at=entry["event_timestamp"],
                    clock=entry["clock"],
                    as_of={view: time or 0 for view, time in entry["as_of"].items()},
                    pack_id=entry["pack_id"],
                    pack_as_of=pack_as_of(entry),
                    item_ids=[item["item_id"] for item in entry["items"]],
                    features=np.array(
                        [item["features"] for item in entry["items"]], dtype=np.float32
                    ),
                )
            )
    logged.sort(key=lambda response: response.at)
    return logged[-limit:], left_out


def pack_as_of(entry: dict[str, Any]) -> int:
    """The tick of a logged response's item features, microseconds."""
    return int(entry["pack_id"].split("-")[0]) * 1_000_000


def recompute(settings: Settings, target_events: tuple[str, ...], *, until: int) -> Settings:
    """States of the lake up to the last featurize and of what was posted, in a home of their own.

    Raises:
        SkewError: nothing was featurized yet.
    """
    snapshots = Snapshots.read(settings.features)
    if snapshots is None:
        raise SkewError(f"{settings.features}: no feature snapshots; run `shortlist featurize`")
    mirror = settings.model_copy(update={"home": settings.home / "skew", "online_store": "sqlite"})
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
        anew=True,
        profiles=settings.features,
    )
    quietly(apply, mirror)
    return mirror


def _events_until(
    files: Sequence[Path], settings: Settings, target: Path, *, until: int
) -> list[Path]:
    """The lake's events before `until`, and posted ones that are not among them."""
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
            f"SELECT * FROM posted ANTI JOIN '{_quoted(target)}' USING ({c.EVENT_ID})"
        ).to_arrow_table()
        pq.write_table(kept.cast(posted.schema), new)
    return [target, new]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
