"""Quality gates: is a challenger at least as good as the champion, in nDCG and in value?

The test is non-inferiority: the lower end of the paired 95% interval, challenger minus opponent,
must be at least minus the margin. A budget limits the sum of accepted losses, so that many small
losses within the margin can't add up. Both use the backtest, where every method was fitted before
the test window.

If the run has `[value]`, value is tested in the same way, and the budget counts the worse of both
changes. A challenger that gains value beyond chance may lose the nDCG that `ndcg_for_value`
declares.
"""

from dataclasses import replace
from typing import Any

from shortlist.releases.gate_types import Gate, GatesConfig, at_least

CHAMPION = "champion"
FIRST_OPPONENT = "recent_popularity"


def judge_quality(
    about: dict[str, Any], config: GatesConfig, *, serving: str | None, spent: float
) -> tuple[list[Gate], float]:
    """Judge quality against the champion; return the gates and the loss budget used afterwards.

    Before the first promotion the release is compared with recent popularity instead, and the
    budget is unchanged. The same comparison is made if the champion's recipe can't be fitted; then
    the whole budget counts as used, because the loss against the champion is unknown.

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
        advice = "run `shortlist evaluate` and `shortlist package` again"
        if about.get("training", {}).get("mode") == "incremental":  # compared only with its base
            advice = "start a new incremental run: `shortlist run CONFIG --incremental`"
        reason = (
            f"compared with {compared or 'no release'}, but {serving or 'none'} serves now;"
            f" {advice}"
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
        used = max(spent, config.loss_budget) if status == "untrainable" else spent
        return [replace(gate, reason=f"{gate.reason}{trade} ({champion['reason']})"), *value], used
    gate = replace(gate, reason=gate.reason + trade)
    change, limit = _change(about, config), config.loss_budget + traded
    left = max(0.0, limit - spent)
    reason = f"{change:+.4f} against the champion; losses may take {left:.4f} more of {limit:g}"
    budget = at_least("loss budget", change, -left, reason + trade)
    return [gate, budget, *value], spent_after(spent, change)


def _change(about: dict[str, Any], config: GatesConfig) -> float:
    """Return the change against the champion that counts for the loss budget, in nDCG.

    With `[value]` it is the worse of the changes in nDCG and in value. A change of value by
    `value_margin` counts as a change of nDCG by `margin`.
    """
    change = _difference(about, CHAMPION, "ndcg")[1]["mean"]
    if not _has_value(about, CHAMPION):
        return change
    metric, ahead = _difference(about, CHAMPION, "value")
    margin = _value_margin(about, config, metric, opponent=CHAMPION)
    return min(change, ahead["mean"] / margin * config.margin) if margin else change


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
        if any(name.startswith("value@") for name in about["metrics"].get("chain", {})):
            reason = "no paired comparison of value: an earlier version made this release"
            return [Gate("value", False, None, None, f"{reason}; train a new one")]
        return []
    metric, ahead = _difference(about, opponent, "value")
    margin = _value_margin(about, config, metric, opponent=opponent)
    return [_not_worse("value", metric, ahead, config, opponent=opponent, margin=margin)]


def _value_margin(
    about: dict[str, Any], config: GatesConfig, metric: str, *, opponent: str
) -> float:
    """Return the margin in units of value.

    Values can cancel (bad grades are negative). If the opponent's value can't be told from 0, the
    margin is a share of the largest value that its interval allows, so that it isn't 0.
    """
    value = about["metrics"][opponent][metric]
    if value["low"] <= 0 <= value["high"]:
        return config.value_margin * max(-value["low"], value["high"])
    return config.value_margin * abs(value["mean"])


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
    gate = at_least(name, ahead["low"], -margin, f"{reason}; margin {margin:.3g}")
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
