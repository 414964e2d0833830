"""The query parameters of a page, checked: which list to show for whom."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Request
from pydantic import ValidationError

from services.console.deployment import Deployment
from shortlist.http.api import Context, Filters, RecommendRequest

if TYPE_CHECKING:
    from models.recommend.recommender import Recommender

DIVERSITY = ("mmr", "calibration")
MAX_K = 100
DEFAULT_K = 10


class OptionError(ValueError):
    """A query parameter is invalid; the message names it and says what is valid."""


@dataclass(frozen=True)
class Options:
    """A list to show: for whom, how long, with which filters, and by which release."""

    request: RecommendRequest
    variant: str
    """Empty for what the user is served now, "arm:NAME" or "release:ID"."""
    diversity: str
    """Empty for the release's re-ranking, "off", or one of DIVERSITY."""
    strength: float


def options_of(request: Request) -> Options:
    """Read the options from the query of a page.

    Raises:
        OptionError: a parameter is invalid.
    """
    given = request.query_params
    k = number(given.get("k"), "k", default=DEFAULT_K, least=1, most=MAX_K)
    diversity = given.get("diversity", "")
    if diversity not in ("", "off", *DIVERSITY):
        raise OptionError(f"diversity: '{diversity}', want off, {', '.join(DIVERSITY)} or nothing")
    try:
        asked = RecommendRequest(
            user_id=given.get("user") or None,
            recent_items=names(given.get("recent")) or (None if given.get("user") else []),
            context=Context(
                surface=given.get("surface") or None, device=given.get("device") or None
            ),
            k=int(k),
            filters=Filters(
                categories=names(given.get("categories")) or None,
                exclude_categories=names(given.get("without")),
                max_price=optional(given.get("max_price"), "max_price"),
                published_after=day(given.get("published_after")),
            ),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise OptionError(f"{where}: {problem['msg'].removeprefix('Value error, ')}") from None
    return Options(
        request=asked,
        variant=given.get("variant", ""),
        diversity=diversity,
        strength=number(given.get("strength"), "strength", default=0.3, least=0.01, most=1),
    )


def recommender_for(running: Deployment, variant: str, user_id: str | None) -> "Recommender":
    """Return the release that a variant names. Loading another release takes seconds.

    Raises:
        OptionError: there is no such arm or variant.
        ReleaseError, PackError: the release can't be loaded.
    """
    kind, _, name = variant.partition(":")
    if kind == "release" and name:
        return running.beside(name).recommender.aside()
    if kind not in ("", "arm"):
        raise OptionError(f"variant: '{variant}', want arm:NAME, release:ID or nothing")
    try:
        return running.serving_of(user_id or "", name or None)[0].recommender.aside()
    except KeyError as error:
        raise OptionError(f"arm '{name}': {error.args[0]}") from None


def with_diversity(recommender: "Recommender", options: Options) -> "Recommender":
    """Return the recommender with the re-ranking that the options ask for."""
    from models.recommend.rerank.config import CalibrationConfig, MmrConfig

    if options.diversity == "":
        return recommender
    config: Any = None
    if options.diversity == "mmr":
        config = MmrConfig(strength=options.strength)
    elif options.diversity == "calibration":
        config = CalibrationConfig(strength=options.strength)
    return recommender.with_rerank(config)


def number(text: str | None, name: str, *, default: float, least: float, most: float) -> float:
    """Return a parameter as a number. Raises OptionError if it isn't one within the limits."""
    value = optional(text, name)
    if value is None:
        return default
    if not least <= value <= most:
        raise OptionError(f"{name}: {text}, want {least:g} to {most:g}")
    return value


def optional(text: str | None, name: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{name}: '{text}' is not a number") from None


def names(text: str | None) -> list[str]:
    """Split a list with commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def day(text: str | None) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise OptionError(f"published_after: '{text}', want YYYY-MM-DD") from None
    return round(moment.timestamp()) * 1_000_000
