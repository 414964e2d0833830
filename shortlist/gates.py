"""Gates: conditions that a release must meet before promotion. Pure functions of its manifest.

The quality gate is a non-inferiority test: the lower end of the paired 95% interval of nDCG,
challenger minus opponent, must be at least minus the margin. A budget limits the sum of accepted
losses, so that many small losses within the margin can't add up. Both use the backtest, where every
method was fitted before the test window.

If the run has `[value]`, value is tested in the same way. A challenger that gains value beyond
chance may lose the nDCG that `ndcg_for_value` declares; without a gain in value it may not.

The release itself contains models that were refitted on all data, with the test window. Quality on
that window would tell nothing about them. So the sanity gates compare their lists and scores with
those of the backtest's models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from shortlist.config import Config
from shortlist.release import Release

CHAMPION = "champion"
FIRST_OPPONENT = "recent_popularity"


class GatesConfig(Config):
    """Limits of the gates. configs/gates.toml explains each value and why it was chosen."""

    margin: float = Field(default=0.01, gt=0)
    loss_budget: float = Field(default=0.01, ge=0)
    value_margin: float = Field(default=0.10, gt=0)
    ndcg_for_value: float = Field(default=0.0, ge=0)
    min_users: int = Field(default=20, ge=2)
    min_coverage: float = Field(default=0.10, ge=0, le=1)
    min_reached: float = Field(default=0.5, ge=0, le=1)
    min_index_recall: float = Field(default=0.97, ge=0, le=1)
    min_overlap: float = Field(default=0.1, ge=0, le=1)
    min_coverage_kept: float = Field(default=0.7, ge=0, le=1)
    max_score_shift: float = Field(default=1.0, gt=0)
    max_score_stretch: float = Field(default=2.0, ge=1)


@dataclass(frozen=True)
class Gate:
    """Verdict of one gate. A gate with a `figure` passes if `figure` >= `floor`."""

    name: str
    passed: bool
    figure: float | None
    floor: float | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Verdicts of all gates, and the loss budget used after a promotion of the release."""

    gates: list[Gate]
    spent: float = 0.0

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    @property
    def is_intact(self) -> bool:
        """Whether the release's files are those that its manifest names."""
        return all(gate.passed for gate in self.gates if gate.name == "integrity")


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
    return Verdict([integrity, *quality, *others], spent)


def judge_quality(
    about: dict[str, Any], config: GatesConfig, *, serving: str | None, spent: float
) -> tuple[list[Gate], float]:
    """Judge quality against the champion; return the gates and the loss budget used afterwards.

    Before the first promotion the release is compared with recent popularity instead, and the
    budget is unchanged. If the champion's recipe can't be fitted, it is too, and the whole budget
    counts as used: how much the release loses against the champion is unknown.

    Args:
        serving: id of the champion; None before the first promotion.
        spent: loss budget used by the promotions so far.
    """
    if "champion" not in about:
        reason = "no paired comparison: an earlier version made this release; train a new one"
        return [Gate("quality", False, None, None, reason)], spent
    champion = about["champion"]
    compared, status = champion["release_id"], champion["status"]
    if compared != serving:
        reason = (
            f"compared with {compared or 'no release'}, but {serving or 'none'} serves now;"
            " run `shortlist evaluate` and `shortlist package` again"
        )
        return [Gate("quality", False, None, None, reason)], spent
    if status == "unchanged":
        return [Gate("quality", True, None, None, champion["reason"])], spent
    opponent = CHAMPION if status == "compared" else FIRST_OPPONENT
    traded, trade = _trade(about, config, opponent=opponent)
    metric, ahead = _difference(about, opponent, "ndcg")
    margin = config.margin + traded
    gate = _not_worse("quality", metric, ahead, config, opponent=opponent, margin=margin)
    value = _value(about, config, opponent=opponent)
    if status in ("none", "untrainable"):
        used = config.loss_budget if status == "untrainable" else spent
        return [replace(gate, reason=f"{gate.reason}{trade} ({champion['reason']})"), *value], used
    gate = replace(gate, reason=gate.reason + trade)
    loss, limit = ahead["mean"], config.loss_budget + traded
    left = max(0.0, limit - spent)
    reason = f"{loss:+.4f} against the champion; losses may take {left:.4f} more of {limit:g}"
    budget = _at_least("loss budget", loss, -left, reason + trade)
    return [gate, budget, *value], spent_after(spent, loss)


