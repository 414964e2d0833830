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
    """Weight of the similarity; the score has weight 1 - strength."""
    vectors: Vectors = "categories"
    pool: int = Field(default=POOL, ge=1)
    """Number of best candidates that are re-ranked; the others follow by score. It doesn't depend
    on k, so the first 10 of 100 items are the 10 items of a shorter list."""


class CalibrationConfig(Config):
    """Re-ranking by calibration: mixes categories as in the user's history."""

    kind: Literal["calibration"] = "calibration"
    strength: float = Field(gt=0, le=1)
    """Weight of the divergence; the score has weight 1 - strength."""
    pool: int = Field(default=POOL, ge=1)
    """See `MmrConfig`."""


RerankConfig = Annotated[MmrConfig | CalibrationConfig, Field(discriminator="kind")]


def vector_source(config: MmrConfig | CalibrationConfig | None) -> str | None:
    """Return the source whose item vectors re-ranking reads; None if it reads none."""
    return VECTOR_SOURCE.get(config.vectors) if isinstance(config, MmrConfig) else None


def with_rerank(content: Any) -> Any:
    """Convert the former keys of a saved config, before validation.

    `mmr_strength` becomes `rerank`; 0 is dropped. `full_ranker`, a setting of the removed
    two-step ranker (cascade), is dropped.

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
