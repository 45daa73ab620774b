"""Effect of other work on the same cores on training, by number of threads and by how they wait.

    python -m benchmarks.threads [--repeats 5]

writes benchmarks/results/threads.json and a table in benchmarks/README.md. Protocol: `nbridge train` in a process of its own, a model of
widths 512 on random images and labels, the median epoch without the first; on free cores, and with a busy process on each core but one.
Settings: one thread per core, waiting as torch does by default or sleeping at once; one thread; the choice of `nbridge train`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.readme import replace_section

RESULT = Path(__file__).resolve().parent / "results" / "threads.json"
CORES = os.cpu_count() or 1
WAYS: dict[str, dict[str, str]] = {
    "a thread a core": {"OMP_NUM_THREADS": str(CORES)},
    "a thread a core, asleep while waiting": {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "as nbridge chooses": {},
}
SPEC = """
model: joint
latent_dim: 128
data: {source: npz, path: rows.npz, validation: 0, test: 0}
modalities:
  image: {shape: [1, 28, 28], encoder: {type: mlp, hidden: [512]}, features: 512, likelihood: bernoulli}
  label: {shape: 10, encoder: {type: mlp, hidden: [512]}, features: 512, likelihood: categorical}
training: {batch_size: 128, stages: {joint: {epochs: 3}}}
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Runs other work until the block ends."""
    with ExitStack() as stack:
        for _ in range(processes):
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(other.kill)
        yield


def step_rate(folder: Path, settings: dict[str, str]) -> float:
    """Steps per second in the median epoch without the first."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
    command = [sys.executable, "-m", "nbridge", "train", "spec.yaml", "--out", "run", "--overwrite"]
    subprocess.run(command, cwd=folder, env={**outside, **settings}, check=True, capture_output=True)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return (3200 // 128) / median(json.loads(line)["seconds"] for line in lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rates: dict[str, dict[str, list[float]]] = {where: {way: [] for way in WAYS} for where in ("free", "busy")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(SPEC)
        rng = np.random.default_rng(0)
        np.savez(folder / "rows.npz", image=rng.random((3200, 784), np.float32), label=rng.integers(0, 10, 3200))
        for _ in range(repeats):
            for where, others in (("free", 0), ("busy", max(1, CORES - 1))):
                for way, settings in WAYS.items():
                    with busy(others):
                        rates[where][way].append(step_rate(folder, settings))
                    print(where, way, round(rates[where][way][-1], 1), flush=True)
    medians = {where: {way: median(found) for way, found in ways.items()} for where, ways in rates.items()}
    RESULT.write_text(json.dumps({"cores": CORES, "repeats": repeats, "steps_per_second": medians}, indent=1) + "\n")
    lines = ["| steps a second | free cores | beside other work |", "|---|---|---|"]
    lines += [f"| {way} | {medians['free'][way]:.1f} | {medians['busy'][way]:.1f} |" for way in WAYS]
    replace_section(
        "threads",
        f"**Threads** (`benchmarks/threads.py`, {CORES} cores; other work on {max(1, CORES - 1)} of them; medians of {repeats}):\n\n"
        + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
