"""MovieLens latest-small, 1M, 20M and 32M from the archives of GroupLens (Harper & Konstan 2015).

They may not be redistributed. An archive is read from `path` (a zip or the unpacked folder), or
downloaded into the cache once.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

from shortlist import columns as c
from shortlist.datasets.config import FilesConfig, InteractionFile, ItemFile, UserFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.public.fetch import download
from shortlist.datasets.staging import Stager

URL = "https://files.grouplens.org/datasets/movielens"
ARCHIVES = {
    "movielens-latest-small": "ml-latest-small",
    "movielens-1m": "ml-1m",
    "movielens-20m": "ml-20m",
    "movielens-32m": "ml-32m",
}
EVENTS = {c.USER_ID: "userId", c.ITEM_ID: "movieId", c.VALUE: "rating"}
FILMS = {c.ITEM_ID: "movieId", c.TITLE: "title", c.CATEGORIES: "genres", c.PUBLISHED_AT: "title"}


def grouplens_files(stager: Stager) -> FilesConfig:
    """Locate or download the archive and unpack it; return the mapping of its files.

    Raises:
        DatasetError: the archive can't be downloaded, is broken, or lacks a file.
    """
    name = ARCHIVES[stager.config.source]
    old = name == "ml-1m"  # text files with '::' and no header, in latin-1
    wanted = ("ratings.dat", "movies.dat", "users.dat") if old else ("ratings.csv", "movies.csv")
    folder = _unpacked(stager, name, wanted)
    if not old:
        return FilesConfig(
            interactions=(
                InteractionFile(
                    path=str(folder / "ratings.csv"),
                    columns=EVENTS | {c.EVENT_TIMESTAMP: "timestamp"},
                    event_type="rating",
                ),
            ),
            items=ItemFile(path=str(folder / "movies.csv"), columns=FILMS),
        )
    dat: Any = {"format": "csv", "separator": "::", "quote": "", "encoding": "latin-1"}
    return FilesConfig(
        interactions=(
            InteractionFile(
                path=str(folder / "ratings.dat"),
                header=("userId", "movieId", "rating", "timestamp"),
                columns=EVENTS | {c.EVENT_TIMESTAMP: "timestamp"},
                event_type="rating",
                **dat,
            ),
        ),
        items=ItemFile(
            path=str(folder / "movies.dat"),
            header=("movieId", "title", "genres"),
            columns=FILMS,
            **dat,
        ),
        users=UserFile(
            path=str(folder / "users.dat"),
            header=("userId", "gender", "age", "occupation", "zip"),
            columns={c.USER_ID: "userId"},
            attributes=("gender", "age", "occupation"),
            **dat,
        ),
    )


def _unpacked(stager: Stager, name: str, wanted: tuple[str, ...]) -> Path:
    path = stager.config.path
    if path is None:
        path = download(f"{URL}/{name}.zip", stager.settings.cache / f"{name}.zip")
    if path.is_dir():
        missing = [file for file in wanted if not (path / file).is_file()]
        if missing:
            raise DatasetError(f"{path}: has no {missing[0]}, want {', '.join(wanted)}")
        return path
    folder = stager.settings.cache / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(member).name: member for member in archive.namelist()}
            for column in wanted:
                partial = folder / f".{column}.partial"
                with archive.open(members[column]) as source, partial.open("wb") as out:
                    while chunk := source.read(1 << 22):
                        out.write(chunk)
                partial.replace(folder / column)
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: no such file or folder, want {name}.zip or the unpacked folder"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise DatasetError(f"{path}: not a zip archive, or cut short; fetch it again") from None
    except KeyError as error:
        raise DatasetError(f"{path}: has no {error.args[0]}, want {', '.join(wanted)}") from None
    return folder
