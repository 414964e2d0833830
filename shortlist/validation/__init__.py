"""Validation without frameworks: rules on rows, figures of a batch, bad rows, quarantine.

Great Expectations checks the same rows in `flows/validation/suites.py`.
"""

from shortlist.validation.config import (
    Expectation,
    RuleChange,
    ValidateConfig,
    ValidationFailed,
)
from shortlist.validation.figures import Figures
from shortlist.validation.row_rules import rules_for
from shortlist.validation.rules import Rule
from shortlist.validation.sorting import Sorting

__all__ = [
    "Expectation",
    "Figures",
    "Rule",
    "RuleChange",
    "Sorting",
    "ValidateConfig",
    "ValidationFailed",
    "rules_for",
]
