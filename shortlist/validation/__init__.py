"""What makes a batch good: rules compiled from the contracts to SQL, figures over all rows, and the
parting of good rows from bad ones. The judge (Great Expectations) is in `flows/validate_suites.py`.
"""

from shortlist.validation.config import (
    Expectation,
    RuleChange,
    ValidateConfig,
    ValidationFailed,
)
from shortlist.validation.figures import Figures
from shortlist.validation.rules import Rule, rules_for
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
