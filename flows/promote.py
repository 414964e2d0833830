"""Promote: the gates decide whether a release may serve; one pointer moves, or nothing does."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field

from shortlist.config import Config, Settings, load_toml
from shortlist.release import Release, ReleaseError, ReleaseStore


class GatesConfig(Config):
    """configs/gates.toml says what each means and why it has its value."""

    metric: str = "ndcg@10"
    tolerance: float = Field(0.005, ge=0)
    min_coverage: float = Field(0.10, ge=0, le=1)
    min_reached: float = Field(0.5, ge=0, le=1)
    min_index_recall: float = Field(0.97, ge=0, le=1)


@dataclass(frozen=True)
class Gate:
    """One gate's verdict with both figures."""

    name: str
    passed: bool
    figure: float | None
    floor: float | None
    reason: str


@flow(name="promote", log_prints=True)
def promote_flow(release_id: str, gates: str = "configs/gates.toml") -> dict[str, Any]:
    """Move the pointer to `release_id` if every gate holds; else say which did not."""
    settings = Settings()
    store = ReleaseStore(settings.releases)
    config = load_toml(Path(gates), GatesConfig)
    try:
        verdicts = judge_gates(store.open(release_id), config)
    except ReleaseError as error:
        verdicts = [Gate("integrity", False, None, None, str(error))]
    for gate in verdicts:
        print(f"gate {gate.name}: {'pass' if gate.passed else 'FAIL'}: {gate.reason}")
    promoted = all(gate.passed for gate in verdicts)
    if promoted:
        store.promote(release_id)
        print(f"promote: {release_id} serves now")
    else:
        print(f"promote: {release_id} stays out; {store.current_id() or 'nothing'} goes on serving")
    return {
        "release_id": release_id,
        "promoted": promoted,
        "serving": store.current_id(),
        "gates": [asdict(gate) for gate in verdicts],
    }


def judge_gates(release: Release, config: GatesConfig) -> list[Gate]:
    """Verdicts on a verified release (opening it has checked every hash)."""
    metrics = release.about["metrics"]
    opponent = "champion" if "champion" in metrics else "recent_popularity"
    figure = metrics["chain"][config.metric]["mean"]
    rival = metrics[opponent][config.metric]["mean"]
    gates = [
        Gate("integrity", True, None, None, f"all {len(release.files)} files match their sha256"),
        _at_least(
            "quality",
            figure,
            rival - config.tolerance,
            f"{config.metric} {figure:.4f}, {opponent} has {rival:.4f}"
            f" (tolerance {config.tolerance})",
        ),
    ]
    covered = next(key for key in metrics["chain"] if key.startswith("coverage@"))
    coverage = metrics["chain"][covered]["mean"]
    gates.append(_coverage(covered, coverage, release.about.get("reachable_coverage", 1.0), config))
    for source, figures in release.about["source_figures"].items():
        recall = figures.get("index_recall@100")
        if recall is not None:
            gates.append(
                _at_least(
                    f"index recall of {source}",
                    recall,
                    config.min_index_recall,
                    f"{recall:.4f} of exact search ({figures['index']}),"
                    f" floor {config.min_index_recall}",
                )
            )
    return gates


def _coverage(name: str, figure: float, reachable: float, config: GatesConfig) -> Gate:
    """The floor is lower where the judged people are too few to be shown much of the catalogue."""
    floor = min(config.min_coverage, config.min_reached * reachable)
    reason = f"{name} {figure:.3f}, floor {floor:.3g}"
    if floor < config.min_coverage:
        reason += f" ({config.min_reached:g} of the {reachable:.3f} that lists without a common"
        reason += " item would cover)"
    return _at_least("coverage", figure, floor, reason)


def _at_least(name: str, figure: float, floor: float, reason: str) -> Gate:
    return Gate(name, bool(figure >= floor), figure, floor, reason)
