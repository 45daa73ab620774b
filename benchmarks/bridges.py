"""Cost of a step of stage `bridges` by number of modalities: seconds, parameters and memory for n = 2 to 20.

    python benchmarks/bridges.py [--repeats 5] [--modalities 2 3 5 10 20]

writes benchmarks/results/bridges.json and a table in benchmarks/README.md. Protocol: one thread; n - 1 random vectors of 16
values and a label of 10 classes, encoders of one hidden layer of 32, features 128, latent 32, batches of 128; the default bridges, by the
default objective and by the paper's. Seconds are those of the trainer's own epochs but the first, medians of repeats that go through all n
in turn; memory is the peak of a process that trains, less that of one that only builds the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from designs import plain
from readme import replace_section

import nbridge
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

RESULT = Path(__file__).resolve().parent / "results" / "bridges.json"
BATCH, STEPS, EPOCHS = 128, 8, 3
OBJECTIVES: Mapping[str, Any] = {"default": {"distill": 1, "cross": 1}, "paper": "paper"}


class Clock(Callback):
    """The seconds of each epoch of the bridges."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_validation(self, record: EpochRecord) -> None:
        if record.stage == "bridges":
            self.seconds.append(record.seconds)


def spec(n: int, objective: str) -> nbridge.Spec:
    encoder, decoder = {"type": "mlp", "hidden": [32]}, {"type": "mlp", "hidden": [32]}
    vector = {"shape": 16, "encoder": encoder, "decoder": decoder, "likelihood": "normal"}
    names = [f"part{number}" for number in range(1, n)]
    label = {"shape": 10, "encoder": encoder, "decoder": decoder, "likelihood": "categorical"}
    return nbridge.Spec.model_validate(
        {
            "latent_dim": 32,
            "data": {"source": "memory", "validation": 0, "test": 0},
            "modalities": {**dict.fromkeys(names, vector), "label": label},
            **plain(objective=OBJECTIVES[objective]),
            "training": {"batch_size": BATCH, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": EPOCHS}}},
        }
    )


def rows(n: int) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(0)
    values = {f"part{number}": draws.normal(size=(BATCH * STEPS, 16)).astype(np.float32) for number in range(1, n)}
    return values | {"label": draws.integers(0, 10, BATCH * STEPS)}


def milliseconds(n: int, objective: str) -> float:
    """Seconds of a step."""
    clock = Clock()
    nbridge.train(spec(n, objective), rows(n), device="cpu", callbacks=[clock])
    return 1000 * fmean(clock.seconds[1:]) / STEPS


def peak(n: int, objective: str, train: bool) -> float:
    """Peak memory of a separate process, in MiB."""
    command = [sys.executable, __file__, "--peak", str(n), objective, "train" if train else "build"]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def watched(n: int, objective: str, train: bool) -> float:
    """The job of the process started by `peak`."""
    if train:
        nbridge.train(spec(n, objective), rows(n), device="cpu")
    else:
        nbridge.build_model(spec(n, objective))
    # Not getrusage, whose peak is inherited from the parent process.
    kibibytes = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(kibibytes) / 1024


def parameters(n: int) -> tuple[int, int]:
    """Parameters of the bridges, and of the whole model."""
    model = nbridge.build_model(spec(n, "default"))
    assert isinstance(model, nbridge.BridgedVAE)
    return sum(p.numel() for p in model.bridges.parameters()), sum(p.numel() for p in model.parameters())


def measure(numbers: list[int], repeats: int) -> list[dict[str, Any]]:
    times: dict[tuple[int, str], list[float]] = {(n, objective): [] for n in numbers for objective in OBJECTIVES}
    for repeat in range(repeats):
        for n, objective in list(times)[:: -1 if repeat % 2 else 1]:
            times[n, objective].append(milliseconds(n, objective))
        print(f"repeat {repeat + 1} of {repeats}", flush=True)
    table = []
    for n in numbers:
        bridges, whole = parameters(n)
        memory = peak(n, "default", train=True) - peak(n, "default", train=False)
        found = {f"milliseconds, {objective}": median(times[n, objective]) for objective in OBJECTIVES}
        table.append({"n": n, "bridges": n * (n - 1), "parameters of bridges": bridges, "parameters": whole, "mebibytes": memory, **found})
        print(table[-1], flush=True)
    return table


def section(results: Mapping[str, Any]) -> str:
    lines = [
        "| n | bridges | their parameters | of the whole model | ms a step, `distill`, `cross` | `objective: paper` | memory of training |",
        "|---" * 7 + "|",
    ]
    for row in results["table"]:
        times = " | ".join(f"{row[f'milliseconds, {objective}']:.1f}" for objective in OBJECTIVES)
        counts = f"{row['parameters of bridges']:,} | {row['parameters']:,}"
        lines.append(f"| {row['n']} | {row['bridges']} | {counts} | {times} | {row['mebibytes']:.0f} MiB |")
    by_number = {row["n"]: row for row in results["table"]}
    grown = ""
    if {5, 10} <= by_number.keys():
        ratio = by_number[10]["milliseconds, default"] / by_number[5]["milliseconds, default"]
        grown = f"\n\nFrom 5 to 10 modalities bridges are 4.5 times as many, and a step takes {ratio:.2f} times as long."
    return (
        f"**Many modalities** (`benchmarks/bridges.py`: features 128, batches of {BATCH}, {results['threads']} thread, medians of "
        f"{results['repeats']}):\n\n" + "\n".join(lines) + grown
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3, 4, 5, 7, 10, 15, 20])
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        number, objective, work = options.peak
        print(watched(int(number), objective, train=work == "train"))
        return
    table = measure(options.modalities, options.repeats)
    results = {"threads": torch.get_num_threads(), "repeats": options.repeats, "batch_size": BATCH, "table": table}
    print(section(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("bridges", section(results))


if __name__ == "__main__":
    main()
