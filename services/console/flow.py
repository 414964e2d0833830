"""Data and flow: what was taken in, what was kept out, and what the stages of requests took."""

from collections.abc import Sequence
from typing import Any

from services.console.charts import quantile
from services.console.home import RESPONSES, pages_url
from services.console.served_log import recent
from shortlist.config import Settings
from shortlist.datasets.service.item_commands import num_pending
from shortlist.items.commands import CommandError
from shortlist.lake.snapshot import LakeError, current_manifest
from shortlist.validation.quarantine import Quarantine

BATCHES = 15
QUARANTINED = 25


def flow(settings: Settings, *, page: int) -> dict[str, Any]:
    """Return the variables of the template.

    Args:
        page: page of the quarantined rows, from 0.
    """
    problems: list[str] = []
    batches, rows, latest, version = [], 0, None, 0
    try:
        manifest = current_manifest(settings.lake)
        batches, rows = manifest.batches[::-1][:BATCHES], manifest.rows
        latest, version = manifest.latest, manifest.version
    except LakeError as error:
        problems.append(str(error))
    pending = 0
    try:
        pending = num_pending(settings)
    except (CommandError, LakeError) as error:
        problems.append(str(error))
    bad = Quarantine(settings.quarantine).batches()[::-1]
    entries = recent(settings.serving_log, RESPONSES)
    return {
        "problems": problems,
        "batches": batches,
        "lake_rows": rows,
        "latest": latest,
        "version": version,
        "pending": pending,
        "bad": bad[page * QUARANTINED : (page + 1) * QUARANTINED],
        "num_bad": sum(one["rows"] for one in bad),
        "page": page,
        "pages": -(-len(bad) // QUARANTINED),
        "links": pages_url(settings),
        "stages": stages_of(entries),
        "num_entries": len(entries),
    }


def stages_of(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return figures of each stage: runs, p50 and p99 in ms, responses that skipped it.

    The order is that of the stages in the newest response; further ones follow.
    """
    taken: dict[str, list[float]] = {}
    skipped: dict[str, int] = {}
    for entry in entries:
        for name, milliseconds in entry.get("stages", {}).items():
            taken.setdefault(name, []).append(milliseconds)
        for name in entry["skipped_stages"]:
            skipped[name] = skipped.get(name, 0) + 1
    total = sum(sum(one) for one in taken.values())
    return [
        {
            "name": name,
            "runs": len(taken.get(name, [])),
            "p50": quantile(taken.get(name, []), 0.5),
            "p99": quantile(taken.get(name, []), 0.99),
            "share": sum(taken.get(name, [])) / total if total else 0.0,
            "skipped": skipped.get(name, 0),
        }
        for name in dict.fromkeys([*taken, *skipped])
    ]
