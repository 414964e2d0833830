"""Cleans up after a cancelled flow run of the main job.

Prefect's worker kills the process of a cancelled run, which frees the home's locks. Then it calls
`end_cancelled_run` in its own process: the run's lease of the lake ends, its frozen states are
removed, and `shortlist run --resume` refuses it.
"""

import json
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from flows.runtime.runs import Run
from shortlist.config import Settings

LINK = "prefect.json"
"""File in a run's folder that names its flow run."""
CANCELLED = "cancelled.json"


def link_flow_run(run: Run, flow_run_id: str | None) -> None:
    """Store the id of the flow run that works on a run."""
    run.write(LINK, {"flow_run_id": flow_run_id})


def end_cancelled_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """End the run of a cancelled flow run; the hook `on_cancellation` of the flow `shortlist`."""
    settings = Settings()
    for path in settings.runs.glob(f"*/{LINK}"):
        if json.loads(path.read_text())["flow_run_id"] == str(flow_run.id):
            run = Run.open(settings, path.parent.name)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            run.write(CANCELLED, {"at": at, "message": state.message})
            run.end(settings)
            print(f"run {run.run_id}: cancelled; its lease of the lake has ended")


def cancelled_at(run: Run) -> str | None:
    """Return when a run was cancelled; None if it wasn't."""
    try:
        return json.loads((run.path / CANCELLED).read_text())["at"]
    except FileNotFoundError:
        return None
