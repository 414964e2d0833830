"""`shortlist bench experiments`: false positives of A/A tests that are looked at every day.

Both arms have the same behaviour. Each user has a fixed click rate and number of visits, so days of
a user are correlated, and each test has a period before its start for CUPED. A test is a false
positive if the sequential test of the board crosses its level on any day, in either direction. The
same data are judged by a test for a single look, which shows what peeking costs.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, report
from monitoring.board.sequential import always_valid, one_look
from monitoring.traffic.estimate import UserSums, difference

ALPHA = 0.05
USERS, DAYS, BEFORE_DAYS = 400, 28, 14
EFFECT = 0.3
MATTERS = 0.1
"""Relative difference for which the sequential tests have most power, as in the board."""


def one_test(rng: np.random.Generator, *, effect: float = 0.0) -> dict[str, bool]:
    """Simulate one experiment; return for each test whether it ever called a difference.

    Args:
        effect: relative change of the click rate in the second arm.
    """
    rate = rng.beta(2, 14, size=USERS)
    visits = rng.gamma(1.5, 1.0, size=USERS)
    treated = rng.random(USERS) < 0.5
    user = np.arange(USERS)

    def days(count: int, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown = rng.poisson(visits[:, None] * 10, size=(USERS, count)).astype(float)
        clicks = rng.binomial(shown.astype(int), np.minimum(rate * change, 1)[:, None])
        return clicks.astype(float), shown

    clicks, shown = days(BEFORE_DAYS, np.ones(USERS))
    earlier = UserSums.of(user, clicks.sum(1), shown.sum(1))
    before = dict(zip(earlier.user.tolist(), (earlier.top / earlier.bottom).tolist(), strict=True))
    clicks, shown = days(DAYS, np.where(treated, 1 + effect, 1.0))
    called = {"sequential": False, "one look": False}
    clicks, shown = clicks.cumsum(1), shown.cumsum(1)
    for day in range(DAYS):
        top, bottom = clicks[:, day], shown[:, day]
        masks = [mask & (bottom > 0) for mask in (treated, ~treated)]
        arms = [UserSums(user[mask], top[mask], bottom[mask]) for mask in masks]
        found = difference(*arms, before=before)
        spread = found.control.value * MATTERS
        for bad in ("low", "high"):
            p = always_valid(found.value, found.error, limit=0.0, bad=bad, spread=spread)
            called["sequential"] |= p < ALPHA / 2
            p = one_look(found.value, found.error, limit=0.0, bad=bad)
            called["one look"] |= p < ALPHA / 2
    return called


def run(*, tests: int, seed: int) -> dict[str, Any]:
    """Return the shares of tests that called a difference, without and with an effect."""
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    same = [one_test(rng) for _ in range(tests)]
    changed = [one_test(rng, effect=EFFECT) for _ in range(max(tests // 10, 1))]
    return {
        "false_positive_rate": float(np.mean([pair["sequential"] for pair in same])),
        "false_positive_rate_one_look_daily": float(np.mean([pair["one look"] for pair in same])),
        "power_at_30_percent": float(np.mean([pair["sequential"] for pair in changed])),
        "tests": tests,
        "users": USERS,
        "days": DAYS,
        "alpha": ALPHA,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    result = run(tests=arguments.tests, seed=arguments.seed)
    report(result | about_machine(), arguments.out, shown=result)


if __name__ == "__main__":
    main()
