"""Functions shared by the benchmarks: machine, command, printing, result file, peak memory."""

import os
import platform
import resource
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.files.plain_json import dumps, write_json


def about_machine() -> dict[str, Any]:
    """Return {"date", "machine"}; the machine is its cores, processor and memory, not its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {memory:.0f} GB",
    }


def command_line(name: str) -> str:
    """Return the command of this process, with the folder of the data sets as $SHORTLIST_DATA.

    Args:
        name: name of the benchmark.
    """
    command = f"shortlist bench {name} {shlex.join(sys.argv[1:])}"
    folder = os.environ.get("SHORTLIST_DATA")
    return command.replace(folder, "$SHORTLIST_DATA") if folder else command


def report(content: dict[str, Any], out: Path | None, *, shown: Any = None) -> None:
    """Print `shown` as JSON, or `content` if `shown` is None. Write `content` to `out` if given."""
    print(dumps(content if shown is None else shown, indent=1))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, content)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def peak_gb() -> float:
    """Return the peak resident memory of this process so far, in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
