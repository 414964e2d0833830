"""Task options that retry steps with growing pauses, unless the error would occur again.

@task(name="stage", **RETRIED)
def stage(...): ...
"""

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from shortlist.datasets import SourceUnavailable

OURS = {"shortlist", "models", "simulation", "flows", "pydantic", "pydantic_core"}
"""Top-level modules whose errors report wrong input. A retry would fail in the same way."""
BUGS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError)


def may_pass(error: BaseException) -> bool:
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
        return may_pass(error)
    return False


RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),  # 2, 4 and 8 s
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _retry,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
"""Keyword arguments for `prefect.task`."""
