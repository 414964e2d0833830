"""Which release serves, and the check that one can, before any worker is started."""

import os
from pathlib import Path

from services.rule_file import first_rules
from shortlist.config import ConfigError, Settings
from shortlist.feature_store import current_pack_id
from shortlist.release import MANIFEST, Release, ReleaseStore, open_release

RELEASE_VARIABLE = "SHORTLIST_RELEASE"
CARRIED = Path(__file__).resolve().parents[1] / "release"
"""Where a Bento has its release: beside the code, wherever it is unpacked and started from."""


def find_release(settings: Settings, *, carried: Path = CARRIED) -> Release:
    """The release in SHORTLIST_RELEASE, else the one that a Bento carries, else the promoted one.

    Raises:
        ReleaseError: there is none, or it was changed.
    """
    folder = os.environ.get(RELEASE_VARIABLE)
    if folder:
        return open_release(Path(folder))
    if (carried / MANIFEST).is_file():
        return open_release(carried)
    return ReleaseStore(settings.releases).open()


def pinned_by(*, carried: Path = CARRIED) -> str | None:
    """Why this process serves one release whatever is promoted; None: it follows the pointer."""
    if folder := os.environ.get(RELEASE_VARIABLE):
        return f"{RELEASE_VARIABLE}={folder}"
    if (carried / MANIFEST).is_file():
        return "a Bento serves the release that it carries"
    return None


def check_can_serve(settings: Settings, *, carried: Path = CARRIED) -> Release:
    """The release that would serve.

    Raises:
        ReleaseError, PackError, ConfigError: nothing can serve; one line that says what to do.
    """
    if (carried / MANIFEST).is_file() and not settings.home.is_absolute():
        raise ConfigError(
            f"SHORTLIST_HOME is '{settings.home}', want an absolute path: a Bento runs in a folder"
            " of its own, and online features and packs are outside it"
        )
    release = find_release(settings, carried=carried)
    current_pack_id(settings.packs)
    first_rules(settings)
    return release
