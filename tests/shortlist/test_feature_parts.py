"""State files in parts: merging keeps all rows, and interrupted builds leave no partial data."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.feature_store.states import parts
from shortlist.feature_store.states.build import CURRENT
from shortlist.feature_store.states.snapshots import Snapshots
from tests.shortlist.states import START, Arrived, build, write

FEW = 4
TYPES = ("rating", "click", "impression")


def hour(n: int) -> list[Arrived]:
    at = START + n * 5 * HOUR
    return [
        Arrived(f"u{n % 3}", f"i{n % 5}", at + i, at + i, 1.0 * n, event_type)
        for i, event_type in enumerate(TYPES)
    ]


def rows(folder: Path, view: str) -> list[dict]:
    key = f"{view.split('_')[0]}_id"
    found = pq.read_table(folder / view).to_pylist()
    return sorted(found, key=lambda row: (row[key], row["event_timestamp"], str(row)))


def flat(row: dict) -> list[float]:
    """Return the numbers of a row as one list, to compare rows with a tolerance."""
    values = [v for value in row.values() for v in (value if isinstance(value, list) else [value])]
    return [v for v in values if isinstance(v, (int, float))]


def test_many_parts_become_few_and_no_row_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MAX_PARTS", FEW)
    features, files, counts, generations = tmp_path / "features", [], [], set()
    for n in range(20):
        files.append(write(hour(n), tmp_path / f"{n}.parquet"))
        written = build(files, features, until=START + n * 5 * HOUR + HOUR)
        assert (written["user_stats"], written["user_event_groups"]) == (1, 2)
        snapshots = Snapshots.read(features)
        assert snapshots is not None
        assert snapshots.part == n
        generations.add(snapshots.generation)
        counts.append(len(list((features / "user_stats").iterdir())))
    assert len(generations) == 1
    assert max(counts) == FEW
    assert min(counts[FEW:]) < FEW
    build(files, tmp_path / "anew", until=START + 19 * 5 * HOUR + HOUR, anew=True)
    for view in CURRENT:  # without views of single events, whose rows differ
        built, anew = rows(features, view), rows(tmp_path / "anew", view)
        assert [flat(row) for row in built] == [pytest.approx(flat(row)) for row in anew], view


def test_what_a_killed_build_left_is_not_made_part_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part file that a killed build left is not merged with the other parts."""
    monkeypatch.setattr(parts, "MAX_PARTS", FEW)
    features, files = tmp_path / "features", []
    for n in range(FEW):
        files.append(write(hour(n), tmp_path / f"{n}.parquet"))
        build(files, features, until=START + n * 5 * HOUR + HOUR)
    stray = features / "user_stats" / f"{FEW:06}.parquet"
    stray.write_bytes((features / "user_stats" / f"{0:06}.parquet").read_bytes())
    files.append(write(hour(FEW), tmp_path / "more.parquet"))
    until = START + FEW * 5 * HOUR + HOUR
    build(files, features, until=until)
    build(files, tmp_path / "anew", until=until, anew=True)
    built, anew = rows(features, "user_stats"), rows(tmp_path / "anew", "user_stats")
    assert [flat(row) for row in built] == [pytest.approx(flat(row)) for row in anew]


def test_snapshots_that_a_kill_hid_come_back(tmp_path: Path) -> None:
    features = tmp_path / "features"
    files = [write(hour(0), tmp_path / "0.parquet")]
    build(files, features, until=START + DAY)
    features.rename(tmp_path / "features.old")  # as if killed between the two renames of a swap
    files.append(write(hour(10), tmp_path / "1.parquet"))
    written = build(files, features, until=START + 3 * DAY)
    assert written["user_stats"] == 1
    assert not (tmp_path / "features.old").exists()
    assert pq.read_table(features / "user_stats").num_rows == 2
