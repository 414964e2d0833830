"""The steps of a run: each result is kept in the run's folder, and a resumed run skips it.

runs/<run_id>/steps/<name>.json    {"result": what the step returned, "seconds": how long it took}
"""

import json
import time
from collections.abc import Callable
from typing import Any

from flows.runtime.runs import Run
from shortlist.plain_json import write_json


class Steps:
    """Runs steps and remembers their results and seconds.

    Args:
        run: a run to go on with: its finished steps aren't run again. None: a new run, whose folder
            `keep_in` names as soon as there is one.
    """

    def __init__(self, run: Run | None = None):
        self.run = run
        self.finished: dict[str, dict[str, Any]] = {}
        if run is not None:
            found = [(path.stem, json.loads(path.read_text())) for path in run.steps.glob("*.json")]
            self.finished = dict(sorted(found, key=lambda one: one[1]["number"]))

    @property
    def seconds(self) -> dict[str, float]:
        """Step -> seconds, in the order in which they ran."""
        return {name: step["seconds"] for name, step in self.finished.items()}

    def result(self, name: str) -> Any:
        """What a finished step returned."""
        return self.finished[name]["result"]

    def perform(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """The result of `step(*args, **parameters)`, from the run's folder if it ran before."""
        if name in self.finished:
            print(f"{name}: finished before, in {self.finished[name]['seconds']} s")
            return self.result(name)
        started = time.perf_counter()
        result = step(*args, **parameters)
        seconds = round(time.perf_counter() - started, 1)
        self.finished[name] = {"number": len(self.finished), "seconds": seconds, "result": result}
        print(f"{name}: done in {seconds} s")
        self._write(name)
        return result

    def keep_in(self, run: Run) -> None:
        """Write the results so far, and every later one, into the folder of `run`."""
        self.run = run
        for name in self.finished:
            self._write(name)

    def _write(self, name: str) -> None:
        if self.run is not None:
            self.run.steps.mkdir(exist_ok=True)
            write_json(self.run.steps / f"{name}.json", self.finished[name])
