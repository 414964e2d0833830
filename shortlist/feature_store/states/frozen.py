"""Freezes the current states for a training run by hard links in a separate home folder.

A refresh during the run may merge Parquet parts or rebuild all states. The run reads the files
through its hard links. So no file disappears, and all steps of the run read the same states.
"""

from pathlib import Path

from shortlist.config import Settings
from shortlist.feature_store.store import apply


def side_home(settings: Settings, home: Path) -> Settings:
    """Return the settings of a separate home folder.

    It has separate states and a separate Feast registry, and never uses the shared online store.
    """
    return settings.model_copy(update={"home": home, "online_store": "sqlite"})


def freeze_states(settings: Settings, home: Path) -> None:
    """Hard-link the states of `settings` into the new folder `home`; do nothing without states.

    The caller must hold the refresh lock. Links are sufficient, since parts are never modified.
    """
    frozen = side_home(settings, home)
    if not (settings.features / "manifest.json").is_file():
        return
    for file in settings.features.rglob("*"):
        inside = file.relative_to(settings.features)
        if file.is_file() and inside.parts[0] != "current":
            target = frozen.features / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(file)
    apply(frozen)
