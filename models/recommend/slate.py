"""Answers of a Recommender, with all fields that the serving log stores."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.recommend.business_rules.compiled import CompiledRules
from models.recommend.rules import RULES_VERSION
from shortlist.http.api import Item


@dataclass(frozen=True)
class Slate:
    """One response, with all fields that the serving log (the log of responses) stores."""

    items: list[Item]
    at: int
    """Time as of which the list was ranked, microseconds. All pages of a list have the same."""
    user_known: bool
    skipped_stages: list[str]
    stage_seconds: dict[str, float]
    context_id: str
    user_as_of: int
    as_of: dict[str, int]  # feature view -> time of the newest event in its state, 0 for none
    # Feature view -> time up to which the row that the last refresh wrote is complete, 0: no row.
    stamps: dict[str, int]
    features: list[list[float]]  # per shown item, in the order of the ranking schema
    propensities: list[float]
    pack_id: str
    release_id: str
    rules_version: str = RULES_VERSION
    """Version of the built-in hard rules; with business rules, also 8 hex digits of their hash."""
    rules: list[str] = field(default_factory=list)
    """Names of business rules that excluded items, and of caps that passed over an item."""
    seed: int | None = None
    """Seed of the draws; None without exploration."""
    next_cursor: str | None = None


@dataclass(frozen=True)
class SearchSlate:
    """The answer to a search."""

    items: list[Item]
    at: int
    user_known: bool
    skipped_stages: list[str]


def rules_version(parts: Sequence[CompiledRules]) -> str:
    """Return the version of the built-in hard rules.

    If there are business rules, 8 hex digits of their digest are appended.
    """
    if not parts:
        return RULES_VERSION
    if len(parts) == 1:
        return f"{RULES_VERSION}-{parts[0].digest[:8]}"
    both = hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()
    return f"{RULES_VERSION}-{both[:8]}"
