"""Arms: who fills the pages. `base+modifier`, as in `value+explore+mmr`."""

from dataclasses import dataclass, replace

from models.ranking.value import CLICKS_ALONE, ValueWeights
from shortlist.config import ConfigError
from shortlist.datasets.simulated.oracle import Objective

CHAIN = ("item_knn", "ease", "content", "recent_popularity")
EXPLORE, MMR = 0.15, 0.3


@dataclass(frozen=True)
class Arm:
    """What fills a page: the shop's own policy (no sources), an oracle, or a chain."""

    name: str
    sources: tuple[str, ...] = ()
    weights: ValueWeights | None = None
    """What the chain's ranker learns; None: no ranker, the sources' own order."""
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
        Arm("oracle", oracle="satisfaction"),
        Arm("oracle-clicks", oracle="clicks"),
    )
}
MODIFIERS = ("explore", "mmr")


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
