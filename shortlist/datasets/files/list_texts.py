"""SQL that reads a list of names from a text.

The text may be JSON, or as Python, numpy, Java or PostgreSQL write lists. Other texts are separated
names. A text that looks like a list and can't be read gives NULL, never parts of its
notation.
"""

import re

from shortlist.datasets.config import ALL_KEYS, ItemFile
from shortlist.lake.engine import quoted

STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
BARE = r"""[^,'"{}()\[\]:]+"""
SCALAR = r"""None|nan|NaN|NULL|True|False|true|false|null|[-+]?[\d.]+(?:[eE][-+]?\d+)?"""
WRAPPER = (
    r"(?s)^(?:\w+\.)*(?:frozenset|set|array|list|tuple|dict_keys|dict|Index|Series)"
    r"\((.*?)(?:,\s*dtype\s*=[^()]*)?\)$"
)
"""Regular expression of a Python object whose contents are a literal, such as frozenset({'a'})."""
EMPTY = r"^(\(\s*\)|\{\s*\}|\[\s*\])$"
LITERALS = rf"""(?s)^[\[({{](?:\s*(?:{STRING}|{SCALAR}|[\[\](){{}}])\s*,?)*\s*[\])}}]$"""
"""Regular expression of a list, tuple or set of strings and other values, in any nesting; also
numpy's notation, which has no commas.
"""
PAIRS = rf"""(?s)^[\[({{]\s*[\[(]\s*(?:{STRING})\s*,\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*[\])]"""
"""Regular expression of a list of pairs of a name and a weight, which is not read."""
LEAF = rf"{STRING}|[^\s,'\"\[\](){{}}]+"
_FLAG = rf"(?:{STRING})\s*:\s*(?:{SCALAR})"
FLAGS = rf"(?s)^\{{\s*{_FLAG}(?:\s*,\s*{_FLAG})*\s*,?\s*\}}$"
"""Regular expression of a Python dict whose values are numbers, booleans or None."""
FLAG = rf"({STRING})\s*:\s*({SCALAR})"
OBJECTS = r"(?s)^(\[\s*)?\{.*\}\s*\]?$"
EQUALS = r"(?s)^(\[\s*)?\{\s*[\w-]+=.*\}\s*\]?$"
"""Regular expression of objects as Java and Spark write them: {id=16, name=Animation}."""
EQUAL_FLAGS = rf"""^\{{\s*[^{{}}=,'"]+=(?:{SCALAR})(?:,[^{{}}=,'"]+=(?:{SCALAR}))*\s*\}}$"""
EQUAL_FLAG = rf"[{{,]\s*([^{{}}=,]+)=({SCALAR})"
BRACES = rf"""^\{{\s*(?:{STRING}|{BARE})(\s*,\s*(?:{STRING}|{BARE}))*\s*\}}$"""
"""Regular expression of a PostgreSQL array."""
NUMBERS = r"^\[\s*[-+\d.eE]+(\s+[-+\d.eE]+)*\s*\]$"
BARE_LIST = r"""^[\[][^\[\]{}'"]+\]$|^\([^(){}'"]+,[^(){}'"]*\)$"""
STRUCTURED = (
    r"""(?s)^(\{|\[\s*[\[({'"]|\(\s*[\[({'"]|\[.*\]$|\[[^\]]*$|\w+\(\s*[\[({'"]"""
    r"""|a:\d+:\{|"[^"]*"=>)"""
)
"""Regular expression of a text that looks like a list; `[DVD] Drama` doesn't. The last two forms
are PHP's and PostgreSQL's hstore.
"""
JSON_LEAF = r'"(?:[^"\\]|\\.)*"|[-+\w.]+'
FALSE = "'', '0', 'false', 'no', 'null', 'none', 'nan'"


def truthy_sql(text: str) -> str:
    """Return an SQL condition: the text isn't NULL, a zero or a word for false or missing."""
    plain = f"lower(trim({text}))"
    number = f"coalesce(try_cast({plain} AS DOUBLE), 1) <> 0"
    return f"coalesce({plain} NOT IN ({FALSE}) AND {number}, false)"


