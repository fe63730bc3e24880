"""What the numbers were measured on: a result without its machine means little."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """One line: cores, memory, kernel, load."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    size = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB"
    return f"{size}, Linux {platform.release()}, load {load}, Python {platform.python_version()}"
