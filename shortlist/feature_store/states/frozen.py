"""States as they are now, kept for one reader: hard links in a home of their own.

A later refresh may merge small parts or build all states anew. A training that runs meanwhile reads
its own links, so no file disappears under it and every step of a run reads the same states.
"""

from pathlib import Path

from shortlist.config import Settings
from shortlist.feature_store.store import apply


def side_home(settings: Settings, home: Path) -> Settings:
    """Settings of a home beside the deployment's: its own states and registry, nothing online."""
    return settings.model_copy(update={"home": home, "online_store": "sqlite"})


def freeze_states(settings: Settings, home: Path) -> None:
    """Link the states of `settings` into a new folder `home`; nothing to do if there are none.

    The caller holds the refresh lock. Parts are never changed in place, so links are enough.
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
