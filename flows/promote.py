"""Promote: sets the release pointer to a release if it passes every gate.

The pointer names the release that the service loads. Gates are conditions on a release's figures
(shortlist/releases/gates.py).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State

from flows.operations.artifacts import show_gates
from flows.operations.endings import REFUSED, ended, refusal
from flows.operations.lineage import judged_release
from flows.releases.acknowledge import wait_for_workers
from flows.runtime.configuration import CONFIGS
from flows.runtime.retries import step_options
from flows.runtime.runs import Run, RunError
from shortlist.config import Settings, load_toml
from shortlist.lake.leases import held_by_another
from shortlist.releases.gates import GatesConfig
from shortlist.releases.promotion import DEFAULT_GATES, gates_file, promote_release
from shortlist.releases.release import ReleaseError, ReleaseStore


@flow(name="promote", log_prints=True)
def promote_flow(
    release_id: str, gates: str = str(CONFIGS / "gates.toml"), force_reason: str | None = None
) -> dict[str, Any] | State[Any]:
    """Set the pointer to `release_id` if every gate passes, and wait until the workers serve it.

    If a gate fails, nothing changes, and the flow run ends as Refused.

    Args:
        release_id: id of a release, as `shortlist releases list` shows it.
        gates: path of the TOML file with the limits of the gates.
        force_reason: why to promote the release although gates fail; the audit log stores it. None:
            a release that fails a gate is refused.

    Raises:
        PromotionRefused: a gate failed; `result` has the verdicts.
    """
    result = promote_step(release_id, gates=gates, force_reason=force_reason)
    return result if result["promoted"] else ended(REFUSED, refusal(result))


def promote_step(release_id: str, *, gates: str, force_reason: str | None = None) -> dict[str, Any]:
    """Judge and promote a release, and show the verdicts in Prefect; see `promote`."""
    settings = Settings()
    before = ReleaseStore(settings.releases).current_id()
    result = promote_task(release_id, gates, force_reason)
    show_gates(settings, result)
    judged_release(settings, result, before=before)
    return result


@task(name="promote", **step_options("promote", hours=1))
def promote_task(release_id: str, gates: str, force_reason: str | None) -> dict[str, Any]:
    return promote(Settings(), release_id, gates=gates, force_reason=force_reason)


def promote(
    settings: Settings,
    release_id: str,
    *,
    gates: Path | str = CONFIGS / "gates.toml",
    force_reason: str | None = None,
) -> dict[str, Any]:
    """Do the work of `promote_flow`, without Prefect.

    A damaged release is refused also with `force_reason`.

    Returns:
        The verdict of each gate, the serving release, the loss budget (total quality loss accepted
        in promotions), and the workers that serve the release or still serve another one.
    """
    config = load_toml(Path(gates), GatesConfig)
    done = promote_release(
        settings,
        release_id,
        config,
        what=f"shortlist promote {release_id}",
        force_reason=force_reason,
    )
    verdict, before, promoted = done.verdict, done.before, done.promoted
    store = ReleaseStore(settings.releases)
    for gate in verdict.gates:
        print(f"gate {gate.name}: {'pass' if gate.passed else 'FAIL'}: {gate.reason}")
    if promoted:
        print(f"promote: {release_id} is the serving release now")
        followed = wait_for_workers(settings, release_id)
    else:
        print(f"promote: {release_id} is not promoted; serving release: {before or 'none'}")
        followed = {"workers": [], "lagging": []}
    serving, spent = next(reversed(store.history().items()), (None, 0.0))
    return {
        "release_id": release_id,
        "promoted": promoted,
        "forced": done.forced,
        "serving": serving,
        "gates": [asdict(gate) for gate in verdict.gates],
        "loss_budget": {"of": config.loss_budget, "spent": spent},
    } | followed


@dataclass(frozen=True)
class ReleaseToPromote:
    """A release to promote, and the TOML file with the limits of its gates."""

    release_id: str
    gates: Path


def find_release(
    settings: Settings, release_id: str | None, *, run_id: str | None, of: str | None
) -> ReleaseToPromote:
    """Find the release to promote: the given one, that of a run, or the newest.

    Args:
        release_id: id of a release; None: that of the run, or the newest.
        run_id: id of a run; None: the newest run of configuration `of`.
        of: name of a configuration; None: any.

    Raises:
        RunError: there is no such run, or it isn't packaged.
        ReleaseError: there is no release, or both a release and a run or configuration were given.
    """
    by_run = run_id is not None or of is not None
    if release_id is not None:
        if by_run:
            raise ReleaseError(
                "both a release and a run or configuration are given; want only one of them"
            )
        return ReleaseToPromote(release_id, _gates_of(settings, release_id))
    if by_run:
        run = Run.open(settings, run_id, of=of)
        packaged = run.read("release.json", made_by="package")
        return ReleaseToPromote(packaged["release_id"], run.config.gates)
    ids = ReleaseStore(settings.releases).ids()
    if not ids:
        raise ReleaseError(f"{settings.releases}: no release there; run `shortlist run` first")
    return ReleaseToPromote(ids[-1], _gates_of(settings, ids[-1]))


def _gates_of(settings: Settings, release_id: str) -> Path:
    """Return the file with the limits of a release's gates; the default one if it is damaged."""
    try:
        about = ReleaseStore(settings.releases).open(release_id).about
    except ReleaseError:  # the integrity gate reports it
        return DEFAULT_GATES
    return gates_file(settings, about)


def end_run_of(settings: Settings, release_id: str) -> None:
    """End the run that made a release, unless another living process still works on the run.

    Such a process holds the run's lease of the lake.
    """
    try:
        run = Run.open(settings, ReleaseStore(settings.releases).open(release_id).about["run_id"])
    except RunError:  # the run's folder was removed
        return
    if not held_by_another(settings.lake, run.run_id):
        run.end(settings)
