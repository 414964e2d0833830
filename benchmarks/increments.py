"""`shortlist bench increments`: what an increment is worth for a single neural source.

The newest 20% of MovieLens latest-small are cut into slices of equal count. A source is trained on
everything before the first slice. Then each slice is judged before it is learned: by the first
source (`stale`), by increments with different settings, and by a training of the same number of
epochs on everything so far (`full`). `shortlist bench rollout` does the same with whole releases.

It is resumable: trained sources and figures are kept in --work.
"""

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._event_log import EventLog
from benchmarks._result import about_machine, command_line, report
from benchmarks.rolling.days import CONFIGS, SECOND, LatestSmall
from benchmarks.rollout import as_changes, mean, read_json, write_json_in
from flows.runtime.configuration import load_run_config
from models import registry
from models.data import TrainingData, Validation
from models.incremental import Increment
from models.queries import Source
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, TIMESTAMP
from shortlist.items.catalogue import Catalogue
from shortlist.splits import draw_requests

STALE, FULL = "stale", "full"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", default="gru,two_tower")
    parser.add_argument("--variants", default="", help="increments, separated by semicolons")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--full-every", type=int, default=1)
    parser.add_argument("--until", type=int, help="stop after this many slices")
    parser.add_argument("--skip", type=int, default=0, help="leave first slices out of the means")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    slices = LatestSmall({}, arguments.work / "data")
    log = event_log(slices)
    variants = {text: as_changes(text) for text in arguments.variants.split(";") if text}
    result: dict[str, Any] = {"command": command_line("increments"), **about_machine()}
    result["defaults"] = {f.name: f.default for f in fields(Increment) if f.name != "since"}
    skip = max(arguments.skip, 1)  # before the first slice, all methods are the same
    for kind in arguments.sources.split(","):
        folder = arguments.work / kind
        advance_all(
            folder,
            log,
            slices,
            kind,
            variants,
            full_every=arguments.full_every,
            until=arguments.until,
        )
        names = [STALE, FULL, *variants]
        result[kind] = summary(folder, names, slices=list(slices.days)[: arguments.until][skip:])
    report(result, arguments.out)


def event_log(slices: LatestSmall) -> EventLog:
    """Return the data set, with all films in the catalogue from the start."""
    rows = slices.rows
    columns = {
        c.EVENT_ID: [str(n) for n in range(len(rows))],
        c.USER_ID: [row["userId"] for row in rows],
        c.ITEM_ID: [row["movieId"] for row in rows],
        c.EVENT_TYPE: ["rating"] * len(rows),
        c.EVENT_TIMESTAMP: [int(row["timestamp"]) * SECOND for row in rows],
        c.EVENT_ORDER: list(range(len(rows))),
        c.INGESTED_AT: [0] * len(rows),
        c.VALUE: [float(row["rating"]) for row in rows],
        c.SOURCE: ["latest-small"] * len(rows),
    }
    arrays = [
        pa.array(columns.get(name, [None] * len(rows)), pa.int64()).cast(TIMESTAMP)
        if type_ == TIMESTAMP
        else pa.array(columns.get(name, [None] * len(rows)), type_)
        for name, type_ in zip(INTERACTIONS.names, INTERACTIONS.types, strict=True)
    ]
    with (slices.folder / "movies.csv").open(newline="") as file:
        films = list(csv.DictReader(file))
    items = pa.table(
        {
            c.ITEM_ID: [film["movieId"] for film in films],
            c.TITLE: [film["title"] for film in films],
            c.CATEGORIES: pa.array(
                [film["genres"].split("|") for film in films], pa.list_(pa.string())
            ),
            c.AVAILABLE: [True] * len(films),
        }
    )
    events = pa.table(arrays, schema=INTERACTIONS)
    return EventLog(events, catalogue=Catalogue.from_items(items), attributes={})


