"""Skew: recomputes served feature vectors from the lake, and reports the features that differ.

The service logs the feature vector of each shown item. The check builds all states (aggregates per
user, item and context) again in a separate folder. It builds them from the events of the lake and
from posted events that are not in the lake yet (flows/skew/recompute.py).

Each logged vector is recomputed with the release that the log names. For each feature view the log
has an `as_of`: the time of the newest event in the served state. The recomputed state is read as of
that time. Vectors are compared value by value; the age of the views is reported separately.
"""

import json
from typing import Any

from prefect import flow

from flows.releases.served_releases import newest_day, response_times
from flows.skew.compare import Comparison, compare, merged
from flows.skew.recompute import SkewError, recomputed_states
from flows.skew.serving_log import read_log, releases_of
from flows.skew.states import Logged
from flows.skew.verdict import Limits, SkewFailed, judge
from models.ranking.schema import RankingSchema
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, read_pack_history, served_items
from shortlist.feature_store.packs import tick_of
from shortlist.features.profiles import ProfileEncoder
from shortlist.files.plain_json import write_json
from shortlist.items.catalogue import Catalogue
from shortlist.releases.release import Release, ReleaseStore

REPORT = "skew.json"


@flow(name="skew", log_prints=True)
def skew_flow(
    max_requests: int = 2_000,
    max_different: float = Limits.different,
    max_stale: float = Limits.stale,
    max_days_behind: float = Limits.days_behind,
) -> dict[str, Any]:
    """Compare the newest logged responses with the lake. The flow run fails if a limit is exceeded.

    Args:
        max_requests: number of newest responses to compare, for each release that answered in the
            log's last day.
        max_different: share of vectors in which a feature may differ.
        max_stale: share of requests in which a view may be behind the lake.
        max_days_behind: days that item and context states may be behind the newest tick. Ticks are
            the times, an hour or a day apart, at which these states are computed.

    Raises:
        SkewError: no logged response can be compared.
        SkewFailed: a limit was exceeded; its `report` is the report, which is also written.
    """
    settings = Settings()
    limits = Limits(different=max_different, stale=max_stale, days_behind=max_days_behind)
    report = skew(settings, limits, max_requests=max_requests)
    if not report["passed"]:
        raise SkewFailed(report, where=str(settings.reports / REPORT))
    return report


def skew(settings: Settings, limits: Limits, *, max_requests: int) -> dict[str, Any]:
    """Do the work of `skew_flow`, without raising SkewFailed.

    Returns:
        The report, also written to reports/skew.json; `passed` is False if a limit was exceeded.
    """
    recent = newest_day(response_times(settings.serving_log))
    releases, notes = releases_of(recent, ReleaseStore(settings.releases))
    logged, left_out = read_log(
        settings,
        releases=releases.keys(),
        limit=max_requests,
        tick=tick_of(settings.features),
    )
    responses = [response for of_release in logged.values() for response in of_release]
    if not responses:
        raise SkewError(
            f"{settings.serving_log}: no response that can be compared"
            f" ({'; '.join(notes) or left_out}); send traffic with `shortlist replay` or"
            " `shortlist serve`"
        )
    found = _compared(settings, logged, releases)
    report: dict[str, Any] = {
        "releases": {release_id: result.requests for release_id, result in found.items()},
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


def _compared(
    settings: Settings, logged: dict[str, list[Logged]], releases: dict[str, Release]
) -> dict[str, Comparison]:
    """Compare the logged responses of each release with the lake; return {release: comparison}.

    Releases without a comparable response are left out.
    """
    responses = [response for of_release in logged.values() for response in of_release]
    published = served_items(settings, {response.pack_id for response in responses})
    target_events = tuple(next(iter(releases.values())).about["target_events"])
    until = max(response.at for response in responses) + 1
    with recomputed_states(settings, target_events, until=until) as (side, events):
        packs = read_pack_history(side, sorted({response.pack_as_of for response in responses}))
        reader = OfflineReader(side)
        return {
            release_id: compare(
                of_release,
                schema=RankingSchema.from_json(releases[release_id].about["ranking_schema"]),
                catalogue=Catalogue.load(releases[release_id].path / "items.parquet"),
                profiles=ProfileEncoder.from_json(
                    json.loads((releases[release_id].path / "profiles.json").read_text())
                ),
                reader=reader,
                snapshots=side.features,
                packs=packs,
                published=published,
                events=events,
            )
            for release_id, of_release in logged.items()
            if of_release
        }
