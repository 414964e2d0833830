"""Skew checks in parallel, during refreshes, and after a killed check."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.skew.recompute import SkewError, recomputed_states
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader
from shortlist.lake import Lake
from shortlist.lake.leases import lease_holders
from tests.feature_repo.conftest import UNTIL

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import sys
from pathlib import Path
from shortlist.lake.leases import take_lease
take_lease(Path(sys.argv[1]), "skew-killed", version=1)
take_lease(Path(sys.argv[1]), "a-run", version=1)
"""


def events_of(side: Settings) -> list[float]:
    rows = OfflineReader(side).read(["u1", "u2"], ["", ""], np.full(2, UNTIL))
    return rows.user["user_events"].tolist()


def test_checks_do_not_disturb_each_other_and_leave_nothing(
    make_home: Callable[[], tuple[Settings, dict]],
) -> None:
    home, _ = make_home()
    left = home.home / "skew" / "skew-killed"
    left.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", KILLED, str(home.lake)], cwd=ROOT, check=True)
    lake = Lake(home.lake)
    with recomputed_states(home, ("rating",), until=UNTIL) as (first, _):
        assert not left.exists()
        snapshot = lake.folder
        with recomputed_states(home, ("rating",), until=UNTIL) as (second, _):
            assert first.home != second.home
            assert events_of(second) == events_of(first) == [5.0, 3.0]
        assert events_of(first) == [5.0, 3.0]
        nothing = lake.interactions().slice(0, 0)
        for number in range(4):  # commits remove snapshots without a lease
            lake.publish(f"later{number}", nothing, lake.items(), lake.users())
        assert snapshot != lake.folder
        assert snapshot is not None
        assert snapshot.is_dir()
    assert list((home.home / "skew").iterdir()) == []
    assert lease_holders(home.lake) == {"a-run"}  # a run keeps its lease, since it can be resumed


def test_without_features_there_is_nothing_to_recompute(tmp_path: Path) -> None:
    with (
        pytest.raises(SkewError, match="run `shortlist refresh`"),
        recomputed_states(Settings(home=tmp_path), ("rating",), until=UNTIL),
    ):
        pass
    assert os.listdir(tmp_path) == []
