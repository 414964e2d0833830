"""The releases: gates with figures and limits, differences from the champion, and what was done."""

import json
from pathlib import Path
from typing import Any

from shortlist.config import ConfigError, Settings, load_toml
from shortlist.home.audit import read_audit
from shortlist.releases.gates import GatesConfig
from shortlist.releases.promotion import gates_file, judge
from shortlist.releases.release import MANIFEST, Release, ReleaseError, ReleaseStore

PAGE = 20
DIFFERENT = (
    "recipe",
    "chain",
    "ranker",
    "sources",
    "fitted",
    "seed",
    "data_end",
    "tick",
    "wording",
)
"""Parts of the manifest whose differences are shown."""
HISTORY = 30
SLICE_METRIC = "ndcg@10"
_verified: dict[Path, tuple[list[tuple[str, int, int, int]], Release]] = {}
"""Release folder -> its files as they were when their hashes matched."""


def abouts(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return {release: manifest without its files}, newest first; the files aren't verified here.

    A manifest that can't be read is empty.
    """
    store = ReleaseStore(settings.releases)
    found = {}
    for release_id in reversed(store.ids()):
        try:
            found[release_id] = json.loads((store.root / release_id / MANIFEST).read_text())[
                "about"
            ]
        except (OSError, ValueError, KeyError):
            found[release_id] = {}
    return found


def verified(store: ReleaseStore, release_id: str) -> Release | None:
    """Return a release if its files match their hashes; None if they don't.

    Hashing takes a second for a large release. It is repeated only if a file was replaced or
    changed since; a promotion always hashes.
    """
    folder = store.root / release_id
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [path.stat() for path in paths]
    stamp = [
        (str(p), s.st_mtime_ns, s.st_size, s.st_ino) for p, s in zip(paths, stats, strict=True)
    ]
    known = _verified.get(folder)
    if known is None or known[0] != stamp:
        try:
            known = _verified[folder] = stamp, store.open(release_id)
        except ReleaseError:
            return None
    return known[1]


def limits(settings: Settings, about: dict[str, Any]) -> tuple[Path, GatesConfig | None]:
    """Return the file with the limits of the gates, and the limits; None if it can't be read."""
    path = gates_file(settings, about)
    try:
        return path, load_toml(path, GatesConfig)
    except ConfigError:
        return path, None


def releases(settings: Settings, chosen: str | None, *, page: int) -> dict[str, Any]:
    """Return the variables of the template.

    Args:
        chosen: id of the release to show; None: the newest one.
    """
    store = ReleaseStore(settings.releases)
    known, history = abouts(settings), store.history()
    serving = next(reversed(history), None)
    chosen = chosen if chosen in known else next(iter(known), None)
    rows = [
        {
            "release_id": release_id,
            "dataset": about.get("dataset"),
            "ranker": about.get("ranker"),
            "ndcg": metric(about, SLICE_METRIC),
            "promoted": release_id in history,
        }
        for release_id, about in known.items()
    ]
    content: dict[str, Any] = {
        "rows": rows[page * PAGE : (page + 1) * PAGE],
        "count": len(rows),
        "page": page,
        "pages": -(-len(rows) // PAGE),
        "serving": serving,
        "previous": list(history)[-2] if len(history) > 1 else None,
        "chosen": chosen,
        "audit": [one for one in reversed(read_audit(settings)) if one["command"] != "act notify"][
            :HISTORY
        ],
    }
    if chosen is None:
        return content
    about, champion = known[chosen], known.get(serving or "", {})
    path, config = limits(settings, about)
    verdict, unjudged = None, f"{path}: the limits of the gates can't be read"
    if config is not None:
        try:
            verdict = judge(settings, chosen, config, opened=verified(store, chosen))
        except (KeyError, TypeError, ValueError) as error:
            unjudged = f"its manifest lacks figures that the gates need ({error!r})"
    return content | {
        "unjudged": unjudged,
        "about": about,
        "gates_file": path,
        "verdict": verdict,
        "metrics": compared_metrics(about, champion),
        "ahead": about.get("chain_ahead", {}),
        "different": differences(about, champion) if chosen != serving else {},
        "slices": compared_slices(settings, about, champion),
    }


def metric(about: dict[str, Any], name: str) -> dict[str, float] | None:
    """Return a figure of the chain with its interval; None if the release has none."""
    return about.get("metrics", {}).get("chain", {}).get(name)


def compared_metrics(about: dict[str, Any], champion: dict[str, Any]) -> list[dict[str, Any]]:
    names = about.get("metrics", {}).get("chain", {})
    return [
        {"name": name, "own": metric(about, name), "champion": metric(champion, name)}
        for name in names
    ]


def compared_slices(
    settings: Settings, about: dict[str, Any], champion: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return nDCG of the chain by slice, of both releases' runs, if their folders are kept."""
    own, other = (_slices(settings, one) for one in (about, champion))
    return [
        {"name": name, "own": figure, "champion": other.get(name)} for name, figure in own.items()
    ]


def _slices(settings: Settings, about: dict[str, Any]) -> dict[str, dict[str, float]]:
    path = settings.runs / str(about.get("run_id")) / "evaluation.json"
    try:
        content = json.loads(path.read_text())["slices"]
        return {
            name: methods["chain"][SLICE_METRIC]
            for name, methods in content.items()
            if SLICE_METRIC in methods.get("chain", {})
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def differences(new: dict[str, Any], old: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {key: (champion's value, new value)} of all leaves of DIFFERENT that differ."""
    out: dict[str, tuple[Any, Any]] = {}

    def walk(name: str, before: Any, after: Any) -> None:
        if isinstance(before, dict) and isinstance(after, dict):
            for key in sorted(before.keys() | after.keys()):
                walk(f"{name}.{key}", before.get(key), after.get(key))
        elif before != after:
            out[name] = before, after

    for part in DIFFERENT:
        walk(part, old.get(part), new.get(part))
    return out
