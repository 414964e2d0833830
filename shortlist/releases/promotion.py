"""Promotion and rollback: set the release pointer under the home's lock, with an audit entry.

Used by the flow `promote`, the commands, the actions of guardrails, and the console of the service.
The workers of the service follow the pointer (services/release/hot_swap.py).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shortlist.config import Settings
from shortlist.home.audit import write_audit
from shortlist.home.home_lock import home_lock
from shortlist.home.switches import in_force
from shortlist.releases.gates import Gate, GatesConfig, Verdict, judge_gates
from shortlist.releases.release import Release, ReleaseError, ReleaseStore

DEFAULT_GATES = Path(__file__).resolve().parents[2] / "configs" / "gates.toml"
COMPARISONS = ("quality", "loss budget", "value", "off-policy")
"""Gates that compare a release, on past events, with the release that served then."""
LOCK_SECONDS = 60
"""How long to wait for another promotion or rollback. One takes as long as verifying a release."""


@dataclass(frozen=True)
class Promotion:
    """Outcome of a promotion: the verdicts of the gates, and whether the pointer was set."""

    release_id: str
    before: str | None
    """The release that served before; None for the first promotion."""
    verdict: Verdict
    promoted: bool
    forced: bool


def promote_release(
    settings: Settings,
    release_id: str,
    config: GatesConfig,
    *,
    what: str,
    force_reason: str | None = None,
    note: str = "",
    live: Mapping[str, Any] | None = None,
) -> Promotion:
    """Judge a release, and set the pointer to it if all gates pass or it is forced.

    A damaged release is refused also with `force_reason`.

    Args:
        what: the command, for the lock's message.
        force_reason: why to promote although gates fail; None: a release that fails is refused.
        note: why, for the audit log; "" without one.
        live: evidence that the release is not worse than the champion on live traffic, for the
            audit log. It replaces the gates of COMPARISONS. None: there is none.

    Raises:
        HomeLocked: another promotion or rollback did not end within LOCK_SECONDS.
    """
    store = ReleaseStore(settings.releases)
    with home_lock(settings, "release", what=what, wait_seconds=LOCK_SECONDS):
        verdict = judge(settings, release_id, config)
        if live is not None:
            left = [gate for gate in verdict.gates if gate.name not in COMPARISONS]
            verdict = replace(verdict, gates=left)
        before = store.current_id()
        forced = force_reason is not None and not verdict.passed and verdict.is_intact
        promoted = verdict.passed or forced
        if promoted:
            # Only gates that pass measure the loss of a promotion: a forced one leaves the budget.
            store.promote(release_id, spent=None if forced or live is not None else verdict.spent)
            reason = f"forced: {force_reason}" if forced else f"{len(verdict.gates)} gates passed"
            write_audit(
                settings,
                "promote",
                before=before,
                after=release_id,
                reason=f"{reason}; {note}" if note else reason,
                evidence={"gates": [asdict(gate) for gate in verdict.gates], **(live or {})},
            )
    return Promotion(release_id, before, verdict, promoted, forced)


def gates_file(settings: Settings, about: Mapping[str, Any]) -> Path:
    """Return the file with the limits of a release's gates.

    It is that of the run that made the release, or the default one if the run or its file is no
    longer on this machine.

    Args:
        about: the release's manifest.
    """
    try:
        config = json.loads((settings.runs / about["run_id"] / "config.json").read_text())
        path = Path(config["gates"])
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_GATES
    return path if path.is_file() else DEFAULT_GATES


def judge(
    settings: Settings, release_id: str, config: GatesConfig, *, opened: Release | None = None
) -> Verdict:
    """Judge a release by the gates and the holds that are in force.

    If it is damaged or missing, the integrity gate fails.

    Args:
        opened: the release, if it was verified already; None: it is verified.
    """
    store = ReleaseStore(settings.releases)
    try:
        opened = store.open(release_id) if opened is None else opened
        verdict = judge_gates(opened, config, history=store.history())
    except ReleaseError as error:
        verdict = Verdict([Gate("integrity", False, None, None, str(error))])
    return replace(verdict, gates=[*verdict.gates, *hold_gates(settings, release_id)])


def hold_gates(settings: Settings, release_id: str) -> list[Gate]:
    """Return a failed gate for each hold that is in force for this release or for all releases."""
    holds = in_force(settings, "holds")
    return [
        Gate(
            f"hold: {name}",
            False,
            None,
            None,
            f"{hold['reason']} (held since {hold['since']}; end it with `shortlist alarms end-hold"
            f' "{name}"`)',
        )
        for name, hold in holds.items()
        if hold.get("release_id", release_id) == release_id
    ]


def roll_back_release(settings: Settings, *, what: str, reason: str) -> tuple[str | None, str]:
    """Set the pointer to the release that served before.

    Args:
        what: the command, for the lock's message.
        reason: text for the audit log.

    Returns:
        The ids of the release that served until now, and of the one that serves next.

    Raises:
        ReleaseError: there is no previous release, or its verification fails.
        HomeLocked: another promotion or rollback did not end within LOCK_SECONDS.
    """
    store = ReleaseStore(settings.releases)
    with home_lock(settings, "release", what=what, wait_seconds=LOCK_SECONDS):
        before = store.current_id()
        release_id = store.roll_back()
        write_audit(settings, "rollback", before=before, after=release_id, reason=reason)
    return before, release_id
