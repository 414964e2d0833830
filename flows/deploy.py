"""Deploy: register the deployments of prefect.yaml with a running Prefect server.

A home is the folder SHORTLIST_HOME. Deployments, work pool and variables have the home's name in
their names, so homes that share a server don't interfere.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.operations.automations import automation_names, create_automations
from flows.runtime.configuration import load_run_config
from shortlist.config import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ROOT = Path(__file__).resolve().parents[1]
PREFECT_FILE = ROOT / "prefect.yaml"
PLACEHOLDER = "HOME_NAME"
"""Text in prefect.yaml that is replaced by the home's name."""
REFRESH_SECONDS = "REFRESH_SECONDS"
"""Text in prefect.yaml that is replaced by the seconds between two refreshes."""
DEPLOYMENTS = (
    "take-in/ingest",
    "refresh/hourly",
    "backfill/range",
    "shortlist/daily",
    "shortlist/weekly",
    "watch/monitoring",
    "skew/daily",
    "compact/compaction",
    "gc/retention",
)
"""Flow/deployment names in prefect.yaml; a hyphen and the home's name are appended."""


class DeployError(RuntimeError):
    """Not all deployments were registered; the message has Prefect's output or the fix."""


def deploy_all(config: Path | str) -> dict[str, Any]:
    """Register the deployments of prefect.yaml and their automations, or update them.

    Deployments of this home that the file no longer has are deleted.

    Args:
        config: the run's TOML file; the trainings get its content as their typed parameter.

    Returns:
        {"deployments", "automations", "channels": who is notified, "work_pool", "server", "worker":
        the command that starts one}.

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
    settings = Settings()
    pool = f"shortlist-{settings.home_name}"
    variables = {
        "home": str(settings.home.resolve()),
        "config": str(Path(config).resolve()),
        "run": run_config.model_dump(mode="json", exclude_unset=True),
        "guardrails": str(run_config.monitor.guardrails.resolve()),
    }
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem is not None:
            raise DeployError(
                f"no Prefect server at PREFECT_API_URL={url} ({problem}); start one with"
                " `prefect server start`"
            )
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            print(f"deploy: work pool '{pool}' created")
    _set_variables(variables, home_name=settings.home_name)
    prefect_file = write_prefect_file(settings)
    _prefect_deploy(url, prefect_file)
    with get_client(sync_client=True) as client:
        for name in remove_former(client, settings, prefect_file):
            print(f"deploy: '{name}' of an earlier version is deleted")
        notified = create_automations(client, settings, pool=pool)
    deployments = deployments_of(settings)
    print(f"deploy: {', '.join(deployments)} on {url}")
    print(f"deploy: notifications by {', '.join(notified) or 'no channel, see SHORTLIST_NOTIFY_*'}")
    return {
        "deployments": deployments,
        "automations": automation_names(settings),
        "channels": notified,
        "work_pool": pool,
        "server": url,
        "worker": f"prefect worker start --pool {pool}",
    }


def deployments_of(settings: Settings) -> list[str]:
    """Return the "flow/deployment" name of each deployment of a home."""
    return [f"{name}-{settings.home_name}" for name in DEPLOYMENTS]


def write_prefect_file(settings: Settings) -> Path:
    """Write the repository's prefect.yaml with the home's name into the home; return its path."""
    text = PREFECT_FILE.read_text(encoding="utf-8")
    path = settings.home.resolve() / PREFECT_FILE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text.replace(PLACEHOLDER, settings.home_name)
    text = text.replace(
        f"interval: {REFRESH_SECONDS}", f"interval: {settings.refresh_minutes * 60}"
    )
    path.write_text(text, encoding="utf-8")
    return path


def remove_former(client: "SyncPrefectClient", settings: Settings, prefect_file: Path) -> list[str]:
    """Delete the deployments of a home that aren't in its prefect.yaml; return their names."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    listed = yaml.safe_load(prefect_file.read_text(encoding="utf-8"))["deployments"]
    kept = {(one["name"], one["entrypoint"]) for one in listed}
    tags = DeploymentFilterTags(all_=["shortlist", f"home:{settings.home_name}"])
    former = [
        one
        for one in client.read_deployments(deployment_filter=DeploymentFilter(tags=tags))
        if (one.name, one.entrypoint) not in kept
    ]
    for one in former:
        client.delete_deployment(one.id)
    return [one.name for one in former]


def _set_variables(variables: dict[str, Any], *, home_name: str) -> None:
    """Set the Prefect variables that prefect.yaml refers to.

    Args:
        variables: name -> value; one value is the content of a run config.
    """
    from prefect.variables import Variable

    for name, value in variables.items():
        Variable.set(f"shortlist_{home_name}_{name}", value, overwrite=True)


def _prefect_deploy(url: str, prefect_file: Path) -> None:
    """Run `prefect deploy --all` on a prefect.yaml.

    Raises:
        DeployError: it failed, or it created fewer deployments than DEPLOYMENTS.
    """
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file"]
    done = subprocess.run(
        [sys.executable, *command, str(prefect_file)],
        cwd=ROOT,  # entry points in prefect.yaml are relative to it
        env=os.environ | {"PREFECT_API_URL": url, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Prefect continues after a deployment fails and may still exit with 0, so count the successes.
    made = done.stdout.count("successfully created")
    if done.returncode != 0 or made < len(DEPLOYMENTS):
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        tail = "\n".join(line[:500] for line in lines)
        raise DeployError(
            f"`prefect deploy --all` ended with {done.returncode} and {made} of"
            f" {len(DEPLOYMENTS)} deployments:\n{tail}"
        )
