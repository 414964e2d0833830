"""Compares the chains of two evaluated runs on the same test requests.

Only stored figures are read (`flows/evaluation/requests.py`); no model is loaded. Runs are
comparable if both have the same data, split and requests, so that only their models differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flows.evaluation.judge import ITEM_SLICES, USER_GROUPS
from flows.evaluation.requests import DISCOUNTED, OF
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from models.data import mean_over_users
from shortlist.config import Settings
from shortlist.files.parquet_files import read_parquet
from shortlist.files.plain_json import difference
from shortlist.metrics import coverage_difference, paired_difference

SLICE_DRAWS = 300
KEYS = ("user_id", "at", "relevant")
"""Columns that are equal if both runs have the same requests with as many relevant items each."""


class CompareError(ValueError):
    """Two runs can't be compared; the message tells why and what to do."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluated run and the figures of its test requests."""

    run: Run
    config: RunConfig
    table: pa.Table

    @classmethod
    def open(cls, run: Run) -> "Evaluated":
        path = run.evaluated_requests
        if not path.is_file():
            raise CompareError(
                f"run {run.run_id} isn't evaluated, or was by an earlier version ({path} is"
                f" missing); run `shortlist evaluate --run {run.run_id}` first"
            )
        return cls(run, run.config, read_parquet(path))

    def column(self, name: str) -> np.ndarray:
        return self.table.column(name).to_numpy()

    @property
    def lists(self) -> np.ndarray:
        """(B, K) item_idx of the first items, 0 for empty positions."""
        items = self.table.column("items").combine_chunks()
        return items.flatten().to_numpy().reshape(len(items), -1)

    def value(self, weights: Mapping[str, float], *, k: int) -> np.ndarray:
        """(B,) the discounted value of each list; outcomes that never occur count as 0."""
        total = np.zeros(self.table.num_rows)
        for outcome, weight in weights.items():
            name = f"{outcome}@{k}{DISCOUNTED}"
            if name in self.table.column_names:
                total += weight * self.column(name)
        return total

    def about(self) -> dict[str, Any]:
        """Return what the run's chain consists of."""
        about = self.run.read("about.json", made_by="train")
        heads = about.get("chain_figures", {}).get("heads", {})
        return {
            "run_id": self.run.run_id,
            "ranker": about["ranker"] or "fusion",
            "sources": about["chain"]["candidate_sources"],
            "heads": [name for name, head in heads.items() if head["head"]],
            "value": self.config.value,
        }


def compare_runs(
    settings: Settings, run_id: str | None, other_id: str, *, of: str | None = None
) -> dict[str, Any]:
    """Compare two runs: the differences are those of `run_id` minus `other_id`.

    Intervals are paired, over users: a bootstrap, and for coverage a jackknife.

    Args:
        run_id: id of a run; None: the newest.
        of: name of the configuration that the run must have. None: any.

    Returns:
        {"runs": [what each chain consists of], "settings": {key: [value, other value]} of the
        configurations, "n_requests", "n_users", "metrics": {metric: {"run", "compare": means,
        "difference": mean, low, high, users}}, "slices": {slice: the same}}.

    Raises:
        RunError: there is no such run.
        CompareError: a run isn't evaluated, or they don't have the same requests.
    """
    run, other = Run.open(settings, run_id, of=of), Run.open(settings, other_id)
    if run == other:
        raise CompareError(f"run {run.run_id} would be compared with itself; want two runs")
    pair = Evaluated.open(run), Evaluated.open(other)
    require_same_requests(*pair)
    one, another = pair
    users = one.column("user_id").tolist()
    figures = per_request(*pair)
    draws, seed = one.config.evaluate.bootstrap_draws, one.config.seed

    def compared(names: Mapping[str, str], inside: np.ndarray, *, draws: int) -> dict[str, Any]:
        """Compare the metrics {name: key in `figures`} on the requests `inside`."""
        rows = np.flatnonzero(inside)
        chosen = [users[row] for row in rows]
        found = {}
        for name, key in names.items():
            a, b = (values[rows].astype(np.float64) for values in figures[key])
            both = np.where(np.isnan(a + b), np.nan, 0.0)
            if np.isnan(both).all():
                continue
            gap = paired_difference(chosen, a, b, rng=np.random.default_rng(seed), draws=draws)
            found[name] = {
                "run": mean_over_users(chosen, a + both),
                "compare": mean_over_users(chosen, b + both),
                "difference": gap,
            }
        return found

    everything = np.ones(len(users), dtype=bool)
    whole = {name: name for name in figures if OF not in name}
    metrics = compared(whole, everything, draws=draws)
    metrics |= _coverage(one, another, users)
    groups = one.column("group")
    slices = {group: compared(whole, groups == group, draws=SLICE_DRAWS) for group in USER_GROUPS}
    for name in ITEM_SLICES:
        of_slice = {key.split(OF)[0]: key for key in figures if key.endswith(OF + name)}
        slices[name] = compared(of_slice, everything, draws=SLICE_DRAWS)
    one_config, other_config = (_by_kind(each.config) for each in pair)
    return {
        "dataset": one.config.name,
        "runs": [each.about() for each in pair],
        "settings": difference(one_config, other_config),
        "n_requests": len(users),
        "n_users": len(set(users)),
        "metrics": metrics,
        "slices": {name: rows for name, rows in slices.items() if rows},
    }


