"""Feast's commands, as documented in docs/features.md, on a fresh clone."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from flows.releases.service_process import free_port
from shortlist.config import Settings
from shortlist.features.finalize import ITEM_SERVICE, REQUEST_SERVICE
from shortlist.features.state_descriptions import MEANINGS

ROOT = Path(__file__).resolve().parents[2]


def documented(name: str) -> list[str]:
    """Return the arguments of a Feast command from its line in docs/features.md."""
    lines = (ROOT / "docs" / "features.md").read_text(encoding="utf-8").splitlines()
    start = f"feast -c feature_repo {name}"
    (line,) = [line for line in lines if line.startswith(start)]
    return shlex.split(line, comments=True)[1:]


def feast(arguments: list[str], clone: Path) -> str:
    """Run a Feast command in this process, where Feast is already imported; return its output."""
    from feast.cli.cli import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SHORTLIST_HOME", raising=False)
        patch.chdir(clone)
        # Feast's CLI changes these, because it expects its own process. Restore them afterwards.
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        done = CliRunner().invoke(cli, arguments)
        for name in ("definitions", "__init__"):
            sys.modules.pop(name, None)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, home: Settings) -> Path:
    """A copy of feature_repo/ after `feast apply`, with state files as featurize writes them."""
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "feature_repo", folder / "feature_repo", ignore=ignored)
    feast(documented("apply"), folder)
    shutil.copytree(home.features, folder / "var" / "features")
    return folder


def test_apply_and_list(clone: Path) -> None:
    made = sorted(path.name for path in (clone / "var" / "feast").glob("*.db"))
    assert made == ["online_store.db", "registry.db"]
    assert "user_history" in feast(documented("feature-views list"), clone)


def test_materialize_writes_all_there_is(clone: Path) -> None:
    from feast import FeatureStore

    feast(documented("materialize"), clone)
    store = FeatureStore(repo_path=str(clone / "feature_repo"))
    asked = ["user_stats:user_events", "user_history:history_items", "user_profile:attributes_json"]
    # u4 has no event before UNTIL, so its profile has the earliest possible stamp, 1970.
    answer = store.get_online_features(asked, [{"user_id": "u1"}, {"user_id": "u4"}]).to_dict()
    assert answer["user_events"] == [5, None]
    assert answer["history_items"] == [["b", "a", "c", "d"], None]
    assert answer["attributes_json"] == ['{"group":"g1"}', '{"group":"g0"}']


@pytest.fixture(scope="module")
def ui(clone: Path) -> Iterator[httpx.Client]:
    """Run Feast's UI as a process; yield an HTTP client once it responds."""
    port = free_port()
    program = Path(sys.executable).with_name("feast")
    environment = {k: v for k, v in os.environ.items() if k != "SHORTLIST_HOME"}
    with (clone / "ui.log").open("w") as log:
        server = subprocess.Popen(
            [program, *documented("ui"), "--port", str(port)],
            cwd=clone,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                for _ in range(600):
                    assert server.poll() is None, (clone / "ui.log").read_text()[-2_000:]
                    try:
                        client.get("/health")
                        break
                    except httpx.ConnectError:
                        time.sleep(0.2)
                yield client
        finally:
            server.terminate()
            server.wait(20)


def get(ui: httpx.Client, path: str) -> Any:
    answer = ui.get(path, params={"project": "shortlist"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_ui_answers_with_our_views(ui: httpx.Client) -> None:
    page = ui.get("/")
    assert page.status_code == 200
    assert "<title>Feast Feature Store</title>" in page.text
    (script,) = [part for part in page.text.split('"') if part.endswith(".js")]
    assert ui.get(script).status_code == 200
    assert [project["id"] for project in ui.get("/projects-list.json").json()["projects"]] == [
        "shortlist"
    ]
    found = {
        view["spec"]["name"]: view["spec"]
        for view in get(ui, "/api/v1/feature_views")["featureViews"]
    }
    assert {"user_stats", "user_history", "item_state", "context_trend", "request_time"} <= {*found}
    assert "request_features" in found
    assert found["user_stats"]["owner"] == "platform"
    for field in found["user_stats"]["features"]:
        assert field["description"] == MEANINGS[field["name"]]
    services = get(ui, "/api/v1/feature_services")["featureServices"]
    assert {service["spec"]["name"]: service["spec"]["owner"] for service in services} == {
        REQUEST_SERVICE: "platform",
        ITEM_SERVICE: "platform",
        "request_features_v1": "platform",
    }
