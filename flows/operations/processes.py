"""Processes of `shortlist up`: started in the background, named in a file, and stopped by it.

<home>/up.json    {"since", "config", "processes": {name: {pid, created, url, log, command}}}

A home is the folder SHORTLIST_HOME. A process is recognised by its id and its time of creation, so
a later process with the same id is never touched.
"""

import contextlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from flows.operations.links import UP
from shortlist.config import Settings
from shortlist.files.plain_json import write_json

PATIENCE = 20.0
"""Seconds from SIGTERM to SIGKILL."""


class UpError(RuntimeError):
    """A process did not start; the message has the last lines of its log."""


@dataclass(frozen=True)
class Started:
    """A process that `shortlist up` started."""

    pid: int
    created: float
    """Time of creation, as psutil reports it."""
    log: str
    command: list[str]
    url: str | None = None


def start(
    settings: Settings,
    name: str,
    command: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    url: str | None = None,
) -> Started:
    """Start a process that outlives this one, and record it in up.json.

    Args:
        cwd: working directory.
        env: variables added to those of this process.
        url: address at which it answers, if it does.
    """
    log = settings.logs / "up" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    started = Started(process.pid, created, str(log.absolute()), command, url)
    record(settings, {name: started})
    return started


def read(settings: Settings) -> dict[str, Started]:
    """Return the recorded processes, in the order in which they were started."""
    try:
        content = json.loads((settings.home / UP).read_text())
        return {name: Started(**process) for name, process in content["processes"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UpError(
            f"{settings.home / UP}: not the list of processes ({error!r}); stop them by hand with"
            " `ps` and remove the file"
        ) from None


def record(settings: Settings, more: dict[str, Started], **about: Any) -> None:
    """Add processes and facts to up.json."""
    try:
        content = json.loads((settings.home / UP).read_text())
    except FileNotFoundError:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"since": since, "processes": {}}
    content["processes"] |= {name: asdict(process) for name, process in more.items()}
    write_json(settings.home / UP, content | about)


def forget(settings: Settings) -> None:
    """Remove up.json."""
    (settings.home / UP).unlink(missing_ok=True)


def is_alive(started: Started) -> bool:
    """Return whether exactly this process still runs."""
    return _process(started) is not None


def stop(started: Started, *, patience: float = PATIENCE) -> bool:
    """Stop a process and its descendants with SIGTERM, and later SIGKILL.

    Returns:
        False if it had ended before.
    """
    process = _process(started)
    if process is None:
        return False
    family = [process, *process.children(recursive=True)]
    process.terminate()  # it ends its own children
    psutil.wait_procs([process], timeout=patience)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        alive = [member for member in family if member.is_running()]
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(member)
        psutil.wait_procs(alive, timeout=5)
    return True


def tail(started: Started, lines: int = 15) -> str:
    """Return the last lines of a process's log."""
    return "\n".join(Path(started.log).read_text(errors="replace").splitlines()[-lines:])


def _process(started: Started) -> psutil.Process | None:
    try:
        process = psutil.Process(started.pid)
        # A zombie has ended; its parent just hasn't read its exit code yet.
        same = abs(process.create_time() - started.created) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
