"""What every result file says of where and when it was made."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def about_machine() -> dict[str, Any]:
    """{"date", "machine"}: cores, processor, memory; no host name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {memory:.0f} GB",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
