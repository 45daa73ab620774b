"""Free memory of the machine and of the container (cgroup) of this process."""

from __future__ import annotations

import math
from pathlib import Path

from nbridge.errors import DataError

_MEMORY = Path("/proc/meminfo")
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def free_bytes(*, in_use: bool = False) -> float:
    """The free memory in bytes, with that in use if asked; infinity if the system does not report it."""
    found = [math.inf]
    try:
        lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="ascii").splitlines())
        found.append(float(lines["MemTotal" if in_use else "MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    try:
        limit, used = (path.read_text(encoding="ascii").strip() for path in _CGROUP)
        found.append(float(limit) - (0 if in_use else float(used)))
    except (OSError, ValueError):
        pass
    return max(0.0, min(found))


def check_fits(what: str, needed: float, error: type[Exception] = DataError) -> None:
    """Checks that something fits into the free memory before it is allocated.

    Arguments:
        what: Its name, for the message.
        needed: Its size in bytes.
        error: The error to raise.

    Raises:
        DataError: when it does not.
    """
    if needed > (free := free_bytes()):
        raise error(f"{what} would take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free")
