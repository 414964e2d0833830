"""Compares the lists of a challenger and a champion that were not shown, as a JSON document."""

from typing import Any

import numpy as np

from monitoring.off_policy.estimate import METHODS, OffPolicy, Value
from monitoring.off_policy.served import OUTCOME, Served
from monitoring.off_policy.support import problem_of_log, problem_of_outcomes, problem_of_policy
from monitoring.traffic.estimate import Estimate

MAIN = "dr"
"""Method that the gate reads."""
CHALLENGER, CHAMPION, SHOWN = "challenger", "champion", "shown"


def compare_off_policy(
    served: Served, wanted: dict[str, np.ndarray], *, num_items: int, seed: int
) -> dict[str, Any]:
    """Estimate the outcomes per list of each policy, and the challenger's lead.

    Args:
        wanted: (R, K) item_idx that each policy would have shown; CHALLENGER, and CHAMPION if there
            is one. Without it the challenger is compared with what was shown.

    Returns:
        `refused` is why nothing was estimated, or None; docs/off-policy.md lists the other keys.
    """
    about = {
        "outcome": OUTCOME,
        "hours": served.hours,
        "lists": served.lists,
        "explored": len(served.logged),
        "open": served.open,
    }
    problem = problem_of_log(served)
    if problem is not None:
        return about | {"refused": problem}
    judge = OffPolicy(served.logged, num_items=num_items, seed=seed)
    about |= {"shown": _to_json(judge.shown)}
    problem = problem_of_outcomes(judge)
    if problem is not None:
        return about | {"refused": problem}
    values = {name: judge.judge(lists) for name, lists in wanted.items()}
    problems = {name: problem_of_policy(value) for name, value in values.items()}
    about |= {
        "attention": (judge.attention / judge.attention[0]).round(4).tolist(),
        "policies": {
            name: _policy(value) | {"refused": problems[name]} for name, value in values.items()
        },
    }
    problem = next(
        (f"{name}: {reason}" for name, reason in problems.items() if reason is not None), None
    )
    if problem is not None:
        return about | {"refused": problem}
    against, reference = CHAMPION, values.get(CHAMPION)
    if reference is None:
        against, reference = SHOWN, judge.as_shown
    lead = {
        method: _to_json(judge.difference(values[CHALLENGER], reference, method=method))
        for method in METHODS
    }
    base = reference.estimates[MAIN].value
    return about | {"refused": None, "against": against, "base": base, "lead": lead}


def _policy(value: Value) -> dict[str, Any]:
    return {
        **{method: _to_json(estimate) for method, estimate in value.estimates.items()},
        "effective_lists": round(value.effective, 1),
        "support": _to_json(value.support),
        "matched_items": value.matched,
    }


def _to_json(estimate: Estimate) -> dict[str, float]:
    return {
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "users": estimate.users,
    }
