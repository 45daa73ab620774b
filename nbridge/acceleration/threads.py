"""How many threads to work with: a setting of the process, made before torch is loaded.

Threads of one product wait for each other. Where something else runs on their cores, the one that was put off holds up the others, and
those wait in a loop that keeps it off its core: two threads beside other work ran 3 to 40 times slower than one. So there are no more of
them than cores are free. How they wait is left to torch: threads that sleep at once are hurt less by work that begins later, but on free
cores two of them are slower than one (`benchmarks/threads.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

WATCHED = 0.1
"""Seconds over which the load of the machine is watched."""
_STATISTICS = Path("/proc/stat")


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Chooses the number of threads, in the environment of this process, unless it stands there already.

    Does nothing once torch is loaded, which reads the environment only then.
    """
    if "torch" not in sys.modules and not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(free_cores())


def free_cores() -> int:
    """The cores that this process may use, by its affinity and the quota of its container, less those that are busy with other work."""
    import joblib

    cores = joblib.cpu_count(only_physical_cores=True)
    return max(1, cores - round(busy_cores()))


def busy_cores() -> float:
    """How many of the cores that this process may run on others kept busy for a tenth of a second; 0 where the system doesn't say."""
    before = _busy_seconds()
    time.sleep(WATCHED)
    after = _busy_seconds()
    return sum(max(0.0, after[core] - seconds) for core, seconds in before.items() if core in after) / WATCHED


def _busy_seconds() -> Mapping[int, float]:
    """What each core has spent on work since the machine started, by Linux's account."""
    try:
        lines = [line.split() for line in _STATISTICS.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
        own = os.sched_getaffinity(0)
        ticks = os.sysconf("SC_CLK_TCK")
        # After the name: user, nice, system, idle, waiting for disks, interrupts of two kinds, and stolen by other virtual machines.
        times = {int(name[3:]): [int(x) for x in rest] for name, *rest in lines if name != "cpu"}
        return {core: (sum(t[:3]) + sum(t[5:8])) / ticks for core, t in times.items() if core in own}
    except (OSError, ValueError, AttributeError):
        return {}