def text_list_sql(text: str, table: ItemFile) -> str:
    """Return SQL of the list of names in a text; NULL if it looks like a list but can't be read.

    Args:
        text: SQL of the text, without surrounding white space and not NULL.
        table: its `category_key` and `category_separator` are used.
    """
    key = table.category_key
    unwrapped = f"regexp_replace({text}, {quoted(WRAPPER)}, '\\1')"
    no_quotes = "regexp_replace(t, '^\"([^\"]*)\"$', '\\1')"
    forms = {
        **(_flags() if key == ALL_KEYS else {}),
        LITERALS: _unquoted(f"regexp_extract_all(t, {quoted(LEAF)})"),
        EQUALS: _objects(key, equals=True),
        BRACES: _unquoted(f"regexp_extract_all(t[2:-2], {quoted(f'{STRING}|{BARE}')})"),
        OBJECTS: _objects(key),
        NUMBERS: "regexp_split_to_array(trim(t[2:-2]), '\\s+')",
        BARE_LIST: "string_split(t[2:-2], ',')",
        STRUCTURED: "NULL",
    }
    cases = " ".join(
        f"WHEN regexp_matches(t, {quoted(form)}) THEN {names}" for form, names in forms.items()
    )
    found = (
        f"CASE WHEN regexp_matches(t, {quoted(PAIRS)}) THEN NULL"
        f" WHEN regexp_matches(t, {quoted(EMPTY)}) THEN []::VARCHAR[]"
        f" WHEN json_valid(t) AND json_type(t) IN ('ARRAY', 'OBJECT') THEN {_json(key)} {cases}"
        f" ELSE string_split({no_quotes}, {quoted(table.category_separator)}) END"
    )
    return f"list_transform([{unwrapped}], lambda t: {found})[1]"


def _json(key: str) -> str:
    """Return SQL of the names in a JSON array or object `t`."""
    path = quoted(f'$."{key}"')
    if key == ALL_KEYS:
        flags = "map_entries(from_json(t, '\"MAP(VARCHAR, VARCHAR)\"'))"
        truthy = truthy_sql("(f).value")
        whole = f"list_transform(list_filter({flags}, lambda f: {truthy}), lambda f: (f).key)"
    else:
        whole = f"nullif({_leaves(f'[json_extract(t, {path})]')}, [])"
    of_objects = " ".join(
        f"WHEN list_contains(list_transform({nodes}, lambda n: json_type(n)), 'OBJECT')"
        f" THEN nullif({_leaves(_values(nodes, path))}, [])"
        for nodes in ("json_extract(t, '$[*]')", "json_extract(t, '$[*][*]')")
    )
    return (
        f"CASE WHEN json_type(t) = 'OBJECT' THEN {whole}"
        f" {of_objects}"
        f" ELSE {_leaves('[t::JSON]')} END"
    )


def _values(nodes: str, path: str) -> str:
    """Return SQL of a list of JSON values in which an object is replaced by its value at `path`."""
    value = f"CASE json_type(n) WHEN 'OBJECT' THEN json_extract(n, {path}) ELSE n END"
    return f"list_transform({nodes}, lambda n: {value})"


def _leaves(nodes: str) -> str:
    """Return SQL of all texts and numbers within a list of JSON values; objects have none."""
    tokens = f"regexp_extract_all(n::VARCHAR, {quoted(JSON_LEAF)})"
    texts = f"list_transform({tokens}, lambda k: json_extract_string(k, '$'))"
    nothing = "n IS NULL OR json_type(n) IN ('OBJECT', 'NULL')"
    each = f"CASE WHEN {nothing} THEN []::VARCHAR[] ELSE {texts} END"
    return f"flatten(list_transform({nodes}, lambda n: {each}))"


def _flags() -> dict[str, str]:
    """Return {regular expression of a map of flags: SQL of its keys that are true}."""
    out = {}
    for form, flag in ((FLAGS, FLAG), (EQUAL_FLAGS, EQUAL_FLAG)):
        names = _unquoted(f"regexp_extract_all(t, {quoted(flag)}, 1)")
        values = f"regexp_extract_all(t, {quoted(flag)}, 2)"
        out[form] = f"list_filter({names}, lambda k, i: {truthy_sql(f'{values}[i]')})"
    return out


def _objects(key: str, *, equals: bool = False) -> str:
    """Return SQL of the values of `key` in objects as Python or Java write them; NULL if none."""
    if equals:
        named = r"[{,]\s*" + re.escape(key) + r"=(.*?)(?:,\s*[\w-]+=|\})"
        return f"nullif(regexp_extract_all(t, {quoted(named)}, 1), [])"
    named = "['\"]" + re.escape(key) + r"['\"]\s*:\s*(" + STRING + r"|[\w.]+)"
    return f"nullif({_unquoted(f'regexp_extract_all(t, {quoted(named)}, 1)')}, [])"


def _unquoted(tokens: str) -> str:
    """Return SQL that removes quotes and backslashes from quoted strings in a list of tokens."""
    inner = "replace(replace(x[2:-2], '\\''', ''''), '\\\"', '\"')"
    is_string = "x[1] IN ('''', '\"')"
    return f"list_transform({tokens}, lambda x: CASE WHEN {is_string} THEN {inner} ELSE x END)"
