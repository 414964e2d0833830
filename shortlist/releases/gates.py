"""Gates: conditions that a release must meet before promotion. Pure functions of its manifest.

Quality is compared with the champion's on the backtest (`quality_gates.py`). The release itself
contains models that were refitted on all data, with the test window. Quality on that window would
tell nothing about them. So the sanity gates compare their lists and scores with those of the
backtest's models.

The off-policy gate reads what the lists would have got, estimated from lists that users were shown
with random positions in the test window (docs/off-policy.md).
"""

from collections.abc import Iterator
from typing import Any

from shortlist.releases.gate_types import Gate, GatesConfig, Verdict, at_least
from shortlist.releases.quality_gates import judge_quality
from shortlist.releases.release import Release

__all__ = ["Gate", "GatesConfig", "Verdict", "judge_gates"]


def judge_gates(release: Release, config: GatesConfig, *, history: dict[str, float]) -> Verdict:
    """Judge a release by all gates.

    The integrity gate always passes here, because opening a release verifies its hashes.

    Args:
        history: promoted releases, oldest first, each with the loss budget used after it.
    """
    about = release.about
    integrity = Gate(
        "integrity", True, None, None, f"all {len(release.files)} files match their sha256"
    )
    if release.release_id in history:
        reason = "it served before and was judged then"
        quality = [Gate("quality", True, None, None, reason)]
        spent = history[release.release_id]
    else:
        serving, spent = next(reversed(history.items()), (None, 0.0))
        quality, spent = judge_quality(about, config, serving=serving, spent=spent)
    sanity = _sanity(about, config, served=release.release_id in history)
    others = [_coverage(about, config), *_index_recall(about, config), *sanity]
    if release.release_id not in history:
        others += judge_off_policy(about, config)
    return Verdict([integrity, *quality, *others], spent)


def judge_off_policy(about: dict[str, Any], config: GatesConfig) -> list[Gate]:
    """Judge what the lists would have got: not clearly less than the champion's.

    The gate is left out if it is off, or if it isn't required and no list was explored. Explored
    lists whose outcomes are still open count as explored. An estimate that the log doesn't support
    passes only if the gate isn't required, and says so.
    """
    found = about.get("off_policy")
    is_required = config.off_policy == "required"
    explored = 0 if found is None else found["explored"] + found.get("open", 0)
    if config.off_policy == "off" or (explored == 0 and not is_required):
        return []
    name = "off-policy"
    if found is None:
        reason = "the manifest has no off-policy estimate: an earlier version made this release"
        return [Gate(name, False, None, None, f"{reason}; train a new one")]
    if about["champion"]["status"] == "unchanged":
        return [Gate(name, True, None, None, about["champion"]["reason"])]
    if found["refused"] is not None:
        reason = f"not judged: {found['refused']}"
        return [Gate(name, not is_required, None, None, reason)]
    lead, base, margin = found["lead"]["dr"], found["base"], config.off_policy_margin
    against = "the champion" if found["against"] == "champion" else "what was shown"
    reason = (
        f"{found['outcome']} items per list {lead['mean']:+.4f} [{lead['low']:+.4f},"
        f" {lead['high']:+.4f}] against {against} ({base:.4f}), by"
        f" {found['explored']:,} explored lists; margin {margin:.0%}"
    )
    return [at_least(name, lead["low"], -margin * base, reason)]


def _coverage(about: dict[str, Any], config: GatesConfig) -> Gate:
    """Judge catalogue coverage. The floor is lower if there are too few test lists to reach it."""
    chain = about["metrics"]["chain"]
    name = next(key for key in chain if key.startswith("coverage@"))
    figure, reachable = chain[name]["mean"], about.get("reachable_coverage", 1.0)
    floor = min(config.min_coverage, config.min_reached * reachable)
    reason = f"{name} {figure:.3f}, floor {floor:.3g}"
    if floor < config.min_coverage:
        reason += f" ({config.min_reached:g} of the {reachable:.3f} that lists without a common"
        reason += " item would cover)"
    return at_least("coverage", figure, floor, reason)


def _index_recall(about: dict[str, Any], config: GatesConfig) -> Iterator[Gate]:
    """Yield a gate for the recall of each vector index against exact search.

    Figures of the refitted indexes are in `refit`. Releases of earlier code versions weren't
    refitted and have theirs in `source_figures`.
    """
    recalls = {
        source: figures["index_recall@100"]
        for source, figures in about["source_figures"].items()
        if figures.get("index_recall@100") is not None
    }
    recalls |= about.get("refit", {}).get("index_recall@100", {})
    for source, recall in recalls.items():
        if source not in about["sources"]:
            continue
        floor = config.min_index_recall
        reason = f"{recall:.4f} of exact search, floor {floor:g}"
        yield at_least(f"index recall of {source}", recall, floor, reason)


def _sanity(about: dict[str, Any], config: GatesConfig, *, served: bool) -> Iterator[Gate]:
    """Yield gates that compare the refitted models with the backtest's.

    Both have the same recipe, and the refitted ones a little more data, so lists and scores should
    change little. A large change means that a refit failed.

    Args:
        served: True if the release has served before. Then figures may be missing, because earlier
            versions of the code didn't write them.
    """
    refit = about.get("refit")
    if refit is None:
        if not served:
            reason = (
                "the manifest has no figures of a refit: the models may lack the newest data;"
                " train again"
            )
            yield Gate("sanity", False, None, None, reason)
        return
    overlap = refit["overlap@10"]
    yield at_least(
        "sanity: overlap",
        overlap,
        config.min_overlap,
        f"lists of ten share {overlap:.2f} of their items with the backtest's (Jaccard), floor"
        f" {config.min_overlap:g}",
    )
    now, before = refit["coverage@10"], refit["backtest_coverage@10"]
    floor = config.min_coverage_kept * before
    yield at_least(
        "sanity: coverage",
        now,
        floor,
        f"coverage@10 {now:.3f}, backtest {before:.3f}, floor {floor:.3f}"
        f" ({config.min_coverage_kept:g} of it)",
    )
    for source, figures in refit["scores"].items():
        shift, ratio = abs(figures["mean_shift"]), figures["std_ratio"]
        limit = config.max_score_stretch
        yield Gate(
            f"sanity: scores of {source}",
            bool(shift <= config.max_score_shift and 1 / limit <= ratio <= limit),
            None,
            None,
            f"mean moved by {shift:.2f} standard deviations (limit {config.max_score_shift:g}),"
            f" spread by a factor of {ratio:.2f} (limits {1 / limit:.2g} and {limit:g})",
        )
