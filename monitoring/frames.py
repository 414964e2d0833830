"""Builds the pandas frames of the Evidently reports.

The current window (monitored traffic) and the reference window (lists of the test window) go
through the same functions.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.windows import MonitorError, SharedData, Slates, Window
from shortlist import columns as c
from shortlist.contracts import microseconds
from shortlist.features.finalize import time_features
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import popularity_bias
from shortlist.splits import LIGHT_HISTORY

MAX_CATEGORIES = 25
"""Text attributes with more distinct values (such as postcodes) are left out of the reports."""


def event_frame(window: Window, shared: SharedData, *, rows: np.ndarray) -> pd.DataFrame:
    """Return a frame with one row per event of the window, from its first request on.

    Columns: event_type, category (the item's first), hour, weekday, value, item_popularity
    (percentile of the item's event count before both windows), item_age_years.
    """
    table = events_in(window).take(pa.array(rows))
    catalogue = shared.catalogue
    item_idx = catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist())
    at = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
    published = catalogue.published_at[item_idx]
    age = np.where(published != 0, at - published, np.nan) / (365.25 * c.MICROSECONDS_PER_DAY)
    return pd.DataFrame(
        {
            "event_type": table.column(c.EVENT_TYPE).to_pylist(),
            "category": [(catalogue.category_lists[i] or ["none"])[0] for i in item_idx],
            "hour": _hour(at),
            "weekday": _weekday(at),
            "value": table.column(c.VALUE).to_numpy(),
            "item_popularity": popularity_bias(item_idx[:, None], shared.item_counts),
            "item_age_years": age,
        }
    )


def events_in(window: Window) -> pa.Table:
    """Return the events from the window's first request on, without the users' earlier history."""
    first = pc.min(window.log.column(c.EVENT_TIMESTAMP))
    time = window.interactions.column(c.EVENT_TIMESTAMP)
    return window.interactions.filter(pc.greater_equal(time, first))


def request_frame(slates: Slates, window: Window, shared: SharedData) -> pd.DataFrame:
    """Return a frame with one row per request: its context and the user's attributes.

    Columns: surface, device, hour, weekday, weekend, slice, history_length_log, known_to_features
    (whether the feature store had a state of the user), skipped_stages, and user_<attribute> for
    each attribute that is numeric or has few values.
    """
    at = slates.at
    contexts = dict(
        zip(
            window.log.column(c.REQUEST_ID).to_pylist(),
            window.log.column(c.CONTEXT_ID).to_pylist(),
            strict=True,
        )
    )
    surface, device = [], []
    for request_id in slates.request_ids:
        parts = contexts[request_id].split("|")
        surface.append(parts[0])
        device.append(parts[1] if len(parts) > 1 else "unknown")
    frame = pd.DataFrame(
        {
            "surface": surface,
            "device": device,
            "hour": _hour(at),
            "weekday": _weekday(at),
            "weekend": np.where(time_features(at)["is_weekend"] > 0, "yes", "no"),
            "slice": slice_names(slates.history_length),
            "history_length_log": np.log1p(slates.history_length),
            "known_to_features": np.where(slates.known, "yes", "no"),
            "skipped_stages": np.where(slates.skipped, "yes", "no"),
        }
    )
    return frame.assign(**_attributes(slates.user_ids, shared.users))


def slice_names(history_length: np.ndarray) -> np.ndarray:
    """Return (B,) 'new', 'light' or 'regular', by the number of events before the request."""
    known = np.where(history_length < LIGHT_HISTORY, "light", "regular")
    return np.where(history_length == 0, "new", known).astype(object)


def feature_frame(log: pa.Table, names: Sequence[str], *, rows: np.ndarray) -> pd.DataFrame:
    """Return the feature vectors of these rows of the log, columns `names`.

    Rows without a vector are left out; their responses were made without features.

    Raises:
        MonitorError: the log's vectors don't have one value per name.
    """
    vectors = log.column("features").take(pa.array(rows)).combine_chunks()
    vectors = vectors.filter(pc.greater(pc.list_value_length(vectors), 0))
    lengths = np.unique(pc.list_value_length(vectors).to_numpy(zero_copy_only=False))
    if len(vectors) and lengths.tolist() != [len(names)]:
        raise MonitorError(
            f"serving log: feature vectors have {lengths.tolist()} values, expected {len(names)} as"
            " in the release's ranking schema; the log belongs to another release"
        )
    values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
    return pd.DataFrame({name: values[:, f].astype(float) for f, name in enumerate(names)})


def score_frame(log: pa.Table, sources: Sequence[str], *, rows: np.ndarray) -> pd.DataFrame:
    """Return a frame with one row per shown item: source, score, and `score: <source>` (NaN for
    other sources).
    """
    table = log.take(pa.array(rows))
    score = table.column(c.SCORE).to_numpy()
    source = table.column(c.SOURCE).to_numpy(zero_copy_only=False)
    frame = pd.DataFrame({"source": source, "score": score})
    for name in sources:
        frame[f"score: {name}"] = np.where(source == name, score, np.nan)
    return frame


def ranking_frame(slates: Slates, catalogue: Catalogue, *, rows: np.ndarray) -> pd.DataFrame:
    """Return the shown items with rank and relevance, for Evidently's ranking metrics.

    A request takes the place of Evidently's user, because its metrics expect one list per user.
    Items that the user took but that were not shown are appended with ranks above k. So recall and
    nDCG are relative to all relevant items.
    """
    k = slates.item_idx.shape[1]
    records = []
    for row in rows:
        shown, wanted = slates.item_idx[row], slates.relevant[row]
        request_id = slates.request_ids[row]
        columns = np.flatnonzero(shown)
        hit = np.isin(shown[columns], wanted)
        records += [
            (request_id, shown[p], p + 1, int(h)) for p, h in zip(columns, hit, strict=True)
        ]
        missed = np.setdiff1d(wanted, shown)
        records += [(request_id, item, k + 1 + n, 1) for n, item in enumerate(missed)]
    request_ids, item_idx, ranks, flags = zip(*records, strict=True)
    return pd.DataFrame(
        {
            "request_id": request_ids,
            "item_id": _labels(catalogue, item_idx),
            "rank": ranks,
            "relevant": flags,
        }
    )


def shown_frame(slates: Slates, catalogue: Catalogue, *, rows: np.ndarray) -> pd.DataFrame:
    """Return the shown items with title, source and a 0/1 column 'is <category>' per category."""
    shown = slates.item_idx[rows]
    request, position = np.nonzero(shown)
    item_idx = shown[request, position]
    frame = pd.DataFrame(
        {
            "request_id": [slates.request_ids[rows[r]] for r in request],
            "item_id": _labels(catalogue, item_idx),
            "rank": position + 1,
            "relevant": slates.hit[rows][request, position].astype(int),
            "title": [catalogue.titles[i] for i in item_idx],
            "source": slates.source[rows][request, position],
        }
    )
    return pd.concat([frame, _categories(catalogue, item_idx)], axis=1)


def history_frame(
    interactions: pa.Table, catalogue: Catalogue, *, end: int, rows: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return a sample of the events before `end` (microseconds), with at most `rows` rows.

    Evidently takes it as training data: novelty and popularity are computed from it.
    """
    time = microseconds(interactions.column(c.EVENT_TIMESTAMP)).to_numpy()
    before = interactions.filter(pa.array(time < end))
    picked = before.take(pa.array(sample(before.num_rows, rows, rng=rng)))
    item_idx = catalogue.vocab.encode(picked.column(c.ITEM_ID).to_pylist())
    kept = item_idx > 0
    frame = pd.DataFrame(
        {
            "request_id": np.array(picked.column(c.USER_ID).to_pylist())[kept],
            "item_id": _labels(catalogue, item_idx[kept]),
            "rank": 1,
            "relevant": 1,
        }
    )
    return pd.concat([frame, _categories(catalogue, item_idx[kept])], axis=1)


def category_columns(catalogue: Catalogue) -> list[str]:
    return [f"is {name}" for name in catalogue.category_names]


def sample(count: int, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return at most `size` of the row numbers 0 .. count - 1, drawn without replacement and
    sorted.
    """
    if count <= size:
        return np.arange(count)
    return np.sort(rng.choice(count, size=size, replace=False))


def _labels(catalogue: Catalogue, item_idx: Sequence[int] | np.ndarray) -> list[str]:
    """Add a prefix to item ids, so that they can't be parsed as numbers.

    Evidently 0.7 converts '50' to 50 in one table and keeps it as text in another.
    """
    return [f"item {item_id}" for item_id in catalogue.vocab.decode(item_idx)]


def _categories(catalogue: Catalogue, item_idx: np.ndarray) -> pd.DataFrame:
    values = catalogue.category_matrix[item_idx].astype(int)
    return pd.DataFrame({n: values[:, i] for i, n in enumerate(category_columns(catalogue))})


def _hour(at: np.ndarray) -> np.ndarray:
    return at // c.MICROSECONDS_PER_HOUR % 24


def _weekday(at: np.ndarray) -> np.ndarray:
    names = np.array(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], dtype=object)
    return names[(at // c.MICROSECONDS_PER_DAY + 3) % 7]  # 1970-01-01 was a Thursday


def _attributes(user_ids: Sequence[str], users: pa.Table) -> dict[str, object]:
    """Return {`user_<attribute>`: values of these users}.

    Text attributes with more than MAX_CATEGORIES values are left out.
    """
    of_user = {
        user_id: dict(row or [])
        for user_id, row in zip(
            users.column(c.USER_ID).to_pylist(), users.column(c.ATTRIBUTES).to_pylist(), strict=True
        )
    }
    names = sorted({name for attributes in of_user.values() for name in attributes})
    columns: dict[str, object] = {}
    for name in names:
        # The column type depends on all users, so that both windows get the same columns.
        every = {attributes[name] for attributes in of_user.values() if name in attributes}
        values = [of_user.get(user_id, {}).get(name, "unknown") for user_id in user_ids]
        if len(every) <= MAX_CATEGORIES:
            columns[f"user_{name}"] = values
        elif pd.to_numeric(pd.Series(list(every)), errors="coerce").count() == len(every):
            columns[f"user_{name}"] = pd.to_numeric(pd.Series(values), errors="coerce")
    return columns
