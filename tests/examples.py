"""What only `make endurance` runs: long tests, and all examples of property tests."""

import os

import pytest

ENDURANCE = bool(os.environ.get("SHORTLIST_ENDURANCE"))
SHARE = 1.0 if ENDURANCE else 0.4


def endurance(why: str) -> pytest.MarkDecorator:
    """Return the mark of a test that only `make endurance` runs.

    Args:
        why: what takes long, for the list of skipped tests.
    """
    return pytest.mark.skipif(not ENDURANCE, reason=f"{why}: make endurance")


def examples(count: int) -> int:
    """Return `count` in `make endurance`, and two fifths of it in `make test`.

    Each run draws other examples, so many runs of `make test` see them all.
    """
    return max(1, round(count * SHARE))
