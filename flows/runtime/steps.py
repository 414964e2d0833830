"""The steps of a run: each result is kept in the run's folder, and a resumed run skips it.

runs/<run_id>/steps/<name>.json    {"result": what the step returned, "seconds": how long it took}
"""

import json
from collections.abc import Callable
from typing import Any

from flows.runtime.progress import skip, timed
from flows.runtime.runs import Run
from shortlist.plain_json import write_json


class Steps:
    """Runs the steps of a run and keeps results and seconds; finished steps aren't run again."""

    def __init__(self, run: Run):
        self.run = run
        found = [(path.stem, json.loads(path.read_text())) for path in run.steps.glob("*.json")]
        self.finished: dict[str, dict[str, Any]] = dict(
            sorted(found, key=lambda one: one[1]["number"])
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Step -> seconds, in the order in which they ran."""
        return {name: step["seconds"] for name, step in self.finished.items()}

    def result(self, name: str) -> Any:
        """What a finished step returned; None if the run hasn't done it."""
        return self.finished[name]["result"] if name in self.finished else None

    def perform(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """The result of `step(*args, **parameters)`, from the run's folder if it ran before."""
        if name in self.finished:
            skip(name, self.finished[name]["seconds"])
            return self.result(name)
        result, seconds = timed(name, step, *args, **parameters)
        self.finished[name] = {"number": len(self.finished), "seconds": seconds, "result": result}
        self.run.steps.mkdir(exist_ok=True)
        write_json(self.run.steps / f"{name}.json", self.finished[name])
        return result

    def redo(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """`perform`, also if the step ran before. Later steps count as not done then."""
        if name in self.finished:
            names = list(self.finished)
            for outdated in names[names.index(name) :]:
                (self.run.steps / f"{outdated}.json").unlink()
                del self.finished[outdated]
        return self.perform(name, step, *args, **parameters)
