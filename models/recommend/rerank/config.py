"""Settings of re-ranking: which method, how strong, and over how many candidates."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shortlist.config import Config

POOL = 50
"""Default `pool` of both methods."""

Vectors = Literal["categories", "content", "collaborative"]
"""Vectors that MMR compares: categories, or those of the content or the two-tower source."""
VECTOR_SOURCE: dict[Vectors, str] = {"content": "content", "collaborative": "two_tower"}
"""Value of `vectors` -> source of the item vectors. Categories need no source."""


class MmrConfig(Config):
    """Re-ranking by maximal marginal relevance: prefers items unlike those before them."""

    kind: Literal["mmr"] = "mmr"
    strength: float = Field(gt=0, le=1)
    """Weight of the similarity to the items before; the score has weight 1 - strength."""
    vectors: Vectors = "categories"
    """Vectors by which items are compared."""
    pool: int = Field(default=POOL, ge=1)
    """Number of best candidates that are re-ranked; the others follow by score. It doesn't depend
    on the length of the list, so the first 10 items of a list of 100 are those of a list of 10."""


class CalibrationConfig(Config):
    """Re-ranking by calibration: mixes categories as in the user's history."""

    kind: Literal["calibration"] = "calibration"
    strength: float = Field(gt=0, le=1)
    """Weight of the divergence between the categories of the list and of the history; the score has
    weight 1 - strength."""
    pool: int = Field(default=POOL, ge=1)
    """Number of best candidates that are re-ranked, as in `MmrConfig`."""


RerankConfig = Annotated[MmrConfig | CalibrationConfig, Field(discriminator="kind")]


def vector_source(config: MmrConfig | CalibrationConfig | None) -> str | None:
    """Return the source whose item vectors re-ranking reads; None if it reads none."""
    return VECTOR_SOURCE.get(config.vectors) if isinstance(config, MmrConfig) else None


def with_rerank(content: Any) -> Any:
    """Convert the keys of a config that an earlier version saved, before validation.

    `mmr_strength` becomes `rerank`, or is dropped if it is 0. `full_ranker` is dropped; it was a
    setting of the former two-step ranker (cascade).

    Raises:
        ValueError: `rerank` and a non-zero `mmr_strength` are both set.
    """
    if not isinstance(content, dict) or not {"mmr_strength", "full_ranker"} & set(content):
        return content
    rest = {k: v for k, v in content.items() if k not in ("mmr_strength", "full_ranker")}
    strength = content.get("mmr_strength", 0)
    if strength == 0:
        return rest
    if rest.get("rerank") is not None:
        raise ValueError(
            f"mmr_strength = {strength} and rerank are both set; keep only"
            f' rerank = {{ kind = "mmr", strength = {strength} }}'
        )
    return rest | {"rerank": {"kind": "mmr", "strength": strength}}
