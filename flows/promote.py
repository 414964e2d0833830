"""Promote: if every gate passes, the release pointer moves; otherwise nothing changes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow

from flows.gates import Gate, GatesConfig, Verdict, judge_gates
from shortlist.config import Settings, load_toml
from shortlist.release import ReleaseError, ReleaseStore


@flow(name="promote", log_prints=True)
def promote_flow(release_id: str, gates: str = "configs/gates.toml") -> dict[str, Any]:
    """Move the pointer to `release_id` if every gate passes; else say which did not."""
    settings = Settings()
    store = ReleaseStore(settings.releases)
    config = load_toml(Path(gates), GatesConfig)
    try:
        verdict = judge_gates(store.open(release_id), config, history=store.history())
    except ReleaseError as error:
        verdict = Verdict([Gate("integrity", False, None, None, str(error))])
    for gate in verdict.gates:
        print(f"gate {gate.name}: {'pass' if gate.passed else 'FAIL'}: {gate.reason}")
    if verdict.passed:
        store.promote(release_id, spent=verdict.spent)
        print(f"promote: {release_id} serves now")
    else:
        print(f"promote: {release_id} stays out; {store.current_id() or 'nothing'} goes on serving")
    serving, spent = next(reversed(store.history().items()), (None, 0.0))
    return {
        "release_id": release_id,
        "promoted": verdict.passed,
        "serving": serving,
        "gates": [asdict(gate) for gate in verdict.gates],
        "loss_budget": {"of": config.loss_budget, "spent": spent},
    }
