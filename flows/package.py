"""Package: publishes a run's staged models as a release, and builds a Bento of it.

A release is an immutable folder with all models and configuration that are served together.
"""

import json
import shutil
import subprocess
import sys
from typing import Any

from prefect import flow, task

from flows.operations.artifacts import show_release
from flows.operations.lineage import published_release
from flows.runtime.retries import step_options
from flows.runtime.runs import Run
from shortlist.config import Settings
from shortlist.releases.release import ReleaseStore


class PackageError(RuntimeError):
    """The Bento could not be built; the message has the last lines of the builder's output."""


@flow(name="package", log_prints=True)
def package_flow(run_id: str, bento: bool = True) -> dict[str, Any]:
    """Publish the run as a release, without promoting it.

    Args:
        run_id: id of the run, the name of its folder in <home>/runs.
        bento: whether to build a Bento (BentoML's package) of the release.
    """
    return package_step(run_id, bento=bento)


def package_step(run_id: str, *, bento: bool = True) -> dict[str, Any]:
    """Publish a run, and show the release with its lineage in Prefect."""
    settings = Settings()
    run = Run.open(settings, run_id)
    frozen = run.read("lake.json", made_by="train")
    result = package_task(run_id, bento)
    show_release(settings, result)
    published_release(
        settings,
        result["release_id"],
        run_id=run_id,
        version=frozen["version"],
        pack_id=frozen.get("pack_id"),
    )
    return result


@task(name="package", **step_options("package", hours=2))
def package_task(run_id: str, bento: bool) -> dict[str, Any]:
    return package(Settings(), run_id, bento=bento)


def package(settings: Settings, run_id: str, *, bento: bool) -> dict[str, Any]:
    """Do the work of `package_flow`, without Prefect."""
    run = Run.open(settings, run_id)
    about = run.read("about.json", made_by="train")
    evaluation = run.read("evaluation.json", made_by="evaluate")
    about |= {
        "run_id": run.run_id,
        "metrics": evaluation["metrics"],
        "chain_ahead": evaluation["chain_ahead"],
        "champion": evaluation["champion"],
        "candidates": evaluation["candidates"],
        "reachable_coverage": evaluation["reachable_coverage"],
        "refit": evaluation["refit"],
        "off_policy": evaluation.get("off_policy"),
    }
    with ReleaseStore(settings.releases).publishing(about) as (folder, about):
        shutil.copytree(run.staging, folder, dirs_exist_ok=True)
    release_id = about["release_id"]
    print(f"package: release {release_id} in {settings.releases / release_id}")
    run.write("release.json", {"release_id": release_id})
    tag = build_bento(settings, release_id) if bento else None
    if tag:
        print(f"package: Bento {tag}")
    return {"release_id": release_id, "bento": tag}


def build_bento(settings: Settings, release_id: str) -> str:
    """Build a Bento of a release with `python -m services.build`; return its tag.

    It is a separate process, because `flows` must not import `services`.

    Raises:
        PackageError: the builder failed.
    """
    command = [sys.executable, "-m", "services.build", "--release", release_id, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-10:])
        raise PackageError(f"`{' '.join(command[1:])}` ended with {done.returncode}:\n{tail}")
    return json.loads(done.stdout.strip().splitlines()[-1])["tag"]
