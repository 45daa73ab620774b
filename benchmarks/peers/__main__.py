"""nbridge and multivae compared: speed, time to a likelihood, memory and start-up; bridges and TELBO with five modalities.

    python -m benchmarks.peers --multivae PATH_TO_PYTHON [--repeats 5] [--threads 1] [--widths 512,512 1024,1024] [--epochs 5] [--quick]

PATH_TO_PYTHON belongs to an environment with ``pip install torch==2.13.0 torchvision==0.28.0 multivae==1.0.3`` (for CPUs). It writes
benchmarks/results/peers.json and a section of docs/benchmarks/speed.md; with ``--quick``, which only shows that all of it runs, it prints
them alone.

Protocol: every measurement is a process of its own, at the same number of threads; within a repeat the libraries take turns, and the next
repeat turns the order round. Rows are MNIST's, as nbridge's own source reads them, handed over in one file; batches of 128, 128 latent
dimensions, Adam at 0.001, ReLU, no batch normalisation, the label's weight 1. Rates are of the libraries' own trainers, of all epochs but
the first; ratios are those of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.peers.job import Job, now
from benchmarks.peers.table import section
from benchmarks.readme import replace_section
from nbridge import Batch, Spec
from nbridge.spec.option_types import Precision
from nbridge.training.build import build_data, build_model

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent / "results" / "peers.json"
MNIST: Mapping[str, tuple[int, str]] = {"image": (784, "bernoulli"), "label": (10, "categorical")}
VECTORS: Mapping[str, tuple[int, str]] = {f"part{number}": (160, "bernoulli") for number in range(1, 6)}
THEIRS = ("jmvae", "telbo", "mvae")
OURS = ("bridged", "bridged (paper)", "jmvae", "telbo", "mvae")
FAST = "auto" if "auto" in get_args(Precision) else "bf16"


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark.

    Arguments:
        speed: Training rows for the rates.
        likelihood: Training rows for the likelihoods.
        test: Rows whose likelihood is taken.
        vectors: Training rows of five modalities.
        epochs: Passes for the rates, the first of which does not count.
    """

    speed: int = 20 * 128
    likelihood: int = 156 * 128
    test: int = 1000
    vectors: int = 3 * 128
    epochs: int = 3


QUICK = Sizes(speed=4 * 128, likelihood=8 * 128, test=50, vectors=2 * 128, epochs=2)


@dataclass(frozen=True)
class Side:
    """A library and its Python interpreter."""

    name: str
    python: str

    def run(self, job: Job) -> dict[str, Any]:
        """The report of a separate process."""
        command = [self.python, str(HERE / f"{self.name}_runner.py"), replace(job, started=now()).as_json()]
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": str(HERE.parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{self.name}, {job.task}: failed\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def version(self) -> str:
        code = f"from importlib.metadata import version; print('{self.name}', version('{self.name}'), '/ torch', version('torch'))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def mnist(folder: Path, sizes: Sizes) -> dict[str, str]:
    """Files with MNIST's first rows in a random order, one for the rates and one for the likelihoods."""
    modalities = {name: {"shape": size, "encoder": "mlp", "likelihood": kind} for name, (size, kind) in MNIST.items()}
    modalities["image"]["shape"] = [1, 28, 28]
    spec = Spec.model_validate({"data": {"source": "mnist", "validation": 0}, "modalities": modalities})
    splits = build_data(spec, build_model(spec))
    assert splits.test is not None
    return {
        task: _written(folder / f"{task}.npz", splits.train.slice(0, number), splits.test.slice(0, sizes.test))
        for task, number in (("speed", sizes.speed), ("likelihood", sizes.likelihood))
    }


def _written(path: Path, train: Batch, test: Batch) -> str:
    arrays = {}
    for part, values in (("train", train.values), ("test", test.values)):
        arrays |= {f"image_{part}": values["image"].flatten(1).numpy(), f"label_{part}": values["label"].numpy()}
    np.savez(path, allow_pickle=False, **arrays)
    return str(path)


def vectors(folder: Path, sizes: Sizes) -> str:
    """A file with five random vectors per row; the cost of a step does not depend on values."""
    draws = np.random.default_rng(0)
    rows = {f"{name}_train": draws.random((sizes.vectors, size), dtype=np.float32) for name, (size, _) in VECTORS.items()}
    np.savez(folder / "vectors.npz", allow_pickle=False, **rows)
    return str(folder / "vectors.npz")


