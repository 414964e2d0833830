"""The limits of the gates, and their verdicts."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from shortlist.config import Config


class GatesConfig(Config):
    """Limits of the gates. configs/gates.toml explains each value and why it was chosen."""

    margin: float = Field(default=0.01, gt=0)
    """The paired interval of nDCG@10, challenger minus champion, must not begin below -margin."""
    loss_budget: float = Field(default=0.01, ge=0)
    """Largest sum of the losses that promotions may accept; a gain gives back. Unit: nDCG@10."""
    value_margin: float = Field(default=0.10, gt=0)
    """With `[value]`, the same margin for value@10, as a share of the opponent's value."""
    ndcg_for_value: float = Field(default=0.0, ge=0)
    """nDCG@10 that a release may lose, beyond margin and budget, if its value rises."""
    min_users: int = Field(default=20, ge=2)
    """With fewer test users the quality gate fails."""
    min_coverage: float = Field(default=0.10, ge=0, le=1)
    """Least share of the catalogue that appears in at least one test list of ten."""
    min_reached: float = Field(default=0.5, ge=0, le=1)
    """In a large catalogue, the least share of the items that the test lists can reach."""
    min_index_recall: float = Field(default=0.97, ge=0, le=1)
    """Least recall@100 of each vector index against exact search."""
    min_overlap: float = Field(default=0.1, ge=0, le=1)
    """Least mean Jaccard overlap of lists of ten by the release and by the backtest."""
    min_coverage_kept: float = Field(default=0.7, ge=0, le=1)
    """Least coverage@10 as a share of the backtest's."""
    max_score_shift: float = Field(default=1.0, gt=0)
    """Largest shift of a source's mean score, in standard deviations of the backtest's."""
    max_score_stretch: float = Field(default=2.0, ge=1)
    """Largest factor by which the standard deviation of a source's scores may change."""
    off_policy: Literal["if_explored", "required", "off"] = "if_explored"
    """Whether the off-policy gate judges: if there are explored lists, always, or never."""
    off_policy_margin: float = Field(default=0.1, gt=0)
    """Share of the champion's estimated outcomes that a release may lose."""


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


def at_least(name: str, figure: float, floor: float, reason: str) -> Gate:
    """Return the verdict of a gate that passes if `figure` >= `floor`."""
    return Gate(name, bool(figure >= floor), figure, floor, reason)
