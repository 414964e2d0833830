"""The serving log: complete after a normal stop, with a bounded queue, and readable by ingest."""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.recommend.recommender import Slate
from services.serving_log import ServingLog, entry_of
from shortlist.api import Item
from shortlist.contracts import SERVING_LOG
from shortlist.datasets.service_log import load_serving_log

SLATE = Slate(
    items=[
        Item(item_id="i1", title="One", score=0.9, rank=1, source="ease", sources=["ease"]),
        Item(item_id="i2", title="Two", score=0.1, rank=2, source="popularity"),
    ],
    user_known=True,
    skipped_stages=["features"],
    context_id="home|phone|07",
    user_as_of=0,
    as_of={"user_stats": 0, "context_trend": 7},
    stamps={"user_stats": 3, "context_trend": 8},
    features=[[0.5, 1.0], [0.25, 2.0]],
    propensities=[1.0, 0.5],
    pack_id="p",
    release_id="r",
)


def entry(request_id: str) -> dict:
    return entry_of(
        SLATE, request_id=request_id, user_id="u1", at=1_000_000, clock="wall", seconds=0.0123
    )


def lines(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_an_entry_reads_back_as_the_contract(tmp_path):
    log = ServingLog(tmp_path)
    log.write(entry("q1"))
    log.close()
    table = load_serving_log(tmp_path)
    assert table.schema == SERVING_LOG
    first, second = table.to_pylist()
    assert (first["request_id"], first["item_id"], first["position"]) == ("q1", "i1", 1)
    assert first["user_as_of"] is None  # 0 means that no event is known
    assert first["skipped_stages"] == ["features"]
    assert (second["propensity"], second["features"]) == (0.5, [0.25, 2.0])
    (line,) = lines(tmp_path)
    assert line["milliseconds"] == 12.3
    assert (line["as_of"], line["clock"]) == ({"user_stats": None, "context_trend": 7}, "wall")
    assert line["stamps"] == {"user_stats": 3, "context_trend": 8}


def test_closing_writes_everything_that_waits(tmp_path):
    log = ServingLog(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log.write, [entry(f"q{i}") for i in range(3_000)]))
    log.close()
    assert sorted(line["request_id"] for line in lines(tmp_path)) == sorted(
        f"q{i}" for i in range(3_000)
    )


def test_a_written_line_is_on_disk_without_closing(tmp_path):
    log = ServingLog(tmp_path)
    log.write(entry("q1"))
    for _ in range(200):
        if list(tmp_path.rglob("*.jsonl")) and lines(tmp_path):
            break
        threading.Event().wait(0.02)
    assert [line["request_id"] for line in lines(tmp_path)] == ["q1"]
    log.close()


class Held(dict):
    """An entry whose write blocks until the test continues it, like a slow disk."""

    def __init__(self, content: dict):
        super().__init__(content)
        self.begun, self.gate = threading.Event(), threading.Event()

    def items(self):
        self.begun.set()
        self.gate.wait()
        return super().items()


def test_a_full_queue_makes_requests_wait_and_loses_nothing(tmp_path):
    log = ServingLog(tmp_path, capacity=2)
    first = Held(entry("q0"))
    log.write(first)
    assert first.begun.wait(20)
    handed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def write_others() -> None:
        for i in range(1, 20):
            log.write(entry(f"q{i}"))
            handed.put(i)

    writer = threading.Thread(target=write_others, daemon=True)
    writer.start()
    try:
        assert [handed.get(timeout=20) for _ in range(2)] == [1, 2]  # these fill the queue
        with pytest.raises(queue.Empty):  # without a limit, a third entry would be accepted at once
            handed.get(timeout=0.3)
    finally:
        first.gate.set()
    writer.join(20)
    assert not writer.is_alive()
    log.close()
    assert [line["request_id"] for line in lines(tmp_path)] == [f"q{i}" for i in range(20)]


def test_trouble_with_one_response_does_not_stop_the_log(tmp_path, caplog):
    log = ServingLog(tmp_path)
    log.write({"request_id": "bad", "items": object()})
    log.write(entry("good"))
    log.close()
    assert [line["request_id"] for line in lines(tmp_path)] == ["good"]
    assert "trouble with response bad" in caplog.text