def per_request(one: Evaluated, other: Evaluated) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {metric: its values of all requests under both runs}.

    `value@k` is computed with the formula of either run for both. If the formulas differ, there is
    a figure for each.
    """
    k = one.config.evaluate.list_size
    formulas = [each.config.value for each in (one, other) if each.config.value]
    if len(formulas) == 2 and formulas[0] == formulas[1]:
        formulas.pop()
    labels = [f"value@{k}"]
    if len(formulas) == 2:
        labels = [f"value@{k} by the run's formula", f"value@{k} by the other's formula"]
    values = {
        label: (one.value(formula, k=k), other.value(formula, k=k))
        for label, formula in zip(labels, formulas, strict=False)
    }
    wanted = {"user_id", "at", "relevant", "group", "items"}
    names = [
        name
        for name in one.table.column_names
        if name not in wanted and not name.endswith(DISCOUNTED)
    ]
    return values | {name: (one.column(name), other.column(name)) for name in names}


def require_same_requests(one: Evaluated, other: Evaluated) -> None:
    """Raise CompareError unless both runs have the same data, split, requests and metrics."""
    ids = f"runs {one.run.run_id} and {other.run.run_id}"
    versions = [each.run.read("lake.json", made_by="train")["version"] for each in (one, other)]
    if versions[0] != versions[1]:
        raise CompareError(
            f"{ids} don't share their data: they read the versions {versions[0]} and {versions[1]}"
            " of the lake; train both without a refresh between, for example with"
            " `shortlist train CONFIG`"
        )
    getters: dict[str, Callable[[RunConfig], Any]] = {
        "[data] target_events": lambda config: config.data.target_events,
        "[data] repeats": lambda config: config.data.repeats,
        "[split] fractions": lambda config: config.split.fractions,
        "[split] max_requests_per_user": lambda config: config.split.max_requests_per_user,
        "seed (it draws the requests)": lambda config: config.seed,
        "[evaluate] list_size": lambda config: config.evaluate.list_size,
        "[evaluate] ks": lambda config: max(config.evaluate.ks),
    }
    for name, get in getters.items():
        if get(one.config) != get(other.config):
            raise CompareError(
                f"{ids} don't share their test requests: {name} is {get(one.config)} and"
                f" {get(other.config)}; want the same in both configurations"
            )
    if not one.table.select(KEYS).equals(other.table.select(KEYS)):
        raise CompareError(
            f"{ids} have different test requests ({one.table.num_rows:,} and"
            f" {other.table.num_rows:,}); train both again with this version"
        )
    if set(one.table.column_names) != set(other.table.column_names):
        raise CompareError(
            f"{ids} have figures of different versions of Shortlist; run `shortlist evaluate --run"
            " RUN` for both again"
        )


def _coverage(one: Evaluated, other: Evaluated, users: list[str]) -> dict[str, Any]:
    num_items = one.run.items.num_rows
    gap = coverage_difference(one.lists, other.lists, users, num_items=num_items)
    shares = {
        label: len(np.unique(each.lists[each.lists > 0])) / num_items
        for label, each in (("run", one), ("compare", other))
    }
    return {f"coverage@{one.config.evaluate.list_size}": shares | {"difference": gap}}


def _by_kind(config: RunConfig) -> dict[str, Any]:
    """Return a configuration with its sources and rankers by type, so that types are compared."""
    content = config.model_dump(mode="json", exclude={"name"})
    for part in ("sources", "rankers"):
        members = content["train"][part]
        content["train"][part] = {member["kind"]: member for member in members}
    return content
