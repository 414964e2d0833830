"""Chooses the release (set of models) to serve, and checks before workers start that it can be."""

import os
from pathlib import Path

from services.rule_file import first_rules
from shortlist.config import ConfigError, Settings
from shortlist.feature_store import current_pack_id
from shortlist.releases.release import MANIFEST, Release, ReleaseStore, open_release

RELEASE_VARIABLE = "SHORTLIST_RELEASE"
CARRIED = Path(__file__).resolve().parents[2] / "release"
"""Folder of the release in a Bento (BentoML's package). It is beside the code, so it doesn't depend
on the working directory."""


def find_release(settings: Settings, *, carried: Path = CARRIED) -> Release:
    """Return the release to serve.

    It is the one in the folder SHORTLIST_RELEASE, if set; otherwise that of the Bento, if the code
    runs in one; otherwise the promoted one.

    Raises:
        ReleaseError: there is none, or its files were changed.
    """
    folder = os.environ.get(RELEASE_VARIABLE)
    if folder:
        return open_release(Path(folder))
    if (carried / MANIFEST).is_file():
        return open_release(carried)
    return ReleaseStore(settings.releases).open()


def pinned_by(*, carried: Path = CARRIED) -> str | None:
    """Return why this process ignores promotions; None if it follows the release pointer."""
    if folder := os.environ.get(RELEASE_VARIABLE):
        return f"{RELEASE_VARIABLE}={folder}"
    if (carried / MANIFEST).is_file():
        return "a Bento serves the release that it carries"
    return None


def check_can_serve(settings: Settings, *, carried: Path = CARRIED) -> Release:
    """Return the release that workers would serve.

    Raises:
        ReleaseError, PackError, ConfigError: workers couldn't serve. The message is one line with
            what is missing and what to do.
    """
    if (carried / MANIFEST).is_file() and not settings.home.is_absolute():
        raise ConfigError(
            f"SHORTLIST_HOME is '{settings.home}', want an absolute path: a Bento runs in another"
            " folder, and online features and packs are outside it"
        )
    release = find_release(settings, carried=carried)
    current_pack_id(settings.packs)
    first_rules(settings)
    return release
