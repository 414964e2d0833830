"""Converts a world to INTERACTIONS, ITEMS and USERS tables, without its latent attributes.

The tables have the columns of shortlist/contracts.py. Fixed-width ids are written as bytes into
Arrow buffers. Creating a Python string per event would take ten times as long as the simulation.
Item rows and user rows are indices into the world's arrays.

Shapes: E events, S requests, D latent dim.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, TIMESTAMP
from shortlist.datasets.batch import attribute_maps
from simulation.events import CODE, DEVICES, NO_REQUEST, SURFACES, Events
from simulation.text import QUERIES_PER_TOPIC, Grammar, brand_name
from simulation.world import World

SOURCE = "simulated"
AGES = ("under 25", "25 to 34", "35 to 49", "50 to 64", "65 and over")
COUNTRIES = ("north", "south", "east", "west", "islands", "abroad")
_PAIRS = np.array([list(f"{n:02x}".encode()) for n in range(256)], dtype=np.uint8)
_PAIRS_16 = _PAIRS.view(np.uint16).ravel()  # the two hex digits of a byte as one uint16


class Publisher:
    """Builder of the tables of one world. Thread-safe: no method changes it."""

    def __init__(self, world: World):
        self.world = world
        self.grammar = Grammar(world)
        self.user_ids = _numbered("u", world.num_users)
        self.item_ids = _numbered("i", world.num_items)
        self.kinds = pa.array(EVENT_TYPES)
        self.queries = pa.array(self.grammar.queries)
        salt = world.rng("ids").integers(0, 1 << 62, size=1, dtype=np.int64)
        self.salt = salt.astype(np.uint64)

    def interactions(self, events: Events, *, ingested_at: int) -> pa.Table:
        """Convert E events to INTERACTIONS; event_order is the event's number in the world."""
        n = len(events)
        numbers = events.number
        columns = {
            c.EVENT_ID: hex_ids(numbers, self.salt),
            c.USER_ID: self.user_ids.take(pa.array(events.user)),
            c.ITEM_ID: self.item_ids.take(pa.array(events.item)),
            c.EVENT_TYPE: self.kinds.take(pa.array(events.event_type)),
            c.EVENT_TIMESTAMP: pa.array(events.time).cast(TIMESTAMP),
            c.EVENT_ORDER: pa.array(numbers),
            c.INGESTED_AT: pa.array(np.full(n, ingested_at)).cast(TIMESTAMP),
            c.VALUE: pa.array(events.value, from_pandas=True),
            c.TEXT: self._reviews(events),
            c.QUERY: self._queries(events),
            c.SESSION_ID: _if_requested(hex_ids(events.session, self.salt + 1), events),
            c.REQUEST_ID: _if_requested(hex_ids(events.request, self.salt + 2), events),
            c.POSITION: pa.array(events.position, mask=events.position == 0),
            c.SURFACE: _if_requested(pa.array(SURFACES).take(pa.array(events.surface)), events),
            c.DEVICE: _if_requested(
                pa.array(DEVICES).take(pa.array(events.phone.astype(np.int8))), events
            ),
            c.SOURCE: pa.repeat(SOURCE, n),
        }
        return pa.table([columns[name] for name in INTERACTIONS.names], schema=INTERACTIONS)

    def request_ids(self, requests: np.ndarray) -> list[str]:
        """Return the ids that (S,) request numbers have in the tables."""
        return hex_ids(requests, self.salt + 2).to_pylist()

    def items(self, first: int, end: int, *, images: list[str] | None = None) -> pa.Table:
        """Return item rows first .. end - 1 as an ITEMS table, with image, audio and video vectors.

        Audio and video vectors are null for items without a film.

        Args:
            images: the image path of each of these items.
        """
        items, grammar = self.world.items, self.grammar
        rows = range(first, end)
        topics = np.array(grammar.topics)
        film = items.seconds[first:end] > 0
        minutes = [f"{s / 60:.0f}" if s else None for s in items.seconds[first:end].tolist()]
        columns = {
            c.ITEM_ID: self.item_ids.slice(first, end - first),
            c.TITLE: pa.array([grammar.title(i) for i in rows], pa.string()),
            c.DESCRIPTION: pa.array([grammar.description(i) for i in rows], pa.string()),
            c.CATEGORIES: pa.array(
                [sorted({str(topics[items.topic[i]]), str(topics[items.second[i]])}) for i in rows],
                pa.list_(pa.string()),
            ),
            c.BRAND: pa.array([brand_name(int(b)) for b in items.brand[first:end]], pa.string()),
            c.PRICE: pa.array(items.price[first:end]),
            c.PUBLISHED_AT: pa.array(items.published[first:end]).cast(TIMESTAMP),
            c.AVAILABLE: pa.array(np.ones(end - first, dtype=bool)),
            c.IMAGE: pa.array(
                images if images is not None else [None] * (end - first), pa.string()
            ),
            c.ATTRIBUTES: attribute_maps(
                {"colour": [grammar.colour(i) for i in rows], "minutes": minutes}
            ),
        }
        for modality in ("image", "audio", "video"):
            missing = None if modality == "image" else ~film
            columns[f"vector_{modality}"] = self._vectors(modality, first, end, missing)
        return pa.table(columns)

    def users(self, first: int, end: int) -> pa.Table:
        """Return user rows first .. end - 1 as a USERS table."""
        users = self.world.users
        return pa.table(
            {
                c.USER_ID: self.user_ids.slice(first, end - first),
                c.ATTRIBUTES: attribute_maps(
                    {
                        "age": [AGES[a] for a in users.age_group[first:end].tolist()],
                        "country": [COUNTRIES[n] for n in users.country[first:end].tolist()],
                    }
                ),
                c.CREATED_AT: pa.array(users.created[first:end]).cast(TIMESTAMP),
            }
        )

    def _vectors(self, modality: str, first: int, end: int, missing: np.ndarray | None) -> pa.Array:
        """Return a vector of D float32 per item that imitates the output of an encoder.

        It is a random linear map of the latent item vector, plus noise. Quality, appeal and the
        drawn images don't affect it.

        Args:
            missing: (end - first,) bool, True for items whose vector is null; None: no item.
        """
        dim = self.world.topics.shape[1]
        rotation = self.world.rng("vectors", modality).normal(size=(dim, dim)) / np.sqrt(dim)
        noise = self.world.rng("vectors", modality, first).normal(size=(end - first, dim))
        made = (self.world.items.vector[first:end] @ rotation + 0.4 * noise).astype(np.float32)
        rows = list(made)
        if missing is not None:
            rows = [None if gone else row for row, gone in zip(rows, missing, strict=True)]
        return pa.array(rows, pa.list_(pa.float32()))

    def _reviews(self, events: Events) -> pa.Array:
        rows = np.flatnonzero(events.event_type == CODE["review"])
        picks = _splitmix64(events.number[rows].astype(np.uint64)) % np.uint64(1 << 20)
        texts = [
            self.grammar.review(item, int(stars), int(pick))
            for item, stars, pick in zip(
                events.item[rows].tolist(), events.value[rows], picks, strict=True
            )
        ]
        return _sparse(len(events), rows, pa.array(texts, pa.string()))

    def _queries(self, events: Events) -> pa.Array:
        rows = np.flatnonzero(events.event_type == CODE["search"])
        picks = _splitmix64(events.number[rows].astype(np.uint64)) % np.uint64(QUERIES_PER_TOPIC)
        which = events.topic[rows] * QUERIES_PER_TOPIC + picks.astype(np.int64)
        return _sparse(len(events), rows, self.queries.take(pa.array(which)))


