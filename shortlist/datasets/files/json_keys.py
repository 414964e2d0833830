"""Names of keys in JSON objects, as they stand in a mapping of columns.

`a.b` is a key of a nested object, `a[0].b` one of the first object of a list, and `a[].b` one of
each object of a list. A key that itself contains a dot or a bracket stands in quotes: `"a.b"`.
"""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

PART = re.compile(r'("[^"]*"|[^.\[]+)((?:\[[^\]]*\])*)(?:\.|$)')
"""Regular expression of one key of a path, with its brackets."""


def parts(path: str) -> list[tuple[str, str]]:
    """Split a path into keys and their brackets: `a.b[0]` is [("a", ""), ("b", "[0]")]."""
    return [(key.strip('"'), brackets) for key, brackets in PART.findall(path)]


def last_key(path: str) -> str:
    """Return the last key of a path, without quotes and brackets."""
    found = parts(path)
    return found[-1][0] if found else path


def json_path(path: str) -> str:
    """Convert a path such as `images[0].large` to a JSON path of DuckDB."""
    return "$" + "".join(f'."{key}"{brackets}' for key, brackets in parts(path))


def nested(path: str, content: str) -> tuple[str, str]:
    """Return the text before and after `content` in a JSON object that has it at `path`."""
    keys = [key for key, _ in parts(path)]
    return "".join(f"{{{json.dumps(key)}:" for key in keys) + content, "}" * len(keys)


def lists_of(wanted: Sequence[str]) -> list[str]:
    """Return the lists of `wanted` whose objects are rows, from the outermost to the innermost.

    Of `a[].b[].c` these are `a` and `a[].b`.

    Raises:
        ValueError: the lists are not within each other.
    """
    found: set[str] = set()
    for path in wanted:
        pieces = path.split("[].")
        found |= {"[].".join(pieces[:end]) for end in range(1, len(pieces))}
    lists = sorted(found, key=lambda path: path.count("[]."))
    for outer, inner in itertools.pairwise(lists):
        if not inner.startswith(f"{outer}[]."):
            raise ValueError(", ".join(sorted(lists)))
    return lists


def collect(content: dict[str, Any], prefix: str, keys: dict[str, None]) -> None:
    """Add the paths of all keys of an object to `keys`; of a list, those of its first object."""
    for key, value in content.items():
        path = prefix + (f'"{key}"' if re.search(r"[.\[\]]", key) else key)
        keys[path] = None
        if isinstance(value, dict):
            collect(value, f"{path}.", keys)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            collect(value[0], f"{path}[0].", keys)
