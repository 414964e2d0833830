"""What operators read about releases: overview, details, and who promoted them when and why."""

from typing import Any

from flows.releases.retention import size_of
from shortlist.config import Settings
from shortlist.home.audit import read_audit
from shortlist.releases.pins import read_pins
from shortlist.releases.release import Release, ReleaseError, ReleaseStore


def overview(settings: Settings) -> list[dict[str, Any]]:
    """Return one row for each release, oldest first.

    Keys: release_id, serving, pinned, dataset, ndcg@10, bytes, and `damaged`: what is wrong, or
    None. A damaged release has no dataset and figure.
    """
    store = ReleaseStore(settings.releases)
    serving, pins = store.current_id(), read_pins(settings)
    rows = []
    for release_id in store.ids():
        row: dict[str, Any] = {
            "release_id": release_id,
            "serving": release_id == serving,
            "pinned": release_id in pins,
            "dataset": None,
            "ndcg@10": None,
            "bytes": size_of(store.root / release_id),
            "damaged": None,
        }
        try:
            about = store.open(release_id).about
        except ReleaseError as error:
            row["damaged"] = str(error)
        else:
            row |= {"dataset": about.get("dataset"), "ndcg@10": _ndcg(about)}
        rows.append(row)
    return rows


def details(settings: Settings, release_id: str) -> dict[str, Any]:
    """Return a release's origin, recipe, figures, files, pin, and promotions, for `releases show`.

    Raises:
        ReleaseError: it doesn't exist or is damaged.
    """
    release = ReleaseStore(settings.releases).open(release_id)
    about = release.about
    keys = (
        "run_id",
        "dataset",
        "training",
        "recipe",
        "fitted",
        "champion",
        "seed",
        "feature_schema",
    )
    return {
        "release_id": release_id,
        "serving": ReleaseStore(settings.releases).current_id() == release_id,
        "pin": read_pins(settings).get(release_id),
        **{key: about[key] for key in keys if key in about},
        "metrics": about.get("metrics", {}).get("chain"),
        "bytes": size_of(release.path),
        "files": _sizes(release),
        "audit": [
            line for line in read_audit(settings) if release_id in (line["from"], line["to"])
        ],
    }


def _sizes(release: Release) -> dict[str, int]:
    return {name: release.file(name).stat().st_size for name in release.files}


def _ndcg(about: dict[str, Any]) -> float | None:
    return about.get("metrics", {}).get("chain", {}).get("ndcg@10", {}).get("mean")
