"""Standard JSON without NaN or infinity, atomic writing of JSON files, and differences."""

import json
import math
import os
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, at any depth, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(content: Any, *, indent: int | None = None) -> str:
    """Like `json.dumps`, but NaN and infinity become null."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON to a temporary file and rename it, so that readers never see a partial file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {path: [old, new]} for every leaf that differs between two nested dicts."""
    out: dict[str, Any] = {}
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        path = f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            out |= difference(a, b, f"{path}.")
        elif a != b:
            out[path] = [a, b]
    return out
