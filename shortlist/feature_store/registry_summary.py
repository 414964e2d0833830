"""A summary of Feast's registry, so that a service can read online states without Feast.

Importing Feast takes 4 to 10 s of processor time in each worker. `apply` writes the summary beside
the registry. It is used only while the registry is the file that it was made of.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast import FeatureStore

SUMMARY = "registry.json"


@dataclass(frozen=True)
class RegistrySummary:
    """The parts of a Feast registry that a reader of online states needs."""

    services: list[str]
    """Names of the feature services."""
    fields: dict[str, list[str]]
    """View -> names of its features."""
    ttl: dict[str, int]
    """View -> maximum age of a row in microseconds, 0 for no limit."""

    @classmethod
    def of(cls, store: "FeatureStore") -> "RegistrySummary":
        """Return the summary of an open store."""
        views = store.list_feature_views()
        return cls(
            services=sorted(service.name for service in store.list_feature_services()),
            fields={view.name: [field.name for field in view.features] for view in views},
            ttl={
                view.name: (view.ttl or timedelta(0)) // timedelta(microseconds=1) for view in views
            },
        )

    @classmethod
    def read(cls, registry: Path) -> "RegistrySummary | None":
        """Return the summary of a registry file; None if it is missing or of another registry."""
        try:
            found = json.loads(registry.with_name(SUMMARY).read_text())
            if found.pop("registry") == _hash(registry):
                return cls(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # the registry itself is read instead
        return None

    def write(self, registry: Path) -> None:
        """Write the summary beside the registry file, by an atomic rename."""
        path = registry.with_name(SUMMARY)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"registry": _hash(registry)} | asdict(self), indent=1))
        fresh.replace(path)


def _hash(registry: Path) -> str:
    return hashlib.sha256(registry.read_bytes()).hexdigest()
