"""Skew: recompute what the service served from the lake, and say which feature differs.

The lake's events, and posted ones that are not in it yet, are built into states of their own under
`skew/`, apart from what serves; every logged feature vector is computed again at its logged pack
and user as_of, and compared value by value. How old a state was is reported apart.
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
from flows.skew_compare import Comparison, Logged, compare
from models.ranking.schema import RankingSchema
from shortlist import columns as c
from shortlist.api import ANONYMOUS
from shortlist.catalogue import Catalogue
from shortlist.config import Settings
from shortlist.datasets.service_log import load_posted_events, read_lines
from shortlist.feature_store import OfflineReader, apply, build_states, read_pack_history
from shortlist.feature_store.snapshots import Snapshots
from shortlist.lake import Lake
from shortlist.plain_json import write_json
from shortlist.profiles import ProfileEncoder
from shortlist.release import ReleaseStore

MAX_DIFFERENT = 0.0
"""Share of vectors in which a feature may differ."""
MAX_STALE = 0.01
"""Share of requests whose user state may be older than the lake's at that moment."""


class SkewError(RuntimeError):
    """There is nothing to compare, or not with this code; the message says what would be right."""


@flow(name="skew", log_prints=True)
def skew_flow(
    max_requests: int = 2_000,
    max_different: float = MAX_DIFFERENT,
    max_stale: float = MAX_STALE,
) -> dict[str, Any]:
    """Compare the newest logged responses with the lake; `passed` says whether they agree.

    Args:
        max_requests: newest responses to take.
        max_different: share of vectors in which a feature may differ.
        max_stale: share of requests whose user state may be behind.

    Raises:
        SkewError: nothing was logged that can be compared.
    """
    return skew(
        Settings(), max_requests=max_requests, max_different=max_different, max_stale=max_stale
    )


def skew(
    settings: Settings, *, max_requests: int, max_different: float, max_stale: float
) -> dict[str, Any]:
    """The flow's work; also written to reports/skew.json."""
    release = ReleaseStore(settings.releases).open()
    logged, left_out = read_log(settings, release_id=release.release_id, limit=max_requests)
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
        packs=read_pack_history(mirror, ticks),
    )
    shutil.rmtree(mirror.home, ignore_errors=True)
    report: dict[str, Any] = {"release_id": release.release_id, "left_out": left_out}
    report |= judge(found, max_different=max_different, max_stale=max_stale)
    path = settings.reports / "skew.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    for reason in report["reasons"]:
        print(f"skew: {reason}")
    print(
        f"skew: {report['vectors']:,} vectors of {report['requests']:,} responses,"
        f" {report['exact_share']:.2%} exact, {report['staleness']['requests']:,} responses stale;"
        f" {'passed' if report['passed'] else 'FAILED'} ({path})"
    )
    return report


def judge(found: Comparison, *, max_different: float, max_stale: float) -> dict[str, Any]:
    """The report with `passed` and the reasons, each naming its feature or view."""
    report = found.report()
    reasons = []
    for name, share in report["different_share"].items():
        if share > max_different:
            worst = report["worst"][name]
            reasons.append(
                f"feature {name} differs in {share:.1%} of the vectors (at most"
                f" {max_different:.1%}): served {worst['served']:.6g}, recomputed"
                f" {worst['recomputed']:.6g} in request {worst['request_id']}"
            )
    stale = report["staleness"]
    if stale["share"] > max_stale:
        reasons.append(
            f"view user_stats is stale in {stale['share']:.1%} of the requests (at most"
            f" {max_stale:.1%}): up to {stale['max_seconds']:,.0f} s behind the lake; are posted"
            " events pushed, and was `shortlist featurize` run?"
        )
    if stale["unreachable"] > max_stale * max(report["requests"], 1):
        reasons.append(
            f"view user_stats says as_of of {stale['unreachable']} requests that no state in the"
            " lake has"
        )
    return report | {"reasons": reasons, "passed": not reasons}


def read_log(
    settings: Settings, *, release_id: str, limit: int
) -> tuple[list[Logged], dict[str, int]]:
    """The newest responses of a release that can be recomputed, and how many cannot, by reason."""
    left_out = {"another release": 0, "visitor": 0, "without features": 0, "no items": 0}
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
        else:
            logged.append(
                Logged(
                    request_id=entry["request_id"],
                    user_id=entry["user_id"],
                    context_id=entry["context_id"],
                    at=entry["event_timestamp"],
                    user_as_of=entry["user_as_of"] or 0,
                    pack_as_of=int(entry["pack_id"].split("-")[0]) * 1_000_000,
                    item_ids=[item["item_id"] for item in entry["items"]],
                    features=np.array(
                        [item["features"] for item in entry["items"]], dtype=np.float32
                    ),
                )
            )
    logged.sort(key=lambda response: response.at)
    return logged[-limit:], left_out


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
