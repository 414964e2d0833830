"""`shortlist init` chooses a plausible format of times, shows an example, and marks guesses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.guessing.guess import guess
from shortlist.datasets import DatasetError
from tests.cli.test_init_forms import take

NOW = datetime.now(UTC)


def look(folder: Path, times: list[str], **more: Any) -> dict[str, Any]:
    path = folder / "log.csv"
    rows = "".join(f'u{i},a{i % 3},"{one}"\n' for i, one in enumerate(times))
    path.write_text("user_id,item_id,time\n" + rows)
    options = {"items": None, "users": None, "columns": {}, "event_type": None, "name": None}
    return guess(str(path), **(options | more))


@pytest.mark.parametrize(
    ("times", "unit", "first"),
    [
        (["20200705", "20191231"], "%Y%m%d", "20200705 is 2020-07-05"),
        (["20200705123001", "20200706000000"], "%Y%m%d%H%M%S", "is 2020-07-05 12:30:01"),
        (["202007051230", "202007060915"], "%Y%m%d%H%M", "is 2020-07-05 12:30"),
        (["45292.4166666667", "45293"], "excel", "is 2024-01-01 10:00"),
        (["40000.5", "40001.25"], "excel", "is 2009-07-06 12:00"),
        (["1700000000123456789", "1700000001000000000"], "ns", "is 2023-11-14 22:13:20"),
        (["1700000000123456", "1700000001000000"], "us", "is 2023-11-14 22:13:20"),
        (["1.7e9", "1.7001e9"], "s", "is 2023-11-14 22:13:20"),
        (["1700000000.25", "1700000001.5"], "s", "is 2023-11-14 22:13:20"),
        (["2019-10-01 00:00:00 UTC", "2019-10-01 00:00:05 UTC"], "iso", "is 2019-10-01"),
        (["09 13, 2009", "10 4, 2010"], "%m %d, %Y", "is 2009-09-13"),
        (["3 Mar 2020", "14 Apr 2020"], "%d %b %Y", "is 2020-03-03"),
        (["12/1/2010 8:26", "12/13/2010 9:01"], "%m/%d/%Y %H:%M", "is 2010-12-01 08:26"),
        (["1/12/2010 8:26", "13/12/2010 9:01"], "%d/%m/%Y %H:%M", "is 2010-12-01 08:26"),
        (["05/31/24 9:15 PM"], "%m/%d/%y %I:%M %p", "is 2024-05-31 21:15"),
        (["2024/07/10 1:05 PM", "2024/07/11 12:30 AM"], "%Y/%m/%d %I:%M %p", "is 2024-07-10 13:05"),
        (["2024-07-10 01:05:09 pm"], "%Y-%m-%d %I:%M:%S %p", "is 2024-07-10 13:05:09"),
        (["2024.07.10 10:05", "2024.07.31 11:00"], "%Y.%m.%d %H:%M", "is 2024-07-10 10:05"),
        (["2024-07-10 10:05:09,123"], "%Y-%m-%d %H:%M:%S,%g", "is 2024-07-10 10:05:09"),
        (["Wed, 10 Jul 2024 10:05:09 GMT"], "%a, %d %b %Y %H:%M:%S %Z", "is 2024-07-10 10:05:09"),
        (["Wed, 10 Jul 2024 10:05:09 +0200"], "%a, %d %b %Y %H:%M:%S %z", "is 2024-07-10 08:05:09"),
        (["2024-07-10 10:05 Europe/Berlin"], "iso", "is 2024-07-10 08:05"),
        (["240710", "240731"], "%y%m%d", "is 2024-07-10"),
        (["2024-01-10 10:00:00 +0200"], "%Y-%m-%d %H:%M:%S %z", "is 2024-01-10 08:00"),
    ],
)
def test_the_reading_is_found_and_shown(
    tmp_path: Path, times: list[str], unit: str, first: str
) -> None:
    found = look(tmp_path, times)
    assert f'timestamp_unit = "{unit}"' in found["toml"]
    assert any(first in note for note in found["notes"]), found["notes"]
    assert not any("either order" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        (["0829", "0830", "1111"], "numbers like 0829 .month and day without a year"),
        (["5", "17", "400"], "no reading .* between 1990 and today; say --time-unit"),
        (["0", "1", "2"], "no reading"),
        (["99999999999999999999"], "no reading"),
        (["1955-03-01", "1956-01-01"], "before 1990 or in the future.*--time-unit"),
        (["31.12.2091", "30.11.2092"], "before 1990 or in the future"),
        (["4102444800", "4102444801"], "no reading"),
        (["noon", "midnight"], "is no time that is understood, e.g. 'noon'"),
        (["10:00", "11:30"], "times of day without a date, e.g. '10:00'; .* event_timestamp=NAME"),
        (["9:15:00 PM"], "times of day without a date"),
        (["19011", "19012", "19013"], "no reading"),  # days since 1970, not 2019-01-1
        (["2024-07-10 10:05 CEST"], "is no time that is understood"),
        (["2024-07-10 10:05 o'clock"], "is no time that is understood"),
    ],
)
def test_an_implausible_guess_is_refused(tmp_path: Path, times: list[str], complaint: str) -> None:
    with pytest.raises(DatasetError, match=complaint):
        look(tmp_path, times)


@pytest.mark.parametrize(
    ("times", "unit", "first"),
    [
        (["638400000000000000", "638400100000000000"], "ticks", "2024-01-04 21:20"),
        (["638512345678901234"], "ticks", "2024-05-13 22:02:47"),
        (["630822816000000000"], "ticks", "2000-01-01"),
        (["6.384e17", "638400100000000000.0"], "ticks", "2024-01-04 21:20"),
        (["133613064000000000", "133613064000000001"], "filetime", "2024-05-27 18:00"),
        (["126227808000000000"], "filetime", "2001-01-01"),
        (["1600000000000000000", "638400000000000000"], "ns", "2020-09-13 12:26:40"),
    ],
)
def test_numbers_of_windows_are_recognised(
    tmp_path: Path, times: list[str], unit: str, first: str
) -> None:
    found = look(tmp_path, [*times, *times[:1]])
    assert f'timestamp_unit = "{unit}"' in found["toml"]
    assert f"{times[0]} is {first}" in found["notes"][0]
    staged, _ = take(tmp_path, found["toml"])
    microseconds = staged.column("event_timestamp").cast("int64").to_pylist()
    moment = datetime.fromisoformat(first).replace(tzinfo=UTC)
    assert microseconds[0] // 1_000_000 == moment.timestamp()


def test_ticks_keep_their_microseconds(tmp_path: Path) -> None:
    found = look(tmp_path, ["638512345678901234", "638512345678901244"])
    times = take(tmp_path, found["toml"])[0].column("event_timestamp").cast("int64").to_pylist()
    assert [time % 1_000_000 for time in times] == [890_123, 890_124]


def test_counts_from_another_year_are_a_guess(tmp_path: Path) -> None:
    """Seconds since 2001 look like times before 1996."""
    assert any(
        note.startswith("GUESS: all times") for note in look(tmp_path, ["730000000"])["notes"]
    )
    log = look(tmp_path, ["730000000", "874724710"])  # one later time is enough
    assert not any("before 1996" in note for note in log["notes"])


@pytest.mark.parametrize(
    ("missing", "good", "unit"),
    [
        ("0", "1700000000", "s"),
        ("0.0", "1700000000.5", "s"),
        ("0", "1700000000123", "ms"),
        ("0", "638400000000000000", "ticks"),
        ("1970-01-01 00:00:00", "2024-05-31 10:00:00", "iso"),
        ("1970-01-01T00:00:00Z", "2024-05-31T10:00:00Z", "iso"),
    ],
)
@pytest.mark.parametrize("share", [2, 3, 5])
def test_missing_times_do_not_spoil_a_column(
    tmp_path: Path, missing: str, good: str, unit: str, share: int
) -> None:
    """Up to 60% of the times are 0; the others decide the unit."""
    rows = {
        2: [missing, good],
        3: [missing, good, good],
        5: [missing, missing, missing, good, good],
    }
    times = rows[share] * 20
    found = look(tmp_path, times)
    assert f'timestamp_unit = "{unit}"' in found["toml"]
    assert f": {good} is 20" in found["notes"][0]
    lost = times.count(missing)
    noted = (
        f"{lost} of {len(times)} rows ({lost / len(times):.1%}) of interactions go to quarantine"
    )
    assert any(note.startswith(noted) and "epoch_zero" in note for note in found["notes"])
    assert "failure_budget = " in found["toml"]


@pytest.mark.parametrize("zeros", ["", "000", "000000", "000000000"])
def test_a_negative_time_is_named_so_in_every_unit(tmp_path: Path, zeros: str) -> None:
    times = [f"{1_700_000_000 + i}{zeros}" for i in range(57)] + ["-1"] * 3
    notes = look(tmp_path, times)["notes"]
    assert any("event_timestamp.negative" in note for note in notes)
    assert not any("epoch_zero" in note for note in notes)


@pytest.mark.parametrize(
    "missing", ["0000-00-00", "0001-01-01T00:00:00", "-1", "NULL", "1900-01-01"]
)
def test_other_missing_times_are_a_question_if_they_are_many(tmp_path: Path, missing: str) -> None:
    good = "1700000000" if missing == "-1" else "2024-05-31"
    times = [missing, good] * 20
    with pytest.raises(DatasetError, match=r"20 of 40 rows \(50\.0%\) .* is the mapping right"):
        look(tmp_path, times)
    few = look(tmp_path, [*times, *[good] * 40])
    assert any(note.startswith("20 of 80 rows (25.0%)") for note in few["notes"])


def test_somebody_who_knows_better_is_believed(tmp_path: Path) -> None:
    """With --time-unit, implausible times are accepted if they can be read."""
    toml = look(tmp_path, ["1955-03-01", "1956-01-01"], time_unit="iso")["toml"]
    assert 'timestamp_unit = "iso"' in toml
    assert "earliest = 1955-01-01T00:00:00Z" in toml
    found = look(tmp_path, ["86400", "90000"], time_unit="s")
    assert "86400 is 1970-01-02" in found["notes"][0]
    with pytest.raises(DatasetError, match="none of the first times in 'time' is milliseconds"):
        look(tmp_path, ["noon"], time_unit="ms")


@pytest.mark.parametrize("mark", ["/", "-"])
def test_an_open_order_of_day_and_month_is_said(tmp_path: Path, mark: str) -> None:
    both = [f"05{mark}01{mark}2024", f"06{mark}02{mark}2024"]
    (note,) = [note for note in look(tmp_path, both)["notes"] if "either order" in note]
    assert note.startswith("GUESS")
    other = "%d" if "read as %m" in note else "%m"
    assert f'--time-unit "{other}{mark}' in note
    # One day above 12 decides the order for all rows, even if it comes long after the sample.
    late = look(tmp_path, both * 3000 + [f"25{mark}02{mark}2024"])
    assert f'timestamp_unit = "%d{mark}%m{mark}%Y"' in late["toml"]
    assert not any("either order" in note for note in late["notes"])


@pytest.mark.parametrize("bad", ["NULL", "time", "n/a", "later", "0000-00-00"])
@pytest.mark.parametrize("good", ["1700000000", "2024-05-31 10:00:00", "31.05.2024", "20240531"])
def test_one_bad_value_does_not_spoil_a_column(tmp_path: Path, good: str, bad: str) -> None:
    found = look(tmp_path, [bad, good, good, good, good])
    assert not any("either order" in note for note in found["notes"])
    (note,) = [note for note in found["notes"] if "no such times" in note]
    assert note == f"1 of 5 values of 'time' are no such times, e.g. '{bad}'"
    assert "failure_budget = 0.22" in found["toml"]


def written(moment: datetime, unit: str) -> str:
    seconds = moment.timestamp()
    numbers = {"s": seconds, "ms": seconds * 1e3, "excel": seconds / 86_400 + 25_569}
    return f"{numbers[unit]:.6f}" if unit in numbers else moment.strftime(unit)


@pytest.mark.parametrize(
    "unit", ["s", "ms", "excel", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%d%H%M%S", "%d.%m.%Y"]
)
def test_the_clock_is_guessed_by_the_age_of_the_newest_event(tmp_path: Path, unit: str) -> None:
    old = [written(NOW - timedelta(days=one), unit) for one in (400, 390)]
    assert 'clock = "replay"' in look(tmp_path, old)["toml"]
    fresh = [*old, written(NOW - timedelta(days=2), unit)]
    assert 'clock = "wall"' in look(tmp_path, fresh)["toml"]
    # A single time in the future counts as an error, so the log is still old.
    wrong = [*old, written(NOW + timedelta(days=900), unit)]
    assert 'clock = "replay"' in look(tmp_path, wrong)["toml"]
