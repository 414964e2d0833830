"""Steps of a run: their results are stored in the run's folder, so a resumed run can skip them.

runs/<run_id>/steps/<name>.json    {"number": position, "seconds": duration, "result": return value}
"""

import json
from collections.abc import Callable
from typing import Any

from flows.runtime.memory import release_memory
from flows.runtime.progress import skip, timed
from flows.runtime.runs import Run
from shortlist.files.plain_json import write_json


class Steps:
    """Runs steps and stores their results and durations; finished steps are not repeated."""

    def __init__(self, run: Run, *, on_finished: Callable[[str], None] = lambda step: None):
        """Read the finished steps of a run.

        Args:
            on_finished: called with the name of each step after it, also if it is skipped.
        """
        self.run = run
        self.on_finished = on_finished
        found = [(path.stem, json.loads(path.read_text())) for path in run.steps.glob("*.json")]
        self.finished: dict[str, dict[str, Any]] = dict(
            sorted(found, key=lambda name_and_step: name_and_step[1]["number"])
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Step -> duration in seconds, in the order in which the steps ran."""
        return {name: step["seconds"] for name, step in self.finished.items()}

    def result(self, name: str) -> Any:
        """Return the stored result of a step; None if it isn't finished."""
        return self.finished[name]["result"] if name in self.finished else None

    def perform(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """Call `step(*args, **parameters)` and store its result, or return the stored result."""
        if name in self.finished:
            skip(name, self.finished[name]["seconds"])
            self.on_finished(name)
            return self.result(name)
        result, seconds = timed(name, step, *args, **parameters)
        self.finished[name] = {"number": len(self.finished), "seconds": seconds, "result": result}
        self.run.steps.mkdir(exist_ok=True)
        write_json(self.run.steps / f"{name}.json", self.finished[name])
        self.on_finished(name)
        release_memory()
        return result

    def redo(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """Run a step again even if it is finished; it and all later steps are forgotten first."""
        if name in self.finished:
            names = list(self.finished)
            for outdated in names[names.index(name) :]:
                (self.run.steps / f"{outdated}.json").unlink()
                del self.finished[outdated]
        return self.perform(name, step, *args, **parameters)
