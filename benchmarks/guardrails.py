"""`shortlist bench guardrails --work FOLDER`: which faults the board notices, and who else does.

Faults and hard clean windows are made from logs that a simulated shop records in the closed loop
(benchmarks/detection). Each seed is measured once and stored in FOLDER, so an interrupted run goes
on. Limits are tuned on seeds 0 to 4; seeds from 5 on are reported, with other strengths.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, report
from benchmarks.detection.faults import FAULTS, NOTIFY, ROLL_BACK
from benchmarks.detection.judge import (
    OF_FAMILY,
    Tuned,
    Verdict,
    Window,
    board_verdict,
    fault_windows,
    fit_causes,
    for_bench,
    quiet_windows,
    tune,
    without_tests,
)
from benchmarks.detection.rivals import RIVALS
from benchmarks.detection.windows import run_seed
from flows.runtime.configuration import CONFIGS
from monitoring.board.config import load_board
from shortlist.files.plain_json import write_json

TUNED_SEEDS, REPORTED_SEEDS = range(5), range(5, 10)
TUNED_STRENGTHS, STRENGTHS = (0.2, 0.5, 1.0), (0.15, 0.4, 0.9)
FAMILY = {fault.name: fault.family for fault in FAULTS}
ACTIONS = {fault.name: fault.actions for fault in FAULTS}
Detector = Callable[[Window], Verdict]


def measured(seed: int, work: Path) -> dict[str, Any]:
    """Return the windows of one seed, from its file if there is one."""
    path = work / f"seed-{seed}.json"
    if not path.is_file():
        started = time.perf_counter()
        strengths = TUNED_STRENGTHS if seed in TUNED_SEEDS else STRENGTHS
        write_json(path, run_seed(seed, strengths))
        print(f"guardrails: seed {seed} measured in {time.perf_counter() - started:.0f} s")
    return json.loads(path.read_text())


def judged(seeds: list[dict[str, Any]], detect: Detector) -> dict[str, Any]:
    """Return the figures of one detector over faults and clean windows."""
    quiet = [detect(window) for seed in seeds for window in quiet_windows(seed)]
    rows = []
    for seed in seeds:
        for case in seed["faults"]:
            verdicts = [detect(window) for window in fault_windows(seed, case)]
            hit = [bool(verdict.alarms) for verdict in verdicts]
            first = hit.index(True) if any(hit) else None
            lost = sum(case["lost"][: 2 if first is None else first + 1]) / 2
            right = None
            if first is not None and verdicts[first].actions:
                right = is_right(verdicts[first].actions, case["fault"])
            alarms = frozenset() if first is None else verdicts[first].alarms
            cause = None if first is None else verdicts[first].cause
            about = {"fault": case["fault"], "strength": case["strength"]}
            rows.append(
                about
                | {"found": first is not None, "lost": lost, "right": right}
                | {"alarms": alarms, "cause": cause}
            )
    strengths = sorted({row["strength"] for row in rows})
    return {
        "detected_within_2_windows": _share(rows, "found"),
        "by_strength": {
            str(level): _share([row for row in rows if row["strength"] == level], "found")
            for level in strengths
        },
        "action_right_share": _share([row for row in rows if row["right"] is not None], "right"),
        "false_alarms_per_100_clean": round(
            100 * float(np.mean([bool(v.alarms) for v in quiet])), 2
        ),
        "clean_windows": len(quiet),
        "wrong_rollbacks": sum(ROLL_BACK in verdict.actions for verdict in quiet),
        "harm_until_action": round(float(np.mean([row["lost"] for row in rows])), 4),
        "rows": rows,
    }


def is_right(actions: frozenset[str], fault: str) -> bool:
    """Return whether one action is right for a fault and none is wrong; notify is never wrong."""
    right = set(ACTIONS[fault])
    return bool(actions & right) and actions <= right | {NOTIFY}


def by_fault(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the share of seeds in which each fault was found, by strength."""
    out: dict[str, dict[str, float | None]] = {}
    for fault in FAULTS:
        mine = [row for row in rows if row["fault"] == fault.name]
        out[fault.name] = {
            str(level): _share([row for row in mine if row["strength"] == level], "found")
            for level in sorted({row["strength"] for row in mine})
        }
    return out


