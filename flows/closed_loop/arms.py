"""Arms: who fills the pages. `base+modifier`, as in `value+explore+mmr`."""

from dataclasses import dataclass, replace

from models.ranking.value import CLICKS_ALONE, ValueWeights
from shortlist.config import ConfigError
from simulation.oracle import Objective

CHAIN = ("item_knn", "ease", "content", "recent_popularity")
EXPLORE, MMR = 0.15, 0.3


@dataclass(frozen=True)
class Arm:
    """What fills a page: the shop's own policy (no sources), an oracle, or a chain."""

    name: str
    sources: tuple[str, ...] = ()
    weights: ValueWeights | None = None
    """What the chain's ranker learns, in process; None: no such ranker."""
    released: bool = False
    """Ranked as a release of the pipeline is (LambdaMART on what users chose next): over HTTP."""
    explore: float = 0.0
    """Share of places given to items drawn alike from everything."""
    mmr: float = 0.0
    oracle: Objective | None = None

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
    """'popularity,value+explore' -> arms.

    Raises:
        ConfigError: an unknown base or modifier, one that makes no sense there, or an arm twice.
    """
    arms = [parse_arm(part.strip()) for part in text.split(",") if part.strip()]
    if not arms:
        raise ConfigError(f"no arms given; want some of {', '.join(BASES)}, with commas between")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ConfigError(f"arms {text!r}: each arm once")
    return arms


def parse_arm(name: str) -> Arm:
    """Raises ConfigError."""
    base, *modifiers = name.split("+")
    if base not in BASES:
        raise ConfigError(
            f"arm '{name}' is unknown, want one of {', '.join(BASES)}, a chain also with"
            f" {' or '.join('+' + m for m in MODIFIERS)}"
        )
    arm = BASES[base]
    for modifier in modifiers:
        if modifier not in MODIFIERS or not arm.learns:
            raise ConfigError(
                f"arm '{name}': '+{modifier}' is not possible; a learned arm takes"
                f" {' and '.join('+' + m for m in MODIFIERS)}"
            )
        amount = {"explore": EXPLORE, "mmr": MMR}[modifier]
        arm = replace(arm, **{modifier: amount})
    return replace(arm, name=name)


def why_not_in_process(arm: Arm) -> str | None:
    """What is wrong with an arm there, and what would be right; None: nothing."""
    if arm.released:
        return (
            f"arm '{arm.name}': its ranker is the pipeline's, which runs over HTTP only; want"
            " clicks or value, or the command without --in-process"
        )
    return None


def why_not_over_http(arm: Arm) -> str | None:
    """As `why_not_in_process`: a release neither explores nor has a ranker of another label."""
    if arm.weights is not None:
        other = "chain+mmr" if arm.mmr else "chain"
        return (
            f"arm '{arm.name}': over HTTP every chain has the pipeline's ranker, the same for"
            f" clicks and value; want {other}, or --in-process"
        )
    if arm.learns and arm.explore:
        return (
            f"arm '{arm.name}': a release does not explore yet; want --in-process, or the arm"
            " without +explore"
        )
    return None