def spent_after(spent: float, difference: float) -> float:
    """Return the loss budget used after a promotion: a loss increases it, a gain reduces it.

    It is never below 0.

    This is a CUSUM (Page 1954): the largest total loss of any series of consecutive promotions that
    ends with this one. While it is within the budget, no series has lost more than the budget.
    """
    return max(0.0, spent - difference)


def _value(about: dict[str, Any], config: GatesConfig, *, opponent: str) -> list[Gate]:
    """Test non-inferiority in value. No gate if the run has no `[value]`.

    The margin is a share of the opponent's value, because the unit of value is the run's.
    """
    if not _has_value(about, opponent):
        return []
    metric, ahead = _difference(about, opponent, "value")
    margin = config.value_margin * abs(about["metrics"][opponent][metric]["mean"])
    return [_not_worse("value", metric, ahead, config, opponent=opponent, margin=margin)]


def _trade(about: dict[str, Any], config: GatesConfig, *, opponent: str) -> tuple[float, str]:
    """Return the nDCG that the release may lose for its gain in value, and a text about it.

    It is 0 unless the interval of the gain is above zero and comes from enough users.
    """
    if config.ndcg_for_value == 0 or not _has_value(about, opponent):
        return 0.0, ""
    metric, ahead = _difference(about, opponent, "value")
    if ahead["low"] <= 0 or ahead["users"] < config.min_users:
        return 0.0, f"; no nDCG may be lost for value, because {metric} doesn't rise beyond chance"
    return config.ndcg_for_value, (
        f"; includes ndcg_for_value = {config.ndcg_for_value:g}, because {metric} rises by"
        f" {ahead['mean']:.4f} [{ahead['low']:+.4f}, {ahead['high']:+.4f}]"
    )


def _not_worse(
    name: str,
    metric: str,
    ahead: dict[str, float],
    config: GatesConfig,
    *,
    opponent: str,
    margin: float,
) -> Gate:
    """Test paired non-inferiority: the lower end of the interval must be at least -margin."""
    reason = (
        f"{metric} {ahead['mean']:+.4f} [{ahead['low']:+.4f}, {ahead['high']:+.4f}] against"
        f" {opponent}, over {ahead['users']} users"
    )
    if ahead["users"] < config.min_users:
        reason += f"; too few to judge by, want {config.min_users}: use a longer test window"
        return Gate(name, False, float(ahead["users"]), float(config.min_users), reason)
    gate = _at_least(name, ahead["low"], -margin, f"{reason}; margin {margin:.3g}")
    if gate.passed or ahead["mean"] < -margin:
        return gate
    reason = f"{gate.reason}; the interval is too wide to rule out a loss of that size"
    return replace(gate, reason=reason)


def _has_value(about: dict[str, Any], opponent: str) -> bool:
    return any(name.startswith("value@") for name in about["chain_ahead"][opponent])


def _difference(about: dict[str, Any], opponent: str, metric: str) -> tuple[str, dict[str, float]]:
    """Return the full name of a metric, such as ndcg@10, and its paired difference."""
    leads = about["chain_ahead"][opponent]
    name = next(name for name in leads if name.startswith(f"{metric}@"))
    return name, leads[name]


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
    return _at_least("coverage", figure, floor, reason)


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
        yield _at_least(f"index recall of {source}", recall, floor, reason)


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
    yield _at_least(
        "sanity: overlap",
        overlap,
        config.min_overlap,
        f"lists of ten share {overlap:.2f} of their items with the backtest's (Jaccard), floor"
        f" {config.min_overlap:g}",
    )
    now, before = refit["coverage@10"], refit["backtest_coverage@10"]
    floor = config.min_coverage_kept * before
    yield _at_least(
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


def _at_least(name: str, figure: float, floor: float, reason: str) -> Gate:
    return Gate(name, bool(figure >= floor), figure, floor, reason)
