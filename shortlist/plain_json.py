"""JSON that any program reads: figures without a value are null, files are whole or not there."""

import json
import math
import os
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """NaN and infinity have no place in JSON: figures without a value become null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(content: Any, *, indent: int | None = None) -> str:
    """As `json.dumps`, and valid JSON for every float."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def write_json(path: Path, content: Any) -> Path:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
