"""The page of all features that rankers read, and of the states that the feature store keeps."""

from cli.reference.markdown import table, text
from shortlist.features.descriptions import GROUPS
from shortlist.features.state_descriptions import MEANINGS


def features_page() -> str:
    """Return the content of docs/reference/features.md."""
    page = """# All features

Made from the descriptions by `python -m cli.reference`; `shortlist features` prints the same.
[Features](../features.md) explains how they are stored and computed. Attributes of users are
further features: integer codes `profile_<attribute>`.
"""
    for group in GROUPS:
        rows = [
            [f"`{one.name}`", text(one.meaning), text(one.window), one.default, one.owner]
            for one in group.features
        ]
        page += f"\n## {group.name}\n{text(group.meaning)}\n\n"
        page += table(["feature", "meaning", "window", "default", "owner"], rows)
    page += "\n## States\nWhat Feast's views hold; features are computed from them.\n\n"
    rows = [[f"`{name}`", text(meaning)] for name, meaning in MEANINGS.items()]
    return page + table(["field", "meaning"], rows)
