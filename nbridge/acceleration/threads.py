"""Chooses the number of threads of the process, before torch is loaded.

The threads of one matrix product wait for each other. If other processes run on their cores, a preempted thread delays the others, which
busy-wait and so keep it off its core: two threads beside other work ran 3 to 40 times slower than one. So there are at most as many threads
as free cores. The wait policy is left to torch: threads that sleep at once suffer less from work that starts later, but on free cores two
of them are slower than one (`benchmarks/threads.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

SAMPLE_SECONDS = 0.1
"""Seconds over which the load of the machine is measured."""
_STATISTICS = Path("/proc/stat")


def set_thread_count(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the number of threads in the environment, unless it is set or torch, which reads it at import, is already loaded."""
    if "torch" not in sys.modules and not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(free_cores())


def free_cores() -> int:
    """The number of cores that this process may use, by affinity and container quota, minus those busy with other work; at least 1."""
    import joblib

    cores = joblib.cpu_count(only_physical_cores=True)
    return max(1, cores - round(busy_cores()))


def busy_cores() -> float:
    """The number of cores in this process's affinity that were busy over a tenth of a second; 0 if the system does not report it."""
    before = _busy_seconds()
    time.sleep(SAMPLE_SECONDS)
    after = _busy_seconds()
    return sum(max(0.0, after[core] - seconds) for core, seconds in before.items() if core in after) / SAMPLE_SECONDS


def _busy_seconds() -> Mapping[int, float]:
    """The seconds that each core has been busy since boot, from ``/proc/stat``."""
    try:
        lines = [line.split() for line in _STATISTICS.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
        own = os.sched_getaffinity(0)
        ticks = os.sysconf("SC_CLK_TCK")
        # Fields after the name: user, nice, system, idle, iowait, irq, softirq, steal.
        times = {int(name[3:]): [int(x) for x in rest] for name, *rest in lines if name != "cpu"}
        return {core: (sum(t[:3]) + sum(t[5:8])) / ticks for core, t in times.items() if core in own}
    except (OSError, ValueError, AttributeError):
        return {}
