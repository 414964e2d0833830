"""Options of Prefect tasks: one task for each step, with timeout, tags, JSON result and retries.

@task(name="stage", **step_options("ingest", hours=2, retried=True))
def stage_task(...): ...
"""

from typing import Any

from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from shortlist.datasets import SourceUnavailable

OURS = {"shortlist", "models", "simulation", "flows", "pydantic", "pydantic_core"}
"""Top-level modules whose errors report wrong input. A retry would fail in the same way."""
BUGS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry could succeed, such as after an error of disk, database or network."""
    if isinstance(error, SourceUnavailable):
        return True
    if type(error).__module__.split(".")[0] in OURS:
        return False
    return isinstance(error, Exception) and not isinstance(error, BUGS)


def _retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except BaseException as error:
        return is_transient(error)
    return False


RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),  # 2, 4 and 8 s
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _retry,
}
"""Keyword arguments of `prefect.task`: growing pauses, unless the error would occur again."""


def step_options(
    step: str, *, hours: float, retried: bool = False, cached: CachePolicy = NO_CACHE
) -> dict[str, Any]:
    """Return the keyword arguments of `prefect.task` for a step of a run.

    The result is stored as JSON in Prefect's result storage. `shortlist run --resume` doesn't read
    it: the files in the run's folder decide which steps are finished.

    Args:
        step: name of the step, added as a tag.
        hours: time after which the task ends in the state TimedOut.
        retried: whether to retry errors of disk, database or network. A step that takes hours isn't
            retried; `--resume` repeats it.
        cached: when Prefect reuses an earlier result.
    """
    return {
        "tags": {"shortlist", step},
        "timeout_seconds": hours * 3600,
        "persist_result": True,
        "result_serializer": "json",
        "cache_policy": cached,
    } | (RETRIES if retried else {})
