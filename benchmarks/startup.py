"""Waiting times of a new user: the first training run, and the commands that should respond immediately.

    python benchmarks/startup.py [--repeats 5]

writes benchmarks/results/startup.json and a line in docs/benchmarks/speed.md. Wall-clock seconds of whole processes, medians, of a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from readme import replace_section

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "modality_specs" / "digits.yaml"
RESULT = ROOT / "benchmarks" / "results" / "startup.json"


def seconds(arguments: Callable[[int], list[str]], repeats: int, status: int = 0) -> float:
    times = []
    for number in range(repeats):
        started = time.perf_counter()
        result = subprocess.run([sys.executable, "-m", "nbridge", *arguments(number)], capture_output=True, check=False)
        times.append(time.perf_counter() - started)
        assert result.returncode == status, result.stderr.decode()
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "broken.yaml")
        broken.write_text(SPEC.read_text().replace("encoder", "encodr"))
        results = {
            "help": seconds(lambda _: ["--help"], repeats),
            "validate a broken spec": seconds(lambda _: ["validate", str(broken)], repeats, status=2),
            "schema": seconds(lambda _: ["schema"], repeats),
            "train digits": seconds(lambda number: ["train", str(SPEC), "--out", str(Path(folder, str(number)))], repeats),
            "repeats": repeats,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section(
        "startup",
        f"**Waiting** (`benchmarks/startup.py`, medians of {repeats} on {results['cores']} CPU cores): "
        f"`nbridge train modality_specs/digits.yaml` {results['train digits']:.0f} s from start to end; "
        f"`--help` {results['help']:.2f} s, `validate` of a broken spec {results['validate a broken spec']:.2f} s, "
        f"`schema` {results['schema']:.2f} s, none of which imports torch.",
    )
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
