"""SQL that reads category lists in any of several notations.

These are separated names, JSON, lists of Python and PostgreSQL written as text, and typed lists.
"""

import re

from shortlist.datasets.config import ItemFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.readers import Raw
from shortlist.lake.engine import name, quoted

STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
BARE = r"""[^,'"{}()\[\]:]+"""
TUPLE = rf"""^\(\s*(?:{STRING})(\s*,\s*(?:{STRING}))*\s*,?\s*\)$"""
"""Regular expression of a Python tuple of strings."""
BRACES = rf"""^\{{\s*(?:{STRING}|{BARE})(\s*,\s*(?:{STRING}|{BARE}))*\s*\}}$"""
"""Regular expression of a Python set of strings or a PostgreSQL array."""
EMPTY = r"^(\(\s*\)|\{\s*\}|\[\s*\])$"
OBJECTS = r"^(\[\s*)?\{.*\}\s*\]?$"
STRINGS = r"""^\[[\[\s]*['"].*['"][\]\s]*\]$"""
WITH_NONE = rf"""^\[\s*(?:{STRING}|None|nan)(\s*,\s*(?:{STRING}|None|nan))*\s*,?\s*\]$"""
"""Regular expression of a Python list of strings and missing values."""
BARE_LIST = r"""^\[[^\[\]{}'"]+\]$"""
NO_CATEGORY = "'', '(no genres listed)', 'nan', 'null', 'none', 'n/a', '\\n'"
"""Words for a missing category, in lower case."""
LIST_START = r"""^(\[\s*[\[{'"]|[{(]\s*['"])"""


def categories_sql(raw: Raw, column: str, table: ItemFile, where: str) -> tuple[str, str]:
    """Return SQL of a cell's list of category names, and of whether the cell can't be read.

    If the list has objects, a name is an object's value of `category_key`. White space around names
    is removed. Repeated names are removed too, unless the categories are a path from general to
    specific.

    Raises:
        DatasetError: a typed list of objects has no such key.
    """
    column_type, expression = raw.types[column], raw.expressions[column]
    key, bad = table.category_key, "false"
    if column_type.startswith("STRUCT") and column_type.endswith("[]"):
        if f"{key} " not in column_type and f'"{key}" ' not in column_type:
            raise DatasetError(
                f"{where}: '{column}' is {column_type}: no '{key}'; set category_key"
            )
        parts = f"list_transform(coalesce({expression}, []), lambda x: x.{name(key)}::VARCHAR)"
    elif column_type.endswith("[]"):
        parts = f"coalesce({expression}::VARCHAR[], [])"
    else:
        text = f"trim(coalesce({expression}::VARCHAR, ''))"
        parts = _of_text(text, table)
        bad = f"regexp_matches({text}, {quoted(LIST_START)}) AND len({parts}) = 0"
    trimmed = f"list_transform({parts}, lambda x: trim(x))"
    kept = f"list_filter({trimmed}, lambda x: lower(x) NOT IN ({NO_CATEGORY}))"
    if table.category_separator == ">":
        return kept, bad
    return f"list_filter({kept}, lambda x, i: list_position({kept}, x) = i)", bad


def _of_text(text: str, table: ItemFile) -> str:
    key = table.category_key
    named = "['\"]" + re.escape(key) + r"['\"]\s*:\s*(" + STRING + r"|[\w.]+)"
    objects = _unquoted(f"regexp_extract_all({text}, {quoted(named)}, 1)")
    strings = _unquoted(f"regexp_extract_all({text}, {quoted(STRING)})")
    parts = _unquoted(f"regexp_extract_all({text}[2:-2], {quoted(f'{STRING}|{BARE}')})")
    whole, values = quoted(f'$."{key}"'), quoted(f'$[*]."{key}"')
    return (
        f"CASE WHEN json_valid({text}) AND json_type({text}) = 'ARRAY' THEN"
        f" CASE json_type({text}, '$[0]') WHEN 'OBJECT' THEN json_extract_string({text}, {values})"
        f" WHEN 'ARRAY' THEN json_extract_string({text}, '$[*][*]')"
        f" ELSE json_extract_string({text}, '$[*]') END"
        f" WHEN json_valid({text}) AND json_type({text}) = 'OBJECT' THEN"
        f" list_filter([json_extract_string({text}, {whole})], lambda x: x IS NOT NULL)"
        f" WHEN regexp_matches({text}, {quoted(EMPTY)}) THEN []::VARCHAR[]"
        f" WHEN regexp_matches({text}, {quoted(TUPLE)}) THEN {strings}"
        f" WHEN regexp_matches({text}, {quoted(BRACES)}) THEN {parts}"
        f" WHEN regexp_matches({text}, {quoted(OBJECTS)}) THEN {objects}"
        f" WHEN regexp_matches({text}, {quoted(f'{STRINGS}|{WITH_NONE}')}) THEN {strings}"
        f" WHEN regexp_matches({text}, {quoted(BARE_LIST)}) THEN string_split({text}[2:-2], ',')"
        f" WHEN regexp_matches({text}, {quoted(LIST_START)}) THEN []::VARCHAR[]"
        f" ELSE string_split({text}, {quoted(table.category_separator)}) END"
    )


def _unquoted(tokens: str) -> str:
    """Return SQL that removes quotes and backslashes from quoted strings in a list of tokens."""
    inner = "replace(replace(x[2:-2], '\\''', ''''), '\\\"', '\"')"
    is_string = "x[1] IN ('''', '\"')"
    return f"list_transform({tokens}, lambda x: CASE WHEN {is_string} THEN {inner} ELSE x END)"