def advance_all(
    folder: Path,
    log: EventLog,
    slices: LatestSmall,
    kind: str,
    variants: dict[str, dict[str, Any]],
    *,
    full_every: int,
    until: int | None,
) -> None:
    """Judge each slice with each method, then let the methods learn it."""
    options = TrainingOptions(num_threads=1)
    (config,) = (
        each
        for each in load_run_config(CONFIGS / "movielens-100k.toml").train.sources
        if each.kind == kind
    )
    frozen = {"epochs": config.optimiser.num_epochs}  # pyright: ignore
    names = [STALE, FULL, *variants]

    def data(number: int) -> TrainingData:
        return log.training_data(log.until(int(slices.edges[number]) * SECOND))

    def refit(number: int) -> Source:
        return registry.refit(config, data(number), options, frozen=frozen)

    def source(name: str, number: int) -> Source:
        """Return the source of a method that has learned everything before a slice."""
        if name == STALE or number == 0:
            return kept(folder / "sources" / "first", kind, log, lambda: refit(0))
        if name == FULL:
            last = number // full_every * full_every
            if last == 0:
                return source(STALE, 0)
            return kept(folder / "sources" / f"full-{last}", kind, log, lambda: refit(last))
        increment = Increment(since=int(slices.edges[number - 1]) * SECOND, **variants[name])
        return kept(
            folder / "sources" / f"{name}-{number}",
            kind,
            log,
            lambda: registry.advance(
                source(name, number - 1),
                config,
                data(number),
                options,
                frozen=frozen,
                increment=increment,
            ),
        )

    for number in list(slices.days)[:until]:
        for name in names:
            file = folder / "judged" / name / f"{number}.json"
            if not file.is_file():
                write_json_in(file, judge(log, slices.window(number), source(name, number)))
            print(f"{kind} slice {number}: {name} {mean(read_json(file).values()):.4f}", flush=True)


def kept(folder: Path, kind: str, log: EventLog, train: Callable[[], Source]) -> Source:
    """Return the source in a folder; train and save it first if there is none."""
    if not (folder / "seconds.json").is_file():
        wall, cpu = time.perf_counter(), time.process_time()
        trained = train()
        seconds = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
        }
        folder.mkdir(parents=True, exist_ok=True)
        trained.save(folder)
        write_json_in(folder / "seconds.json", seconds)
    return registry.load(kind, folder, log.catalogue)


def judge(log: EventLog, window: tuple[int, int], source: Source) -> dict[str, float]:
    """Return {user: mean nDCG@10} of a source on the requests of a slice."""
    events = log.events.slice(0, int(np.searchsorted(log.time, window[1])))
    drawn = draw_requests(events, window, rng=np.random.default_rng(0))
    queries, relevant = log.queries(log.until(window[1]), drawn)
    figures = Validation([(queries, log.no_items, relevant)]).ndcg_of_requests(source)
    users = np.array(drawn.user_ids)
    return {
        str(user): float(np.nanmean(figures[users == user]))
        for user in np.unique(users)
        if not np.isnan(figures[users == user]).all()
    }


def summary(folder: Path, names: list[str], *, slices: list[int]) -> dict[str, Any]:
    """Return the means over the given slices, and the seconds of a training of each method."""
    out: dict[str, Any] = {}
    for name in names:
        judged = folder / "judged" / name
        by_slice = {n: mean(read_json(judged / f"{n}.json").values()) for n in slices}
        folders = "first" if name == STALE else f"{name}-*"
        spent = [read_json(p) for p in (folder / "sources").glob(f"{folders}/seconds.json")]
        if name == FULL and not spent:
            continue
        out[name] = {
            "ndcg@10": mean(by_slice.values()),
            "cpu_seconds": mean([each["cpu_seconds"] for each in spent]),
            "by_slice": {number: round(value, 4) for number, value in by_slice.items()},
        }
    for name in out.keys() - {STALE, FULL} if FULL in out else ():
        out[name]["of_full"] = {
            key: out[name][key] / out[FULL][key] for key in ("ndcg@10", "cpu_seconds")
        }
    return out


if __name__ == "__main__":
    main()
