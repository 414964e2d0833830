"""Build a Bento of one release: `python -m services.build [--release ID] [--json]`.

A Bento is BentoML's package of a service; a release is the folder with all trained models of a run.
The Bento contains the code, the release and the pinned requirements of the service. It reads the
users' online states and the feature pack (item features) from SHORTLIST_HOME, because they change
every few minutes.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import bentoml

from services.release.locate import CARRIED
from shortlist.config import Settings
from shortlist.releases.release import Release, ReleaseError, ReleaseStore, open_release

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shortlist", "models", "services", "feature_repo")
REQUIREMENTS = ROOT / "services" / "requirements.lock"
"""Versions of the libraries of the service alone: no test, pipeline or monitoring library."""
SERVICE = "services.service:RecommenderService"


def build(release: Release) -> str:
    """Build the Bento and return its tag, `shortlist:<release id>`.

    The Bento is stored under BENTOML_HOME and replaces an earlier one of the same release.
    """
    version = release.release_id.lower()
    tag = f"shortlist:{version}"
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        for package in PACKAGES:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, context / package, ignore=ignore)
        shutil.copytree(release.path, context / CARRIED.name)
        shutil.copy(REQUIREMENTS, context / "requirements.txt")
        if any(str(bento.tag) == tag for bento in bentoml.list()):
            bentoml.delete(tag)
        bento = bentoml.build(
            SERVICE,
            name="shortlist",
            version=version,
            labels={"release": version, "dataset": str(release.about.get("dataset", ""))},
            include=["*"],
            python={"requirements_txt": "requirements.txt", "lock_packages": False},
            build_ctx=str(context),
        )
    return str(bento.tag)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", help="a release's id or folder; default: the promoted release")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    settings = Settings()
    # BentoML reads this variable at its first use, not at import.
    home = os.environ.setdefault("BENTOML_HOME", str(settings.home.absolute() / "bentoml"))
    Path(home).mkdir(parents=True, exist_ok=True)
    try:
        if arguments.release and Path(arguments.release).is_dir():
            release = open_release(Path(arguments.release))
        else:
            release = ReleaseStore(settings.releases).open(arguments.release)
    except ReleaseError as error:
        sys.exit(f"error: {error}")
    tag = build(release)
    if arguments.json:
        print(json.dumps({"tag": tag, "bentoml_home": home}))
    else:
        print(f"{tag}; serve it with: BENTOML_HOME={home} bentoml serve {tag}")


if __name__ == "__main__":
    main()
