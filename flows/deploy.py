"""Deploy: register the deployments of prefect.yaml with a running Prefect server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from flows.configuration import load_run_config
from shortlist.config import Settings

ROOT = Path(__file__).resolve().parents[1]
PREFECT_FILE = ROOT / "prefect.yaml"
WORK_POOL = "shortlist"
DEPLOYMENTS = ("refresh/hourly", "shortlist/nightly", "monitor/monitoring", "skew/daily")


class DeployError(RuntimeError):
    """Nothing was registered, or not all; the message says what Prefect said and what to do."""


def deploy_all(config: Path | str) -> dict[str, Any]:
    """Register hourly, nightly, monitoring and daily skew; doing it again updates them.

    Args:
        config: the run's TOML file; the nightly run gets its content as its typed parameter.

    Returns:
        {"deployments", "work_pool", "server", "worker": the command that starts one}.

    Raises:
        DeployError: no server is reachable, or Prefect refused a deployment.
        ConfigError: the TOML file is wrong.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    run_config = load_run_config(config)
    url = PREFECT_API_URL.value()
    if not url:
        raise DeployError(
            "PREFECT_API_URL is not set: start a server with `prefect server start` and"
            " `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    home = Settings().home.resolve()
    variables = {
        "shortlist_home": str(home),
        "shortlist_config": str(Path(config).resolve()),
        "shortlist_run": run_config.model_dump(mode="json", exclude_unset=True),
        "shortlist_guardrails": str(run_config.monitor.guardrails.resolve()),
    }
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem is not None:
            raise DeployError(
                f"no Prefect server at PREFECT_API_URL={url} ({problem}); start one with"
                " `prefect server start`"
            )
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
            print(f"deploy: work pool '{WORK_POOL}' made")
    _set_variables(variables)
    _prefect_deploy(url)
    print(f"deploy: {', '.join(DEPLOYMENTS)} on {url}")
    return {
        "deployments": list(DEPLOYMENTS),
        "work_pool": WORK_POOL,
        "server": url,
        "worker": f"prefect worker start --pool {WORK_POOL}",
    }


def _set_variables(variables: dict[str, Any]) -> None:
    """prefect.yaml names them; a variable may hold a whole run's configuration."""
    from prefect.variables import Variable

    for name, value in variables.items():
        Variable.set(name, value, overwrite=True)


def _prefect_deploy(url: str) -> None:
    """`prefect deploy --all`, the way Prefect itself registers a prefect.yaml."""
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file"]
    done = subprocess.run(
        [sys.executable, *command, str(PREFECT_FILE)],
        cwd=ROOT,  # entry points are relative to it, and runs start there
        env=os.environ | {"PREFECT_API_URL": url, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Prefect goes on after a deployment that fails, and may still end with 0.
    made = done.stdout.count("successfully created")
    if done.returncode != 0 or made < len(DEPLOYMENTS):
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        tail = "\n".join(line[:500] for line in lines)
        raise DeployError(
            f"`prefect deploy --all` ended with {done.returncode} and {made} of"
            f" {len(DEPLOYMENTS)} deployments:\n{tail}"
        )
