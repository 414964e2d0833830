"""Searches hyperparameters with Optuna, and compares the best ones with the current ones.

A study is stored in a file, so that it can be interrupted and resumed. It optimises the nDCG@10 on
the validation window; the test window is not read. The first trial has the current values. The best
of many trials looks better than it is, so it is trained again with other seeds, and compared with
the current values user by user.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from flows.tuning.space import changed, current, space_of
from models.data import mean_over_users
from shortlist.config import Config
from shortlist.metrics import paired_difference

SEEDS = 3
"""Number of seeds with which the best and the current values are compared."""


class TuningError(ValueError):
    """The study can't run; the message says what to change."""


def nothing_to_tune(kind: str) -> TuningError:
    return TuningError(
        f"'{kind}' has nothing to tune here: its training tries a grid on validation itself"
    )


@dataclass(frozen=True)
class Fitted:
    """The result of one training on the validation window."""

    users: list[str]  # user of each request
    ndcg: np.ndarray  # (B,) nDCG@10 of each request, NaN without relevant items

    @property
    def mean(self) -> float:
        """The mean over users of each user's mean; NaN if no request can be judged."""
        return mean_over_users(self.users, self.ndcg)


Fit = Callable[[Any, int, Callable[[int, float], None] | None], Fitted]
"""Trains with (config, seed, report) and evaluates on validation. `report` gets the number of each
epoch and its nDCG, and may raise `optuna.TrialPruned`."""


def tune(
    config: Config,
    fit: Fit,
    *,
    space: Mapping[str, optuna.distributions.BaseDistribution],
    path: Path,
    data: str,
    minutes: float,
    trials: int | None = None,
    seed: int,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run or resume a study; return its result.

    Args:
        config: the current config of a source or ranker.
        space: search space of its kind.
        path: file of the study; created if missing.
        data: hash of the training data and the other settings that the trials depend on.
        minutes: time budget of this call, including the final comparison.
        trials: number of trials of this call; None: as many as the time allows, at least one.

    Returns:
        {"trials": finished trials of the study, "current" and "best": {"ndcg@10" per seed, "mean"},
        "gain": {"mean", "low", "high"} with a 95% interval over users, "changes": values of the
        best trial that differ from the current ones, "better": whether the interval is above zero}.

    Raises:
        TuningError: nothing to tune, or the study in `path` is about other data or settings.
    """
    kind: str = getattr(config, "kind", "")
    own = space_of(config, space)
    if not own:
        raise nothing_to_tune(kind)
    study = _open(path, kind, data, seed=seed)
    now = current(config, own)
    if not study.trials:
        study.enqueue_trial(now)
    deadline = time.monotonic() + 60 * minutes
    longest, done = 0.0, 0

    def goes_on() -> bool:
        if trials is not None:
            return done < trials
        return done == 0 or time.monotonic() + longest * (2 * SEEDS + 1) < deadline

    while goes_on():
        done += 1
        began = time.monotonic()
        trial = study.ask(own)
        value = _one_trial(study, trial, config, fit, seed)
        longest = max(longest, time.monotonic() - began)
        best = study.best_value if _finished(study) else float("nan")
        progress(
            f"trial {trial.number + 1}: {value}, best {best:.4f}, {time.monotonic() - began:.1f} s"
        )
    result = _compare(study, config, now, fit, seed=seed)
    return {"kind": kind, "trials": len(_finished(study)), "study": str(path)} | result


def _open(path: Path, kind: str, data: str, *, seed: int) -> optuna.Study:
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=kind,
        storage=f"sqlite:///{path}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        load_if_exists=True,
    )
    known = study.user_attrs.get("data")
    if known is None:
        study.set_user_attr("data", data)
    elif known != data:
        raise TuningError(
            f"{path}: this study was made with other data or settings; remove the file to start a"
            " new one"
        )
    return study


def _one_trial(
    study: optuna.Study, trial: optuna.Trial, config: Config, fit: Fit, seed: int
) -> str:
    """Run one trial and store its outcome; return it as a text."""

    def report(epoch: int, ndcg: float) -> None:
        trial.report(ndcg, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        value = fit(changed(config, trial.params), seed, report).mean
        if math.isnan(value):
            raise ValueError("no validation request can be judged")
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return "stopped early, below the median"
    except BaseException as error:  # the trial is not left running
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        # Values that can't be trained, such as a learning rate that is too high, are only a bad
        # trial. The current values must work.
        if isinstance(error, ValueError) and _finished(study):
            return f"failed: {error}"
        raise
    study.tell(trial, value)
    return f"nDCG@10 {value:.4f}"


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _compare(
    study: optuna.Study, config: Config, now: Mapping[str, Any], fit: Fit, *, seed: int
) -> dict[str, Any]:
    """Train the best and the current values with SEEDS seeds; return their figures."""
    best = study.best_trial.params
    changes = {key: value for key, value in best.items() if value != now[key]}
    # Not the seed of the trials, by which the best was chosen.
    seeds = range(seed + 1, seed + 1 + SEEDS)
    of_now = [fit(config, number, None) for number in seeds]
    if not changes:
        figures = _figures(of_now)
        none = {"mean": 0.0, "low": 0.0, "high": 0.0}
        return {"current": figures, "best": figures, "gain": none, "changes": {}, "better": False}
    of_best = [fit(changed(config, best), number, None) for number in seeds]
    gain = paired_difference(
        of_now[0].users,
        np.mean([each.ndcg for each in of_best], axis=0),
        np.mean([each.ndcg for each in of_now], axis=0),
        rng=np.random.default_rng(seed),
    )
    return {
        "current": _figures(of_now),
        "best": _figures(of_best),
        "gain": {name: round(gain[name], 4) for name in ("mean", "low", "high")},
        "changes": changes,
        "better": gain["low"] > 0,
    }


def _figures(fits: Sequence[Fitted]) -> dict[str, Any]:
    means = [fitted.mean for fitted in fits]
    return {
        "ndcg@10": [round(value, 4) for value in means],
        "mean": round(float(np.mean(means)), 4),
    }
