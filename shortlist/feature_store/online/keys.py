"""Keys of entities in the online store, in Feast's format and without importing Feast."""

import struct
from collections.abc import Iterable

STRING = 2
"""Number of the type String in Feast's protobufs (`ValueType.STRING`)."""


def entity_keys(name: str, values: Iterable[str]) -> list[bytes]:
    """Serialize string entity keys of join key `name` like Feast (version 3), in 1 us each."""
    encoded = name.encode()
    head = struct.pack("<III", 1, STRING, len(encoded)) + encoded
    head += struct.pack("<I", STRING)
    pack = struct.Struct("<I").pack
    return [head + pack(len(value)) + value for value in (v.encode() for v in values)]
