"""Long commands print one line per step; the details go to a log file."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cli import show
from flows.runtime.progress import previous_seconds
from flows.runtime.runs import Run
from shortlist.config import Settings
from tests.conftest import ROOT, RUN_STDERR

NOISE = ("printed by Python", "printed by a child", "DeprecationWarning: an old name", "3/3")
COMMAND = """
import subprocess, sys, warnings
from tqdm import tqdm
from cli.output import shown_steps
from flows.runtime.progress import timed

def work():
    print("printed by Python")
    subprocess.run(["echo", "printed by a child"])
    warnings.warn("an old name", DeprecationWarning)
    list(tqdm(range(3)))

with shown_steps("train", as_json=False, verbose="--verbose" in sys.argv) as follow:
    follow.expect("tiny")
    timed("train", work)
    if "--break" in sys.argv:
        timed("evaluate", lambda: 1 / 0)
print("the result")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an earlier run of the configuration `tiny`, whose training took 1,000 s."""
    steps = tmp_path / "home" / "runs" / "20260101T000000-tiny" / "steps"
    steps.mkdir(parents=True)
    (steps.parent / "config.json").write_text('{"name": "tiny"}')
    (steps / "train.json").write_text('{"number": 3, "seconds": 1000.0, "result": null}')
    return tmp_path / "home"


def in_terminal(*arguments: str, home: Path) -> str:
    """Run COMMAND in a pseudo-terminal and return its output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 90))
    env = os.environ | {"SHORTLIST_HOME": str(home), "TERM": "xterm"}
    command = [sys.executable, "-W", "default", "-c", COMMAND, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # raised by Linux when the other side of the terminal is closed
            pass
        process.wait(60)
    os.close(ours)
    return shown.decode()


def test_a_terminal_gets_one_live_line_a_step_and_the_log_gets_the_rest(home: Path) -> None:
    shown = in_terminal(home=home)
    (log,) = (home / "logs").glob("train-*.log")
    first, rest = shown.split("\r\n", 1)
    assert first == f"train: details in {log}"
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", rest)
    lines = [line.split("\r")[-1] for line in plain.split("\r\n")]
    assert re.search(r"train 0:0\d about 16:[34]\d left", plain)
    assert re.fullmatch(r"✓ train \d:\d\d *", lines[0])
    assert lines[1:] == ["the result", ""]
    for noise in NOISE:
        assert noise not in shown
        assert noise in log.read_text()


def test_verbose_shows_everything_and_writes_no_log(home: Path) -> None:
    shown = in_terminal("--verbose", home=home)
    for expected in (*NOISE, "train: started", "the result"):
        assert expected in shown
    assert not (home / "logs").exists()


def test_a_step_that_fails_is_marked_and_the_error_names_the_log(home: Path) -> None:
    shown = in_terminal("--break", home=home)
    (log,) = (home / "logs").glob("train-*.log")
    assert re.search(r"✗.* evaluate .*failed", shown)
    assert shown.rstrip().endswith(f"ZeroDivisionError: division by zero\r\ndetails: {log}")
    assert "ZeroDivisionError" in log.read_text()


def test_without_a_terminal_a_run_shows_two_lines_a_step(run_summary: dict) -> None:
    home = Path(run_summary["home"])
    first, *lines = home.with_name(RUN_STDERR).read_text().splitlines()
    assert first.startswith(f"run: details in {home}/logs/run-")
    told = [re.sub(r"done in [\d.]+ s", "done", line) for line in lines]
    assert told == [f"{s}: {end}" for s in run_summary["seconds"] for end in ("started", "done")]
    log = Path(first.removeprefix("run: details in ")).read_text()
    for detail in ("for flow 'train-sources'", "two_tower: epoch 1/3", "gate quality: pass"):
        assert detail in log


def test_estimates_are_of_the_newest_run_with_that_name(run_summary: dict, home: Path) -> None:
    """Expected durations of steps come from the newest runs of a configuration.

    An unfinished run gives the steps that it has, and older runs give the others.
    """
    assert previous_seconds(Path(run_summary["home"]) / "runs", "tiny") == run_summary["seconds"]
    assert previous_seconds(Path(run_summary["home"]) / "runs", "other") == {}
    newer = home / "runs" / "20260102T000000-tiny"
    (newer / "steps").mkdir(parents=True)
    (newer / "config.json").write_text('{"name": "tiny"}')
    (newer / "steps" / "ingest.json").write_text('{"number": 0, "seconds": 2.0, "result": {}}')
    assert previous_seconds(home / "runs", "tiny") == {"ingest": 2.0, "train": 1000.0}
    (newer / "summary.json").write_text("{}")
    assert previous_seconds(home / "runs", "tiny") == {"ingest": 2.0}


def test_the_summary_fits_100_columns_and_begins_with_what_was_built(
    run_summary: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    show.summary(run_summary)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert [line.split()[0] for line in lines[:5]] == ["built", "from", "quality", "serves", "next"]
    assert run_summary["release_id"] in lines[0]
    settings = Settings(home=run_summary["home"])
    lake = Run.open(settings, run_summary["run_id"]).lake(settings)
    ratings = lake.interactions(event_types=("rating",))
    users = len(set(ratings["user_id"].to_pylist()))
    assert lines[1] == f"from     60 items, {users} users, {ratings.num_rows:,} events"
    best = max(
        ("popularity", "recent_popularity", "item_knn", "ease", "ials"),
        key=lambda name: run_summary["metrics"][name]["ndcg@10"]["mean"],
    )
    lead = run_summary["chain_ahead"][best]["ndcg@10"]["mean"]
    assert f"; {lead:+.3f} [" in lines[2]
    assert f" over {best}, the best baseline" in lines[2]
    assert f"shortlist recommend {run_summary['example_user']}" in lines[4]


def test_a_run_that_is_not_promoted_says_what_serves(
    run_summary: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    show.summary(run_summary | {"promoted": False, "serving": None})
    text = capsys.readouterr().out
    assert "the release was not promoted, no release serves; see the gates below" in text
    assert "shortlist serve" not in text
