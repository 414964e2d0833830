"""Your own files: CSV, JSON Lines or Parquet with a column mapping."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES, TIMESTAMP
from shortlist.datasets.batch import (
    Batch,
    DatasetError,
    attribute_maps,
    interactions_table,
    with_likes,
)
from shortlist.datasets.config import FilesConfig, InteractionFile, ItemFile, UserFile

UNIT_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
OPTIONAL_TEXT = (c.TEXT, c.QUERY, c.SESSION_ID, c.REQUEST_ID, c.SURFACE, c.DEVICE)
MAX_SECONDS = 4_102_444_800  # the year 2100: beyond it the unit is wrong


def load_files(config: FilesConfig, *, like_threshold: float | None, now: int) -> Batch:
    """Read the mapped files.

    Raises:
        DatasetError: a file or a mapped column is missing, a file cannot be parsed, ids are not
            text or whole numbers, times cannot be times.
    """
    interactions = with_likes(_interactions(config.interactions, now=now), like_threshold)
    items = (
        _items(config.items)
        if config.items is not None
        else _mentioned(interactions.column(c.ITEM_ID))
    )
    users = _users(config.users, interactions.column(c.USER_ID))
    return Batch.checked(str(config.interactions.path), interactions, items, users)


def read_table(path: Path) -> pa.Table:
    """One file as a table; ids in CSV stay text ('00196' survives). Raises DatasetError."""
    if path.is_dir():
        raise DatasetError(f"{path}: is a folder, want one file")
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: is empty")
    try:
        if path.suffix == ".csv":
            names = pyarrow.csv.open_csv(path).schema.names
            text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            return pyarrow.csv.read_csv(path, convert_options=text)
        if path.suffix in (".jsonl", ".ndjson"):
            return pyarrow.json.read_json(path)
        if path.suffix == ".parquet":
            return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    raise DatasetError(f"{path}: ending '{path.suffix}', want .csv, .jsonl or .parquet")


def _interactions(config: InteractionFile, *, now: int) -> pa.Table:
    table, path = read_table(config.path), config.path
    columns = config.columns
    _require(columns, (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP), path)
    n = table.num_rows
    kind: str | pa.Array
    if c.EVENT_TYPE in columns:
        kind = _text(table, columns[c.EVENT_TYPE], path)
        wrong = sorted(set(kind.to_pylist()) - set(EVENT_TYPES) - {None})
        if wrong:
            raise DatasetError(
                f"{path}: column '{columns[c.EVENT_TYPE]}' has event types {', '.join(wrong[:5])};"
                f" want {', '.join(EVENT_TYPES)}"
            )
    elif config.event_type in EVENT_TYPES:
        kind = str(config.event_type)
    else:
        raise DatasetError(
            f"{path}: no event type: map 'event_type' to a column, or set event_type to one of"
            f" {', '.join(EVENT_TYPES)} (got {config.event_type!r})"
        )
    value = _numbers(table, columns[c.VALUE], path) if c.VALUE in columns else None
    result = interactions_table(
        user_id=_ids(table, columns[c.USER_ID], path),
        item_id=_ids(table, columns[c.ITEM_ID], path),
        event_type=kind,
        seconds=_seconds(table, columns[c.EVENT_TIMESTAMP], config.timestamp_unit, path),
        value=value,
        source=path.name,
        ingested_at=now,
    )
    for name in OPTIONAL_TEXT:
        if name in columns:
            at = result.schema.get_field_index(name)
            column = _text(table, columns[name], path)
            result = (
                result.set_column(at, name, column)
                if at >= 0
                else result.append_column(name, column)
            )
    if c.EVENT_ID in columns:
        at = result.schema.get_field_index(c.EVENT_ID)
        return result.set_column(at, c.EVENT_ID, _ids(table, columns[c.EVENT_ID], path))
    assert result.num_rows == n, "one interaction a row"
    return result


def _items(config: ItemFile) -> pa.Table:
    table, path, columns = read_table(config.path), config.path, config.columns
    _require(columns, (c.ITEM_ID,), path)
    n = table.num_rows
    out: dict[str, pa.Array] = {c.ITEM_ID: _ids(table, columns[c.ITEM_ID], path)}
    for name in (c.TITLE, c.DESCRIPTION, c.BRAND, c.IMAGE):
        if name in columns:
            out[name] = _text(table, columns[name], path)
    out[c.CATEGORIES] = (
        _categories(table, columns[c.CATEGORIES], config.category_separator, path)
        if c.CATEGORIES in columns
        else pa.array([[]] * n, pa.list_(pa.string()))
    )
    if c.PRICE in columns:
        out[c.PRICE] = pa.array(_numbers(table, columns[c.PRICE], path), from_pandas=True)
    if c.PUBLISHED_AT in columns:
        out[c.PUBLISHED_AT] = _published(table, columns[c.PUBLISHED_AT], path)
    out[c.AVAILABLE] = pa.array([True] * n, pa.bool_())
    if config.attributes:
        out[c.ATTRIBUTES] = attribute_maps(
            {name: _text(table, name, path).to_pylist() for name in config.attributes}
        )
    return pa.table(out)


def _mentioned(item_ids: pa.ChunkedArray) -> pa.Table:
    ids = pc.unique(item_ids)
    return pa.table(
        {
            c.ITEM_ID: ids,
            c.CATEGORIES: pa.array([[]] * len(ids), pa.list_(pa.string())),
            c.AVAILABLE: pa.array([True] * len(ids), pa.bool_()),
        }
    )


def _users(config: UserFile | None, active: pa.ChunkedArray) -> pa.Table:
    """The users of the file, and those who only appear in the interactions."""
    if config is None:
        return pa.table({c.USER_ID: pc.unique(active)})
    table, path = read_table(config.path), config.path
    _require(config.columns, (c.USER_ID,), path)
    ids = _ids(table, config.columns[c.USER_ID], path)
    columns = {name: _text(table, name, path).to_pylist() for name in config.attributes}
    known = pa.table(
        {
            c.USER_ID: ids,
            c.ATTRIBUTES: attribute_maps(columns)
            if columns
            else pa.nulls(len(ids), pa.map_(pa.string(), pa.string())),
        }
    )
    others = pc.unique(active)
    others = others.filter(pc.invert(pc.is_in(others, value_set=ids)))
    return pa.concat_tables([known, pa.table({c.USER_ID: others})], promote_options="default")


def _require(columns: dict[str, str], names: tuple[str, ...], path: Path) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DatasetError(f"{path}: columns must map {', '.join(missing)} to columns of the file")


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DatasetError(f"{path}: no column '{name}'; there are {', '.join(table.column_names)}")
    if (times := table.column_names.count(name)) > 1:
        raise DatasetError(f"{path}: column '{name}' is there {times} times, want it once")
    return table.column(name)


def _ids(table: pa.Table, name: str, path: Path) -> pa.Array:
    """Ids as text. Floating-point ids are refused: 196.0 is what a missing value makes of 196."""
    column = _column(table, name, path)
    hint = " (missing ids became NaN?)" if pa.types.is_floating(column.type) else ""
    try:
        text = pc.cast(column, pa.string())
    except pa.ArrowException:
        text = None
    if text is None or hint:
        raise DatasetError(
            f"{path}: column '{name}' is {column.type}, want text or whole numbers{hint}"
        )
    return text.combine_chunks()


def _text(table: pa.Table, name: str, path: Path) -> pa.Array:
    column = _column(table, name, path)
    try:
        text = pc.cast(column, pa.string()).combine_chunks()
    except pa.ArrowException:
        raise DatasetError(f"{path}: column '{name}' is {column.type}, want text") from None
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _numbers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    column = _column(table, name, path)
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    try:
        return pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: column '{name}' is not numeric: {error}") from None


def _seconds(table: pa.Table, name: str, unit: str, path: Path) -> np.ndarray:
    column = _column(table, name, path)
    if unit == "iso" or pa.types.is_timestamp(column.type):
        try:
            stamps = pc.cast(column, TIMESTAMP)
        except pa.ArrowException as error:
            raise DatasetError(f"{path}: column '{name}' is not a time: {error}") from None
        if stamps.null_count:
            row = pc.index(pc.is_null(stamps), True).as_py() + 1
            raise DatasetError(f"{path}: column '{name}', row {row}: is empty, want a time")
        return pc.cast(stamps, pa.int64()).to_numpy() / 1e6
    seconds = _numbers(table, name, path) * UNIT_SECONDS[unit]
    wrong = np.flatnonzero(~(np.abs(seconds) < MAX_SECONDS))
    if len(wrong):
        row = int(wrong[0])
        raise DatasetError(
            f"{path}: column '{name}', row {row + 1}: {column[row].as_py()!r} is no time in"
            f" '{unit}' (missing, or another timestamp_unit?)"
        )
    return seconds


def _categories(table: pa.Table, name: str, separator: str, path: Path) -> pa.Array:
    column = _column(table, name, path)
    if pa.types.is_list(column.type):
        return pc.cast(column, pa.list_(pa.string())).combine_chunks()
    rows = _text(table, name, path).to_pylist()
    return pa.array(
        [[part.strip() for part in (row or "").split(separator) if part.strip()] for row in rows],
        pa.list_(pa.string()),
    )


def _published(table: pa.Table, name: str, path: Path) -> pa.Array:
    """A time, or a year alone."""
    column = _column(table, name, path)
    if pa.types.is_timestamp(column.type):
        return pc.cast(column, TIMESTAMP).combine_chunks()
    text = _text(table, name, path)
    is_year = pc.match_substring_regex(text, r"^\d{4}$")
    text = pc.if_else(is_year, pc.binary_join_element_wise(text, "-01-01", ""), text)
    try:
        return pc.cast(text, TIMESTAMP)
    except pa.ArrowInvalid:
        pass
    try:
        return pc.cast(pc.cast(text, pa.date32()), TIMESTAMP)
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"{path}: column '{name}' is neither a year nor a date like 2024-05-31: {error}"
        ) from None