def hex_ids(numbers: np.ndarray, salt: np.ndarray) -> pa.Array:
    """Return ids of 16 hexadecimal digits for (E,) int64; different numbers get different ids."""
    mixed = _splitmix64(numbers.astype(np.uint64) ^ salt)
    n = len(mixed)
    letters = _PAIRS_16[mixed.view(np.uint8)]
    offsets = np.arange(0, 16 * n + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(letters))


def _splitmix64(numbers: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers bijectively, with the finaliser of splitmix64 (Steele et al. 2014)."""
    x = numbers.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _numbered(letter: str, n: int) -> pa.Array:
    """Return n ids of a letter and 7 digits: 'u0000001', 'u0000002', ... for the letter 'u'."""
    digits = pc.utf8_lpad(pa.array(np.arange(1, n + 1)).cast(pa.string()), width=7, padding="0")
    return pc.binary_join_element_wise(letter, digits, "")


def _if_requested(values: pa.Array, events: Events) -> pa.Array:
    """Return `values`, set to null for events without a request, such as returns."""
    requested = events.request != NO_REQUEST
    return values if requested.all() else pc.if_else(pa.array(requested), values, None)


def _sparse(n: int, rows: np.ndarray, texts: pa.Array) -> pa.Array:
    """Return n strings: `texts` at the indices `rows`, null elsewhere."""
    if len(texts) == 0:
        return pa.nulls(n, pa.string())
    row_of = np.zeros(n, dtype=np.int64)
    row_of[rows] = np.arange(len(rows))
    there = np.zeros(n, dtype=bool)
    there[rows] = True
    return texts.take(pa.array(row_of, mask=~there))
