"""Follows the home's file of business rules: a valid change applies from the next request on.

An invalid file is not used: the previous rules stay in force, and the log and the readiness give
the reason. Every rule set that was in force is stored as `<home>/rules/<id>.json`. So a worker that
starts while the file is invalid uses the same rules as the other workers, and the ids in the
serving log can be looked up.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from services import metrics
from shortlist.config import ConfigError, Settings
from shortlist.files.plain_json import write_json
from shortlist.http.rule_config import RuleSet, RulesInForce, load_rules

log = logging.getLogger("bentoml.shortlist")

CHECK_SECONDS = 1.0
"""Time between two checks of the file."""
Stamp = tuple[int, int, int]
"""Identity of one version of the file, see `_stamp`."""
NO_FILE: Stamp = (0, 0, 0)
Prepare = Callable[[RuleSet], Sequence[str]]
WARNINGS = 10
"""Maximum number of logged warnings about one rule set."""


class RuleFile:
    """Loads the rules file into `RulesInForce`, the rules that requests read, at each change."""

    def __init__(self, settings: Settings, in_force: RulesInForce):
        self.refused: str | None = None
        """Why the current file is not used; None if it is used."""
        self._settings, self._in_force = settings, in_force
        self._seen: Stamp | None = None
        self._prepare: Prepare = lambda rules: ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rule-file", daemon=True)

    def begin(self) -> None:
        """Load the file's rules. If the file is invalid, load the rules that were used last.

        Raises:
            ConfigError: the file is invalid, and no rules were used before.
        """
        self._seen = _stamp(self._settings.rules)
        rules, self.refused = first_rules(self._settings)
        self._use(rules)
        if self.refused:
            log.error("rules: %s; the rules used last (%s) are in force", self.refused, rules.id)

    def start(self, prepare: Prepare) -> None:
        """Check every CHECK_SECONDS in a thread, until `stop`.

        Args:
            prepare: called with new rules before they are in force; returns warnings about them.
        """
        self._prepare = prepare
        self._warn(self._in_force.rules)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def check(self) -> bool:
        """Load the file if it has changed; return True if other rules are in force now."""
        stamp = _stamp(self._settings.rules)
        if stamp == self._seen:
            return False
        try:
            rules = load_rules(self._settings.rules)
            self._warn(rules)
        except Exception as error:
            # Any error: if this thread ended, later changes would not be read.
            self._seen, self.refused = stamp, reason(error)
            metrics.SWAPS.labels("rules", "refused").inc()
            log.error("rules: %s; the rules before it stay in force", self.refused)
            return False
        self._seen, self.refused = stamp, None
        changed = rules.digest != self._in_force.rules.digest
        self._use(rules)
        if changed:
            metrics.SWAPS.labels("rules", "swapped").inc()
        return changed

    def _warn(self, rules: RuleSet) -> None:
        for message in self._prepare(rules)[:WARNINGS]:
            log.warning("rules %s: %s", rules.id, message)

    def _use(self, rules: RuleSet) -> None:
        self._in_force.rules = rules
        log.info("rules %s: %d from %s", rules.id, len(rules.rules), self._settings.rules)
        if rules.arranges and self._settings.explore is not None:
            log.warning(
                "rules %s: pins, boosts, caps or quotas arrange every list, so SHORTLIST_EXPLORE"
                " has no effect",
                rules.id,
            )
        try:
            keep(rules, self._settings.accepted_rules)
        except OSError as error:  # e.g. a full disk; the rules are in force anyway
            log.error("rules: %s can't be stored: %s", rules.id, error)

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            self.check()


def first_rules(settings: Settings) -> tuple[RuleSet, str | None]:
    """Return the rules to start with, and why the file is not used (None if it is used).

    Raises:
        ConfigError: the file is invalid, and no rules were used before.
    """
    try:
        return load_rules(settings.rules), None
    except (ConfigError, OSError) as error:
        last = used_last(settings.accepted_rules)
        if last is None:
            raise ConfigError(
                f"{reason(error)}; correct the file, or remove it to serve without rules"
            ) from None
        return last, reason(error)


def keep(rules: RuleSet, folder: Path) -> None:
    """Write a rule set to `folder`. If it is already there, mark it as used last, by its time."""
    path = folder / f"{rules.id}.json"
    if path.exists():
        os.utime(path)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, rules.model_dump(mode="json", exclude_defaults=True))


def used_last(folder: Path) -> RuleSet | None:
    """Return the rule set that was used last; None if there is none that this code can read."""
    found = sorted(folder.glob("[!.]*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(found):
        try:
            return RuleSet.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("rules: %s can't be read: %s", path, reason(error))
    return None


def reason(error: Exception) -> str:
    """Describe an error in one line of text."""
    known = isinstance(error, ConfigError | OSError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    return "; ".join(text.splitlines())


def _stamp(path: Path) -> Stamp:
    """Return a value that changes with each write of the file; NO_FILE if it is missing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return NO_FILE
    except OSError:
        return (-1, 0, 0)
    return found.st_mtime_ns, found.st_ino, found.st_size
