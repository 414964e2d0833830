"""Prefect events with lineage: which source, lake version and features a release was made from.

| event | resource | related |
|---|---|---|
| shortlist.lake.published | lake version | source |
| shortlist.features.updated | feature pack | lake version |
| shortlist.releases.release.published | release | run, lake version, feature pack |
| shortlist.releases.release.promoted | release | release that served before |
| shortlist.releases.release.refused | release | release that serves |
| shortlist.traffic.held | release | report |

Resource ids start with `shortlist.<home's name>.`; a home is the folder SHORTLIST_HOME. Events are
emitted only inside a flow run, and errors of Prefect's event client don't stop it.
"""

from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

from shortlist.config import Settings


def resource(settings: Settings, resource_type: str, name: Any) -> dict[str, str]:
    """Return a Prefect resource, such as shortlist.var_1a2b3c.release.20261130T....

    Args:
        resource_type: what the resource is: source, lake, features, run, release or report.
    """
    return {
        "prefect.resource.id": f"shortlist.{settings.home_name}.{resource_type}.{name}",
        "prefect.resource.name": f"{resource_type} {name}",
        "shortlist.home": settings.home_name,
    }


def related(settings: Settings, resource_type: str, name: Any, *, role: str) -> dict[str, str]:
    """Return a related resource.

    Args:
        role: relation to the event's resource: made-from, replaces, seen-in or made-by.
    """
    return resource(settings, resource_type, name) | {"prefect.resource.role": role}


def emit(
    settings: Settings,
    event: str,
    of: tuple[str, Any],
    *,
    made_from: tuple[tuple[str, Any], ...] = (),
    role: str = "made-from",
    payload: dict[str, Any] | None = None,
) -> None:
    """Emit `shortlist.<event>` about one resource, related to the flow run and its inputs.

    Args:
        of: (resource_type, name) of the resource.
        made_from: (resource_type, name) of each related resource.
    """
    if not flow_run.id:
        return
    run = {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
        "prefect.resource.role": "flow-run",
    }
    others = [
        related(settings, resource_type, name, role=role)
        for resource_type, name in made_from
        if name
    ]
    emit_event(
        event=f"shortlist.{event}",
        resource=resource(settings, *of),
        related=[run, *others],
        payload=payload or {},
    )


def published_lake(settings: Settings, source: str, validated: dict[str, Any]) -> None:
    """Emit that a batch was added to the lake; does nothing if it had no new rows."""
    if validated.get("version") is not None:
        counts = {key: validated.get(key) for key in ("read", "accepted", "quarantined", "late")}
        emit(
            settings,
            "lake.published",
            ("lake", validated["version"]),
            made_from=(("source", source),),
            payload=counts | {"batch_id": validated["batch_id"]},
        )


def updated_features(settings: Settings, version: int, features: dict[str, Any]) -> None:
    """Emit that states and item features were updated from a version of the lake."""
    emit(
        settings,
        "features.updated",
        ("features", features["pack_id"]),
        made_from=(("lake", version),),
        payload={"rows": features["rows"], "as_of": features["as_of"]},
    )


def published_release(
    settings: Settings, release_id: str, *, run_id: str, version: int, pack_id: str | None
) -> None:
    """Emit that a run published a release."""
    inputs = (("run", run_id), ("lake", version), ("features", pack_id))
    emit(settings, "release.published", ("release", release_id), made_from=inputs)


def judged_release(settings: Settings, promoted: dict[str, Any], *, before: str | None) -> None:
    """Emit that a release was promoted or refused."""
    failed = [gate["name"] for gate in promoted["gates"] if not gate["passed"]]
    emit(
        settings,
        "release.promoted" if promoted["promoted"] else "release.refused",
        ("release", promoted["release_id"]),
        made_from=(("release", before),),
        role="replaces",
        payload={"failed_gates": failed, "serving": promoted["serving"]},
    )


def held_traffic(settings: Settings, watched: dict[str, Any]) -> None:
    """Emit that the guardrails ask to hold."""
    held = [
        guardrail["name"] for guardrail in watched["guardrails"] if guardrail["verdict"] == "hold"
    ]
    emit(
        settings,
        "traffic.held",
        ("release", watched["release_id"]),
        made_from=(("report", watched["report"]),),
        role="seen-in",
        payload={"guardrails": held},
    )
