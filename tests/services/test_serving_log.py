"""The serving log: no line is lost at a normal stop, the queue is bounded, ingest can read it."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from models.recommend.slate import Slate
from services import metrics
from services.serving_log import ServingLog, entry_of
from shortlist.contracts import SERVING_LOG
from shortlist.datasets.service.service_log import load_serving_log
from shortlist.http.api import Item

SLATE = Slate(
    items=[
        Item(item_id="i1", title="One", score=0.9, rank=1, source="ease", sources=["ease"]),
        Item(item_id="i2", title="Two", score=0.1, rank=2, source="popularity", rules=["pin"]),
    ],
    at=1_000_000,
    user_known=True,
    skipped_stages=["features"],
    stage_seconds={"ease": 0.002, "ranker": 0.0015},
    context_id="home|phone|07",
    user_as_of=0,
    as_of={"user_stats": 0, "context_trend": 7},
    stamps={"user_stats": 3, "context_trend": 8},
    features=[[0.5, 1.0], [0.25, 2.0]],
    propensities=[1.0, 0.5],
    pack_id="p",
    release_id="r",
    rules_version="1-0a1b2c3d",
    rules=["cap"],
)


def entry(request_id: str) -> dict:
    return entry_of(SLATE, request_id=request_id, user_id="u1", clock="wall", seconds=0.0123)


def dropped() -> float:
    return metrics.LOG_DROPPED._value.get()


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for the log's thread; fail after 20 seconds."""
    for _ in range(1_000):
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never held")


def lines(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_an_entry_reads_back_as_the_contract(tmp_path):
    log = ServingLog(tmp_path)
    log.write(partial(entry, "q1"))
    log.close()
    table = load_serving_log(tmp_path)
    assert table.schema == SERVING_LOG
    first, second = table.to_pylist()
    assert (first["request_id"], first["item_id"], first["position"]) == ("q1", "i1", 1)
    assert first["user_as_of"] is None  # 0 means "no event", not 1970
    assert first["skipped_stages"] == ["features"]
    assert (second["propensity"], second["features"]) == (0.5, [0.25, 2.0])
    (line,) = lines(tmp_path)
    assert line["milliseconds"] == 12.3
    assert line["stages"] == {"ease": 2.0, "ranker": 1.5}
    assert (line["as_of"], line["clock"]) == ({"user_stats": None, "context_trend": 7}, "wall")
    assert line["stamps"] == {"user_stats": 3, "context_trend": 8}
    assert (line["rules_version"], line["rules"]) == ("1-0a1b2c3d", ["cap"])
    assert [item["rules"] for item in line["items"]] == [[], ["pin"]]


def test_closing_writes_everything_that_waits(tmp_path):
    log = ServingLog(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log.write, [partial(entry, f"q{i}") for i in range(3_000)]))
    log.close()
    assert sorted(line["request_id"] for line in lines(tmp_path)) == sorted(
        f"q{i}" for i in range(3_000)
    )


def test_a_written_line_is_on_disk_without_closing(tmp_path):
    log = ServingLog(tmp_path)
    log.write(partial(entry, "q1"))
    wait_until(lambda: lines(tmp_path))
    assert [line["request_id"] for line in lines(tmp_path)] == ["q1"]
    log.close()


class Held:
    """A log entry that blocks the log's thread until the test opens `gate`, like a slow disk."""

    def __init__(self, content: dict):
        self.content = content
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self) -> dict:
        self.begun.set()
        self.gate.wait()
        return self.content


def test_a_slow_disk_delays_no_answer_and_what_is_dropped_is_counted(tmp_path):
    log = ServingLog(tmp_path, capacity=2)
    first = Held(entry("q0"))
    log.write(first)
    assert first.begun.wait(20)
    before = dropped()
    for i in range(1, 20):
        log.write(partial(entry, f"q{i}"))  # would hang if it waited for the disk
    assert dropped() - before == 17  # two fit into the queue
    first.gate.set()
    log.close()
    assert [line["request_id"] for line in lines(tmp_path)] == ["q0", "q1", "q2"]


def test_trouble_with_one_response_does_not_stop_the_log(tmp_path, caplog):
    log, before = ServingLog(tmp_path), dropped()
    log.write(lambda: {"request_id": "bad", "items": object()})
    log.write(partial(entry, "good"))
    log.close()
    assert [line["request_id"] for line in lines(tmp_path)] == ["good"]
    assert "a response can't be written" in caplog.text
    assert dropped() - before == 1


def test_a_disk_that_cannot_be_written_drops_lines_and_the_log_goes_on_when_it_can(tmp_path):
    folder = tmp_path / "log"
    folder.write_text("no folder can be made here")
    log, before = ServingLog(folder), dropped()
    log.write(partial(entry, "q0"))
    log.write(partial(entry, "q1"))
    wait_until(lambda: dropped() - before == 2)
    folder.unlink()
    log.write(partial(entry, "q2"))
    log.close()
    assert [line["request_id"] for line in lines(folder)] == ["q2"]
