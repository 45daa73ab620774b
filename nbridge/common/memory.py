"""Free memory of the machine and of the container (cgroup) of this process."""

from __future__ import annotations

import math
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def free_bytes() -> float:
    """The free memory in bytes; infinity if the system does not report it."""
    found = [math.inf]
    try:
        lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="ascii").splitlines())
        found.append(float(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    try:
        limit, used = (path.read_text(encoding="ascii").strip() for path in _CGROUP)
        found.append(float(limit) - float(used))
    except (OSError, ValueError):
        pass
    return max(0.0, min(found))
