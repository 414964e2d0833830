"""Every package of the repository is named in pyproject.toml, so that it is installed."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_installed() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folders = {Path(name).parent for name in listed.stdout.split()}
    found = {".".join(folder.parts) for folder in folders if folder.parts[0] != "tests"}
    assert found == set(named)
