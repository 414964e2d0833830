"""One pandas frame for each Evidently report, the same for reference and current window."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.windows import Backdrop, MonitorError, Slates, Window
from shortlist import columns as c
from shortlist.catalogue import Catalogue
from shortlist.contracts import microseconds
from shortlist.features.finalize import time_features
from shortlist.metrics import popularity_bias
from shortlist.splits import LIGHT_HISTORY

MAX_CATEGORIES = 25
"""An attribute with more distinct values than this (a postcode) says nothing as a histogram."""


def event_frame(window: Window, backdrop: Backdrop, *, rows: np.ndarray) -> pd.DataFrame:
    """What people did in the window: one row an event, from the first request on.

    Columns: event_type, category (the item's first), hour, weekday, value, item_popularity
    (percentile before both windows), item_age_years.
    """
    table = events_in(window).take(pa.array(rows))
    catalogue = backdrop.catalogue
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
            "item_popularity": popularity_bias(item_idx[:, None], backdrop.item_counts),
            "item_age_years": age,
        }
    )


def events_in(window: Window) -> pa.Table:
    """Events of the window itself, from its first request on; those before are history."""
    first = pc.min(window.log.column(c.EVENT_TIMESTAMP))
    time = window.interactions.column(c.EVENT_TIMESTAMP)
    return window.interactions.filter(pc.greater_equal(time, first))


def request_frame(slates: Slates, window: Window, backdrop: Backdrop) -> pd.DataFrame:
    """Who asked, from where and when: one row a request, with the users' attributes.

    Columns: surface, device, hour, weekday, weekend, slice, history_length_log, known, skipped, and
    user_<attribute> for each attribute that has few values or is a number.
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
    return frame.assign(**_attributes(slates.user_ids, backdrop.users))


def slice_names(history_length: np.ndarray) -> np.ndarray:
    """(B,) 'new', 'light' or 'regular' by the number of events before the request."""
    known = np.where(history_length < LIGHT_HISTORY, "light", "regular")
    return np.where(history_length == 0, "new", known).astype(object)


def feature_frame(log: pa.Table, names: Sequence[str], *, rows: np.ndarray) -> pd.DataFrame:
    """The feature vectors of these rows of the log, (len(rows), F).

    Raises:
        MonitorError: the log's vectors have another length than there are names.
    """
    vectors = log.column("features").take(pa.array(rows)).combine_chunks()
    lengths = np.unique(pc.list_value_length(vectors).to_numpy(zero_copy_only=False))
    if lengths.tolist() != [len(names)]:
        raise MonitorError(
            f"serving log: feature vectors have {lengths.tolist()} values, the release's ranking"
            f" schema names {len(names)}; the log is of another release"
        )
    values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
    return pd.DataFrame({name: values[:, f].astype(float) for f, name in enumerate(names)})


def score_frame(log: pa.Table, sources: Sequence[str], *, rows: np.ndarray) -> pd.DataFrame:
    """`score` of each shown item, `source`, and one column `score: <source>` (NaN elsewhere)."""
    table = log.take(pa.array(rows))
    score = table.column(c.SCORE).to_numpy()
    source = table.column(c.SOURCE).to_numpy(zero_copy_only=False)
    frame = pd.DataFrame({"source": source, "score": score})
    for name in sources:
        frame[f"score: {name}"] = np.where(source == name, score, np.nan)
    return frame


def ranking_frame(slates: Slates, catalogue: Catalogue, *, rows: np.ndarray) -> pd.DataFrame:
    """Shown items with their rank and whether they were taken; one Evidently 'user' is a request.

    What was taken but not shown follows after the last place, so that recall and nDCG are over
    everything relevant and not only over what was shown.
    """
    k = slates.item_idx.shape[1]
    records = []
    for row in rows:
        shown, wanted = slates.item_idx[row], slates.relevant[row]
        request_id = slates.request_ids[row]
        places = np.flatnonzero(shown)
        hit = np.isin(shown[places], wanted)
        records += [(request_id, shown[p], p + 1, int(h)) for p, h in zip(places, hit, strict=True)]
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
    """Shown items only, with title, source and one 0/1 column a category ('is <category>')."""
    shown = slates.item_idx[rows]
    request, place = np.nonzero(shown)
    item_idx = shown[request, place]
    frame = pd.DataFrame(
        {
            "request_id": [slates.request_ids[rows[r]] for r in request],
            "item_id": _labels(catalogue, item_idx),
            "rank": place + 1,
            "relevant": slates.hit[rows][request, place].astype(int),
            "title": [catalogue.titles[i] for i in item_idx],
            "source": slates.source[rows][request, place],
        }
    )
    return pd.concat([frame, _categories(catalogue, item_idx)], axis=1)


def history_frame(
    interactions: pa.Table, catalogue: Catalogue, *, end: int, rows: int, rng: np.random.Generator
) -> pd.DataFrame:
    """A sample of the events before `end`: what Evidently calls the training data."""
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
    """At most `size` row numbers out of `count`, in order."""
    if count <= size:
        return np.arange(count)
    return np.sort(rng.choice(count, size=size, replace=False))


def _labels(catalogue: Catalogue, item_idx: Sequence[int] | np.ndarray) -> list[str]:
    """Item ids that cannot be read as numbers: Evidently 0.7 turns '50' into 50 in one table and
    leaves it text in the other.
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
    """`user_<attribute>` -> values for these users; text of many values is left out."""
    of_user = {
        user_id: dict(row or [])
        for user_id, row in zip(
            users.column(c.USER_ID).to_pylist(), users.column(c.ATTRIBUTES).to_pylist(), strict=True
        )
    }
    names = sorted({name for attributes in of_user.values() for name in attributes})
    columns: dict[str, object] = {}
    for name in names:
        # The kind is decided over all users, so that both windows get the same columns.
        every = {attributes[name] for attributes in of_user.values() if name in attributes}
        values = [of_user.get(user_id, {}).get(name, "unknown") for user_id in user_ids]
        if len(every) <= MAX_CATEGORIES:
            columns[f"user_{name}"] = values
        elif pd.to_numeric(pd.Series(list(every)), errors="coerce").count() == len(every):
            columns[f"user_{name}"] = pd.to_numeric(pd.Series(values), errors="coerce")
    return columns
