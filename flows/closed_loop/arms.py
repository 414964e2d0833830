"""Arms of a simulation: the policies that can fill the home pages of the simulated site.

An arm is named by a base and optional modifiers, such as `value+explore+mmr`. A loop simulates the
days of an arm. It runs in process (models are called directly) or over HTTP (with a real service).
"""

from dataclasses import dataclass, replace

from models.ranking.value import CLICKS_ALONE, ValueWeights
from models.recommend.rerank.config import MmrConfig
from shortlist.config import ConfigError
from simulation.oracle import Objective

CHAIN = ("item_knn", "ease", "content", "recent_popularity")
EXPLORE, MMR = 0.15, 0.3
MMR_POOL = 30
"""Number of candidates that MMR re-orders."""


@dataclass(frozen=True)
class Arm:
    """A policy that fills home pages.

    With `sources` it is a chain of trained models. With `oracle` it reads the users' true
    preferences from the simulation. Otherwise it is the site's logging policy, without a model.
    """

    name: str
    sources: tuple[str, ...] = ()
    weights: ValueWeights | None = None
    """Weights of clicks, ratings and other feedback in the label of the value ranker.

    Only for loops in process. None: the arm has no value ranker.
    """
    released: bool = False
    """Whether the LambdaMART of the training pipeline ranks the candidates.

    Only for loops over HTTP.
    """
    explore: float = 0.0
    """Share of positions filled with items drawn uniformly from all items."""
    mmr: float = 0.0
    """Strength of MMR re-ranking; 0 turns it off."""
    oracle: Objective | None = None

    @property
    def rerank(self) -> MmrConfig | None:
        """Config of the re-ranking of the arm's lists; None if `mmr` is 0."""
        return MmrConfig(strength=self.mmr, pool=MMR_POOL) if self.mmr > 0 else None

    @property
    def learns(self) -> bool:
        return bool(self.sources)


BASES: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("logging"),
        Arm("popularity", ("popularity",)),
        Arm("item_knn", ("item_knn",)),
        Arm("ease", ("ease",)),
        Arm("content", ("content",)),
        Arm("clicks", CHAIN, CLICKS_ALONE),
        Arm("value", CHAIN, ValueWeights()),
        Arm("chain", CHAIN, released=True),
        Arm("oracle", oracle="satisfaction"),
        Arm("oracle-clicks", oracle="clicks"),
    )
}
MODIFIERS = ("explore", "mmr")
DEFAULT_IN_PROCESS = "popularity,item_knn,value,oracle"
DEFAULT_OVER_HTTP = "popularity,item_knn,chain,oracle"


def parse_arms(text: str) -> list[Arm]:
    """Parse a list such as 'popularity,value+explore'.

    Raises:
        ConfigError: a base or modifier is unknown, a modifier doesn't fit its base, or an arm is
            given twice.
    """
    arms = [parse_arm(part.strip()) for part in text.split(",") if part.strip()]
    if not arms:
        raise ConfigError(f"no arms given, want some of {', '.join(BASES)}, separated by commas")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ConfigError(f"arms {text!r}: an arm is given twice, want each arm once")
    return arms


def parse_arm(name: str) -> Arm:
    """Parse one arm such as 'value+explore+mmr'; raises ConfigError as `parse_arms`."""
    base, *modifiers = name.split("+")
    if base not in BASES:
        raise ConfigError(
            f"arm '{name}' is unknown, want one of {', '.join(BASES)}; learned arms also accept"
            f" {' and '.join('+' + m for m in MODIFIERS)}"
        )
    arm = BASES[base]
    for modifier in modifiers:
        if modifier not in MODIFIERS or not arm.learns:
            raise ConfigError(
                f"arm '{name}': '+{modifier}' is not possible; only learned arms accept"
                f" modifiers: {' and '.join('+' + m for m in MODIFIERS)}"
            )
        amount = {"explore": EXPLORE, "mmr": MMR}[modifier]
        arm = replace(arm, **{modifier: amount})
    return replace(arm, name=name)


def in_process_problem(arm: Arm) -> str | None:
    """Return the message for an arm that can't run in process; None for an arm that can."""
    if arm.released:
        return (
            f"arm '{arm.name}': its ranker (the pipeline's) runs over HTTP only; want clicks or"
            " value, or the command without --in-process"
        )
    return None


def over_http_problem(arm: Arm) -> str | None:
    """Return the message for an arm that can't run over HTTP; None for an arm that can.

    Over HTTP a release fills the pages. It doesn't explore, and the training pipeline fits its
    ranker.
    """
    if arm.weights is not None:
        other = "chain+mmr" if arm.mmr else "chain"
        return (
            f"arm '{arm.name}': its ranker runs in process only, over HTTP every chain has the"
            f" pipeline's ranker; want {other}, or --in-process"
        )
    if arm.learns and arm.explore:
        return (
            f"arm '{arm.name}': a release does not explore yet; want --in-process, or the arm"
            " without +explore"
        )
    return None