def in_turn(work: Iterable[tuple[str, Side, Job]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """The reports of each repeat, by title; every other repeat goes through the list backwards."""
    work = list(work)
    reports: dict[str, list[dict[str, Any]]] = {title: [] for title, _, _ in work}
    for repeat in range(repeats):
        for title, side, job in work[:: -1 if repeat % 2 else 1]:
            reports[title].append(side.run(job))
            tell(f"repeat {repeat + 1} of {repeats}: {title}, {job.task}")
    return reports


def medians(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number over repeats, with all rates."""
    first = reports[0]
    if not isinstance(next(iter(first.values())), dict):
        return {key: median(report[key] for report in reports) for key in first}
    return {
        stage: {
            **medians([report[stage] for report in reports]),
            "repeats": [report[stage]["steps_per_second"] for report in reports],
        }
        for stage in first
    }


def speeds(theirs: Side, ours: Side, job: Job, widths: list[tuple[int, ...]], repeats: int) -> dict[str, Any]:
    found = {}
    for hidden in widths:
        wide = replace(job, task="speed", hidden=hidden)
        work = [("multivae", theirs, replace(wide, models=THEIRS))]
        work += [(f"nbridge {one}", ours, replace(wide, models=OURS, precision=one)) for one in ("float32", FAST)]
        name = ",".join(map(str, hidden))
        tell(f"widths {name}")
        found[name] = {title: medians(reports) for title, reports in in_turn(work, repeats).items()}
    return found


def five(ours: Side, job: Job, repeats: int) -> dict[str, Any]:
    """Our own TELBO compared with bridges, with five modalities."""
    job = replace(job, task="speed", modalities=dict(VECTORS), models=("telbo", "bridged", "bridged (paper)"))
    work = [(f"nbridge {one}", ours, replace(job, precision=one)) for one in ("float32", FAST)]
    return {title: medians(reports) for title, reports in in_turn(work, repeats).items()}


def likelihoods(theirs: Side, ours: Side, job: Job) -> dict[str, Any]:
    """multivae's likelihood after the last epoch, nbridge's after each, and when nbridge passes multivae."""
    job = replace(job, task="likelihood", models=("jmvae",))
    tell("likelihood: multivae jmvae")
    found: dict[str, Any] = {"multivae jmvae": theirs.run(job)}
    target = found["multivae jmvae"]["log_likelihood"]
    for model in ("jmvae", "joint"):
        for precision in ("float32", FAST):
            tell(f"likelihood: nbridge {model}, {precision}")
            report = ours.run(replace(job, models=(model,), precision=precision))
            epoch = next((number for number, value in enumerate(report["log_likelihood"]) if value >= target), None)
            passed = {} if epoch is None else {"passes_in_epoch": epoch + 1, "passes_after_seconds": report["seconds"][epoch]}
            found[f"nbridge {model}, {precision}"] = {**report, **passed}
    return found


def starts(theirs: Side, ours: Side, job: Job, repeats: int) -> dict[str, Any]:
    """Time of the imports, of the first step since the process began, and peak memory, each of a process that does nothing else."""
    job = replace(job, task="start", epochs=1)
    work = [("multivae jmvae", theirs, replace(job, models=("jmvae",))), ("multivae telbo", theirs, replace(job, models=("telbo",)))]
    work += [("nbridge jmvae", ours, replace(job, models=("jmvae",))), ("nbridge bridged", ours, replace(job, models=("bridged",)))]
    found = {title: medians(reports) for title, reports in in_turn(work, repeats).items()}
    imports: dict[str, list[float]] = {theirs.name: [], ours.name: []}
    for repeat in range(repeats):
        for side in (theirs, ours)[:: -1 if repeat % 2 else 1]:
            started = now()
            side.run(Job("import"))
            imports[side.name].append(now() - started)
    return {"models": found, "imports": {name: median(seconds) for name, seconds in imports.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--multivae", required=True, metavar="PYTHON", help="python of an environment with multivae")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", nargs="+", default=["512,512", "1024,1024"], metavar="W,W", help="hidden layers of every encoder")
    parser.add_argument("--epochs", type=int, default=5, help="passes for the likelihoods")
    parser.add_argument("--quick", action="store_true", help="few rows and one repeat; nothing is written")
    options = parser.parse_args()
    sizes, repeats = (QUICK, 1) if options.quick else (Sizes(), options.repeats)
    widths = [tuple(int(width) for width in entry.split(",")) for entry in options.widths]
    theirs, ours = Side("multivae", options.multivae), Side("nbridge", sys.executable)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        files = mnist(Path(name), sizes)
        job = Job("", files["speed"], dict(MNIST), hidden=widths[0], epochs=sizes.epochs, threads=options.threads)
        results: dict[str, Any] = {
            "versions": [theirs.version(), ours.version()],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
            "threads": options.threads,
            "repeats": repeats,
            "fast": FAST,
            "rows": {"speed": sizes.speed, "likelihood": sizes.likelihood, "test": sizes.test},
            "start": starts(theirs, ours, job, min(3, repeats)),
            "likelihood": likelihoods(theirs, ours, replace(job, rows=files["likelihood"], epochs=options.epochs)),
            "five": five(ours, replace(job, rows=vectors(Path(name), sizes)), repeats),
            "speed": speeds(theirs, ours, job, widths, repeats),
        }
    results["minutes"] = (time.monotonic() - started) / 60
    text = section(results)
    print(text)
    if options.quick:
        return
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("peers", text)


if __name__ == "__main__":
    main()
