"""Prefect artifacts of a run: tables of data, metrics, gates and guardrails, links and progress.

Artifacts are created only inside a flow run. Their keys carry the home's name (a home is the folder
SHORTLIST_HOME), so that the page of a key shows the history of one home.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.runtime import flow_run

from flows.operations.links import link_to
from shortlist.config import Settings

DATA = {
    "read": "events read",
    "accepted": "accepted",
    "quarantined": "quarantined",
    "duplicates": "duplicates",
    "excluded": "excluded",
    "held_back": "held back",
    "items": "items",
    "users": "users",
    "withdrawn": "items withdrawn",
    "late": "late events",
}
"""Key of a validation's result -> its name in the table."""


def key_of(settings: Settings, name: str) -> str:
    """Return the artifact key of a home; Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{name}-{settings.home_name}").strip("-")


def show_data(settings: Settings, validated: dict[str, Any]) -> None:
    """Show where the events of a batch went, with warnings and a link to the Data Docs."""
    rows = [{"what": DATA[key], "rows": f"{validated[key]:,}"} for key in DATA if key in validated]
    table(settings, "data", rows, f"Batch {validated.get('batch_id', '')}")
    lines = [f"- {warning}" for warning in validated.get("warnings", ())]
    if docs := validated.get("data_docs"):
        lines.insert(0, f"[Data Docs]({link_to(settings, docs)}): every rule and its rows")
    if lines:
        markdown(settings, "data-warnings", "\n".join(lines), "Warnings of validation")


def show_metrics(settings: Settings, evaluation: dict[str, Any]) -> None:
    """Show the figures of the test window: one row for each method."""
    names = [name for name in evaluation["metrics"]["chain"] if name.endswith("@10")]
    rows = [
        {"method": method} | {name: _figure(values.get(name)) for name in names}
        for method, values in evaluation["metrics"].items()
    ]
    table(
        settings,
        "metrics",
        rows,
        f"Test window: {evaluation['n_requests']:,} requests of {evaluation['n_users']:,} users",
    )


def show_gates(settings: Settings, promoted: dict[str, Any]) -> None:
    """Show the verdict of each gate, and which release serves."""
    rows = [
        {"gate": g["name"], "verdict": "pass" if g["passed"] else "FAIL", "why": g["reason"]}
        for g in promoted["gates"]
    ]
    verdict = "promoted" if promoted["promoted"] else "refused"
    table(settings, "gates", rows, f"Release {promoted['release_id']}: {verdict}")


def show_guardrails(settings: Settings, watched: dict[str, Any]) -> None:
    """Show the verdict of each guardrail and a link to the monitoring report."""
    rows = [
        {"guardrail": g["name"], "verdict": g["verdict"], "why": g["reason"]}
        for g in watched["guardrails"]
    ]
    described = f"Release {watched['release_id']}: {watched['verdict']}"
    table(settings, "guardrails", rows, described)
    link(settings, "report", watched["report"], "Monitoring report")


def show_release(settings: Settings, packaged: dict[str, Any]) -> None:
    """Show where a new release and its Bento are, and the commands for them."""
    release_id, bento = packaged["release_id"], packaged.get("bento")
    lines = [
        f"Release `{release_id}` in `{settings.releases.absolute() / release_id}`",
        f"- what it is made of: `shortlist releases show {release_id}`",
        f"- let it serve although a gate fails: `shortlist promote --release {release_id} --force"
        " --reason WHY`",
    ]
    if bento:
        home = settings.home.absolute() / "bentoml"
        lines.append(f"- Bento `{bento}`: `BENTOML_HOME={home} bentoml serve {bento}`")
    markdown(settings, "release", "\n".join(lines), f"Release {release_id}")


def table(settings: Settings, name: str, rows: list[dict[str, Any]], described: str) -> None:
    """Create a table artifact of the current flow run."""
    if flow_run.id:
        create_table_artifact(rows, key=key_of(settings, name), description=described)


def markdown(settings: Settings, name: str, text: str, described: str) -> None:
    """Create a markdown artifact of the current flow run."""
    if flow_run.id:
        create_markdown_artifact(text, key=key_of(settings, name), description=described)


def link(settings: Settings, name: str, path: Path | str, text: str) -> None:
    """Create an artifact that links a file of the home."""
    if flow_run.id:
        create_link_artifact(
            link_to(settings, path), text, key=key_of(settings, name), description=text
        )


class Progress:
    """A progress artifact of the current flow run; does nothing outside one."""

    def __init__(self, settings: Settings, steps: tuple[str, ...]):
        self._steps = steps
        self._id: UUID | None = None
        if flow_run.id:
            found = create_progress_artifact(
                0.0, key=key_of(settings, "progress"), description=f"next: {steps[0]}"
            )
            self._id = found if isinstance(found, UUID) else None

    def finished(self, step: str) -> None:
        """Show the share of steps that are finished after `step`."""
        if self._id is None or step not in self._steps:
            return
        done = self._steps.index(step) + 1
        following = self._steps[done] if done < len(self._steps) else None
        update_progress_artifact(
            self._id,
            100.0 * done / len(self._steps),
            description=f"next: {following}" if following else "all steps are finished",
        )


@contextlib.contextmanager
def progress(settings: Settings, steps: tuple[str, ...]) -> Iterator[Progress]:
    """Show the progress of the steps in the block."""
    yield Progress(settings, steps)


def _figure(value: dict[str, float] | None) -> str:
    if not value:
        return ""
    text = f"{value['mean']:.4f}"
    if {"low", "high"} <= value.keys():
        text += f" [{value['low']:.4f}, {value['high']:.4f}]"
    return text