def signs_by_fault(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Return the alarms of the first window with any, and the causes named, most frequent first."""
    out: dict[str, dict[str, dict[str, list[str]]]] = {}
    for row in rows:
        of = out.setdefault(row["fault"], {}).setdefault(
            str(row["strength"]), {"alarms": [], "causes": []}
        )
        of["alarms"] += sorted(row["alarms"])
        of["causes"] += [row["cause"] or "none"] if row["found"] else []
    for strengths in out.values():
        for of in strengths.values():
            for name, values in of.items():
                of[name] = [each for each, _ in Counter(values).most_common()]
    return out


def clean_by_kind(seeds: list[dict[str, Any]], detect: Detector) -> dict[str, int]:
    """Return the number of false alarms by kind of clean window."""
    counts: dict[str, int] = {}
    for seed in seeds:
        for each, window in zip(seed["quiet"], quiet_windows(seed), strict=True):
            counts[each["kind"]] = counts.get(each["kind"], 0) + bool(detect(window).alarms)
    return counts


def cause_right_share(rows: list[dict[str, Any]]) -> float | None:
    """Return the share of the found faults whose family the detector names."""
    found = [row for row in rows if row["found"]]
    right = [row["cause"] == FAMILY[row["fault"]] for row in found]
    return round(float(np.mean(right)), 4) if right else None


def _share(rows: list[dict[str, Any]], name: str) -> float | None:
    return round(float(np.mean([row[name] for row in rows])), 4) if rows else None


def judged_rivals(seeds: list[dict[str, Any]]) -> list[str]:
    """Return the rivals that have a verdict on every window; their package may be missing."""
    windows = [window for seed in seeds for window in seed["quiet"]]
    windows += [week for seed in seeds for case in seed["faults"] for week in case["weeks"]]
    return [name for name in RIVALS if all(name in window["rivals"] for window in windows)]


def detectors(
    tuned: Tuned, diagnose: Callable[[frozenset[str]], str], *, rivals: list[str]
) -> dict[str, Detector]:
    """Return every detector: the board with tuned limits, the board as configured, and rivals."""
    file = for_bench(load_board(CONFIGS / "guardrails.toml"))
    fixed = without_tests(file)

    def with_limits(window: Window) -> Verdict:
        configured, more = board_verdict(file, window), tuned.alarms(window)
        if not configured.alarms and not more:
            return Verdict(frozenset())
        alarms = configured.alarms | more
        family = diagnose(alarms)
        return Verdict(alarms, configured.actions | {OF_FAMILY[family]}, family)

    def rival(name: str) -> Detector:
        return lambda window: Verdict(
            frozenset({name}) if window.now["rivals"][name] else frozenset()
        )

    return {
        "board with tuned limits": with_limits,
        "board": lambda window: board_verdict(file, window),
        "the board's limits without tests": lambda window: board_verdict(fixed, window),
    } | {name: rival(name) for name in rivals}


def alarm_sets(seeds: list[dict[str, Any]], detect: Detector) -> list[tuple[frozenset[str], str]]:
    """Return the alarms of the first window with any, and the family, for each fault found."""
    return [
        (row["alarms"], FAMILY[row["fault"]])
        for row in judged(seeds, detect)["rows"]
        if row["found"]
    ]


def summary(tuning: list[dict[str, Any]], reported: list[dict[str, Any]]) -> dict[str, Any]:
    """Tune on some seeds, report the others."""
    limits, margin = tune({seed["seed"]: quiet_windows(seed) for seed in tuning})
    rivals = judged_rivals(reported)
    every = detectors(limits, lambda alarms: "data", rivals=rivals)
    diagnose = fit_causes(alarm_sets(tuning, every["board with tuned limits"]))
    every = detectors(limits, diagnose, rivals=rivals)
    results = {name: judged(reported, detect) for name, detect in every.items()}
    for name in ("board", "board with tuned limits"):
        results[name]["cause_right_share"] = cause_right_share(results[name]["rows"])
    signs = signs_by_fault(results["board"]["rows"])
    faults = {name: by_fault(results[name].pop("rows")) for name in list(results)}
    return {
        "board": results.pop("board") | {"false_alarms": clean_by_kind(reported, every["board"])},
        "rivals": results,
        "rivals_left_out": [name for name in RIVALS if name not in rivals],
        "by_fault": {
            "board": faults["board"],
            "board with tuned limits": faults["board with tuned limits"],
        },
        "signs_of_board": signs,
        "tuned_margin": margin,
        "seeds": {"tuned": [s["seed"] for s in tuning], "reported": [s["seed"] for s in reported]},
        "strengths": {"tuned": TUNED_STRENGTHS, "reported": STRENGTHS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the measured seeds")
    default = ",".join(str(seed) for seed in (*TUNED_SEEDS, *REPORTED_SEEDS))
    parser.add_argument("--seeds", default=default)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    seeds = [measured(int(seed), arguments.work) for seed in arguments.seeds.split(",")]
    tuning = [seed for seed in seeds if seed["seed"] in TUNED_SEEDS]
    reported = [seed for seed in seeds if seed["seed"] not in TUNED_SEEDS]
    if len(tuning) < 2 or not reported:
        parser.error("--seeds: want at least two of 0 to 4, to tune on, and one from 5 on")
    result = summary(tuning, reported)
    about = {"command": command_line("guardrails")} | about_machine()
    report(result | about, arguments.out, shown=result)


if __name__ == "__main__":
    main()
