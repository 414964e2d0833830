"""Feast's classes are not rewritten by typeguard when they are imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("first", "rewritten"), [("sys", True), ("shortlist.feature_store", False)]
)
def test_feast_is_imported_without_the_rewriting_of_its_classes(
    first: str, rewritten: bool
) -> None:
    """Feast alone shows that the check would notice a rewritten class."""
    code = (
        f"import sys, {first}\n"
        "from feast.feature_service import FeatureService\n"
        "found = 'typeguard' in FeatureService.__init__.__code__.co_names\n"
        f"sys.exit(found != {rewritten})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
