"""Final states of flow runs that did their work, but whose result may not be used.

`Refused`: a batch was refused by validation, or a release by a gate. `Held`: a guardrail asks to
hold. Both are of Prefect's type FAILED, so that its lists and automations treat them as failures.
Callers in Python get an exception with the flow's result.
"""

from collections.abc import Callable
from typing import Any, Literal

from prefect.client.schemas.objects import State, StateType

REFUSED, HELD = "Refused", "Held"


class FlowEnded(RuntimeError):
    """A flow ended as Refused or Held; `result` is what it would have returned."""

    def __init__(self, message: str, result: dict[str, Any]):
        super().__init__(message)
        self.result = result


class PromotionRefused(FlowEnded):
    """A release failed a gate."""


class TrafficHeld(FlowEnded):
    """The verdict of the guardrails is `hold`."""


def ended(name: Literal["Refused", "Held"], error: Exception) -> State[Any]:
    """Return a final state for a flow to return; the flow's caller gets `error` raised."""
    return State(type=StateType.FAILED, name=name, message=str(error), data=error)


def refusal(result: dict[str, Any]) -> PromotionRefused:
    """Return the error for a promotion's result whose gates failed."""
    failed = "; ".join(f"{g['name']}: {g['reason']}" for g in result["gates"] if not g["passed"])
    return PromotionRefused(f"release {result['release_id']} is not promoted: {failed}", result)


def hold(watched: dict[str, Any], result: dict[str, Any]) -> TrafficHeld:
    """Return the error for a monitoring result with the verdict `hold`.

    Args:
        watched: the monitoring result.
        result: result of the whole flow.
    """
    held = (f"{g['name']}: {g['reason']}" for g in watched["guardrails"] if g["verdict"] == "hold")
    return TrafficHeld(f"guardrails hold: {'; '.join(held)}", result)


def result_of(flow: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
    """Call a flow; return its result also if it ended as Refused or Held."""
    try:
        return flow(*args, **parameters)
    except FlowEnded as end:
        return end.result
