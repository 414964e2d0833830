"""The load of `shortlist bench serving`: its requests, and the tools that send them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_load.home import CATEGORIES, KNOWN_USERS
from shortlist import columns as c
from shortlist.lake import Lake


def requests_of(home: Path, *, synthetic: bool, number: int) -> list[tuple[str, dict[str, Any]]]:
    """Return (path, body) of the requests, in the order in which they are sent.

    Args:
        synthetic: whether the home is a synthetic one.
        number: number of requests to /recommend; posted events are added.
    """
    rng = np.random.default_rng(1)
    if synthetic:
        users = [f"u{n}" for n in range(KNOWN_USERS)]
        items = [f"i{n}" for n in range(5_000)]
        categories = [f"shelf {n}" for n in range(CATEGORIES)]
    else:
        lake = Lake(home / "lake")
        users = lake.users().column(c.USER_ID).to_pylist()
        items = lake.items().column(c.ITEM_ID).to_pylist()
        categories = ["Comedy", "Drama", "Action", "Thriller"]
    requests: list[tuple[str, dict[str, Any]]] = []
    for turn in range(number):
        user = str(rng.choice(users))
        body: dict[str, Any] = {"user_id": user, "k": 10}
        if turn % 10 == 0:
            body["user_id"] = f"unknown-{turn}"
        elif turn % 10 == 3:
            body = {"recent_items": rng.choice(items, size=5).tolist(), "k": 10}
        elif turn % 10 == 6:
            body["filters"] = {"categories": [str(rng.choice(categories))]}
        requests.append(("/recommend", body))
        if turn % 5 == 4:
            event = {"user_id": user, "item_id": str(rng.choice(items)), "event_type": "click"}
            requests.append(("/events", {"events": [event]}))
    return requests


def send(url: str, requests: list[tuple[str, dict[str, Any]]], *, rate: float) -> dict[str, Any]:
    """Send the requests at a mean rate from another process; return what `send_all` returns.

    Args:
        rate: mean requests to /recommend per second.
    """
    # Posted events are sent in addition to this rate.
    arrivals = rate * len(requests) / sum(path == "/recommend" for path, _ in requests)
    task = {"url": url, "rate": arrivals, "seed": 0, "requests": requests}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_load.generator"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def saturation(url: str, home: Path, requests: list[tuple[str, dict[str, Any]]]) -> float | None:
    """Return the answers per second with eight connections that never pause.

    None if `wrk` is not installed.
    """
    if shutil.which("wrk") is None:
        return None
    bodies = [json.dumps(body) for path, body in requests if path == "/recommend"][:2_000]
    script = home / "wrk.lua"
    listed = ",\n".join(f"[==[{body}]==]" for body in bodies)
    script.write_text(
        f"local bodies = {{{listed}}}\nlocal turn = 0\n"
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
        "request = function() turn = turn % #bodies + 1;"
        " return wrk.format(nil, '/recommend', nil, bodies[turn]) end\n"
    )
    command = ["wrk", "-t1", "-c8", "-d15s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    if "Non-2xx" in done.stdout:
        print(done.stdout, file=sys.stderr)
    return float(found[1])
