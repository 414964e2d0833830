"""Converts feature values to and from native SQLite columns, one column per feature.

A `Column` converts three ways: Feast protobufs (of pushed rows) to stored values, Arrow arrays (of
a materialize, which copies states from the offline store) to stored values, and stored values to
protobufs (for Feast's reads).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
from feast.protos.feast.types.Value_pb2 import DoubleList, Int64List, StringList, Value
from feast.type_map import python_values_to_proto_values
from feast.types import FeastType
from feast.value_type import ValueType

NAN = b"nan"
"""Stored value of NaN. SQLite would convert NaN to NULL, which means a missing value."""


@dataclass(frozen=True)
class Column:
    """SQLite type and conversions of one feature; None corresponds to NULL."""

    sql_type: str
    of_proto: Callable[[Value | None], Any]
    of_arrow: Callable[[pa.ChunkedArray], Iterable[Any]]
    to_proto: Callable[[Any], Value]


def column_of(dtype: FeastType) -> Column:
    """Return the column for a Feast type; other types are stored as protobuf bytes."""
    value_type = dtype.to_value_type()
    if value_type in (ValueType.DOUBLE, ValueType.FLOAT):
        name = "double_val" if value_type == ValueType.DOUBLE else "float_val"
        return _scalar("REAL", name, stored=_without_nan, read=_with_nan)
    if value_type in _PLAIN:
        sql_type, name = _PLAIN[value_type]
        return _scalar(sql_type, name)
    if value_type == ValueType.BOOL:
        return _scalar("INTEGER", "bool_val", stored=int, read=bool)
    if value_type in _ARRAYS:
        return _array(*_ARRAYS[value_type])
    if value_type == ValueType.STRING_LIST:
        return Column(
            "TEXT",
            of_proto=lambda v: json.dumps(list(v.string_list_val.val)) if _set(v) else None,
            of_arrow=lambda values: [
                None if v is None else json.dumps(v) for v in values.to_pylist()
            ],
            to_proto=lambda v: (
                Value() if v is None else Value(string_list_val=StringList(val=json.loads(v)))
            ),
        )
    return Column(
        "BLOB",
        of_proto=lambda v: v.SerializeToString() if _set(v) else None,
        of_arrow=lambda values: [
            value.SerializeToString() if value.WhichOneof("val") else None
            for value in python_values_to_proto_values(values.to_pylist(), value_type)
        ],
        to_proto=lambda v: Value() if v is None else Value.FromString(v),
    )


_PLAIN = {
    ValueType.INT64: ("INTEGER", "int64_val"),
    ValueType.INT32: ("INTEGER", "int32_val"),
    ValueType.STRING: ("TEXT", "string_val"),
    ValueType.BYTES: ("BLOB", "bytes_val"),
}
_ARRAYS = {
    ValueType.DOUBLE_LIST: ("double_list_val", DoubleList, "<f8"),
    ValueType.INT64_LIST: ("int64_list_val", Int64List, "<i8"),
}


def _set(value: Value | None) -> TypeGuard[Value]:
    return value is not None and value.WhichOneof("val") is not None


def _without_nan(value: float) -> float | bytes:
    return value if value == value else NAN


def _with_nan(value: float | bytes) -> float:
    return float("nan") if isinstance(value, bytes) else value


def _scalar(
    sql_type: str,
    name: str,
    *,
    stored: Callable[[Any], Any] | None = None,
    read: Callable[[Any], Any] | None = None,
) -> Column:
    def of_proto(value: Value | None) -> Any:
        if value is None or value.WhichOneof("val") != name:
            return None
        plain = getattr(value, name)
        return plain if stored is None else stored(plain)

    def of_arrow(values: pa.ChunkedArray) -> list[Any]:
        plain = values.to_pylist()
        if stored is None:
            return plain
        return [None if value is None else stored(value) for value in plain]

    def to_proto(value: Any) -> Value:
        if value is None:
            return Value()
        return Value(**{name: value if read is None else read(value)})

    return Column(sql_type, of_proto, of_arrow, to_proto)


def _array(name: str, list_type: Any, dtype: str) -> Column:
    """Return a column of number lists, stored as little-endian arrays for `np.frombuffer`."""

    def of_proto(value: Value | None) -> bytes | None:
        if not _set(value):
            return None
        return np.array(getattr(value, name).val, dtype=dtype).tobytes()

    def of_arrow(values: pa.ChunkedArray) -> list[bytes | None]:
        stored: list[bytes | None] = []
        for chunk in values.chunks:
            # Slice the child buffer by the offsets, without creating Python numbers.
            flat = np.ascontiguousarray(chunk.values.to_numpy(zero_copy_only=False), dtype=dtype)
            buffer = flat.data.cast("B")
            edges = (chunk.offsets.to_numpy() * 8).tolist()
            valid = chunk.is_valid().to_pylist()
            stored += [
                bytes(buffer[edges[i] : edges[i + 1]]) if known else None
                for i, known in enumerate(valid)
            ]
        return stored

    def to_proto(value: bytes | None) -> Value:
        if value is None:
            return Value()
        return Value(**{name: list_type(val=np.frombuffer(value, dtype=dtype).tolist())})

    return Column("BLOB", of_proto, of_arrow, to_proto)
