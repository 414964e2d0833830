"""How many examples a property test draws."""

import os

SHARE = 1.0 if os.environ.get("SHORTLIST_ENDURANCE") else 0.4


def examples(count: int) -> int:
    """Return `count` in `make endurance`, and two fifths of it in `make test`.

    Each run draws other examples, so many runs of `make test` see them all.
    """
    return max(1, round(count * SHARE))
