"""PolyMNIST: whether generated views show the digit of the given views, for models of nbridge and multivae.

    python -m benchmarks.polymnist --multivae PATH_TO_PYTHON [--seeds 3] [--shares 0,0.2,0.5] [--systems flow,...] [--jobs 2]

PATH_TO_PYTHON belongs to an environment with ``pip install torch==2.13.0 torchvision==0.28.0 multivae==1.0.3 einops`` (for CPUs).
Each run is saved to benchmarks/results/polymnist.json and not repeated; the table is in benchmarks/README.md.

Protocol, the same for every system: the rows of nbridge's source `polymnist`, five views without a label at half resolution; encoders with
one hidden layer and convolutional decoders, of the same classes and widths; the same dimension of z; a Laplace likelihood of fixed scale on
standardised pixels; Adam with batches of 128; the same number of epochs for encoders and decoders, and the same again for the second stage
of systems with two stages (`bridged` and its variants, `telbo`, `jnf`). Views are removed from training rows at random (one of each row
stays); test rows are complete. multivae's JNF needs complete rows; with half of the views missing, these are a few percent. `bridged`,
`flow` and `shared` share a stage `joint` with a coupling of 3, which is JMVAE's alpha of .1 times its 30 subsets; `own`, `equation7`
(nbridge's default) and `telbo` share one without. The bridges of `bridged`, `flow` and `own` have separate encoders.

Coherence: the share of generated views in which a classifier, trained on real ones, recognises the digit of the row; five sets of each
size, one draw per row. Agreement: the share of rows whose four absent views, generated from one, show the same digit; also with a separate
draw for each view. Variety: the variance of generated pixels within a digit, relative to that of real ones; mean images are easy to
recognise. JNF gets only the first 100 of 500 test rows, because its sampler takes a thousand steps for each set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nbridge
from benchmarks.polymnist.task import VIEWS, Task, subsets
from benchmarks.readme import replace_section, spread
from nbridge.data.split import Splits
from nbridge.training.build import build_data

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULT = HERE.parent / "results" / "polymnist.json"
TASK = Task()
ROWS = {"rows": 20000, "test_rows": 500, "judges": 20000}
GROUPS = (("bridged", "flow", "shared"), ("own", "equation7"), ("telbo",), ("jmvae",), ("mvae",), ("jnf",), ("mmvaeplus",))
"""Systems trained by one process, after a common stage `joint` if they have one."""
NAMES = {
    "bridged": "bridged, coupling 3, own encoders",
    "flow": "flow, coupling 3, own encoders",
    "shared": "bridged, coupling 3",
    "own": "bridged, own encoders",
    "equation7": "bridged",
}
THEIRS = ("jnf", "mmvaeplus")
WHOLE = (3, 28, 28)
"""A view at full resolution."""


def source(rows: int, missing: float) -> Splits:
    modalities: dict[str, Any] = {name: {"shape": WHOLE, "encoder": "mlp", "likelihood": "laplace"} for name in VIEWS}
    modalities["label"] = {"shape": 10, "encoder": "mlp", "likelihood": "categorical"}
    data = {"source": "polymnist", "rows": rows, "test_rows": ROWS["test_rows"], "missing": missing, "validation": 0.05}
    spec = nbridge.Spec.model_validate({"data": data, "modalities": modalities})
    return build_data(spec, nbridge.build_model(spec))


def write_rows(path: Path, missing: float) -> None:
    splits = source(ROWS["rows"], missing)
    arrays: dict[str, np.ndarray] = {}
    for part in ("train", "validation", "test"):
        batch = getattr(splits, part).sample()
        arrays |= {f"{name}_{part}": (halved(batch.values[name]) * 255).round().to(torch.uint8).numpy() for name in VIEWS}
        arrays[f"present_{part}"] = torch.stack([batch.present[name] for name in VIEWS], 1).numpy()
        arrays[f"label_{part}"] = batch.values["label"].numpy()
    np.savez(path, allow_pickle=False, **arrays)


def halved(views: Tensor) -> Tensor:
    """Views at half the height and width, zeros where absent."""
    return F.avg_pool2d(views.nan_to_num(), 2)


def judges() -> dict[str, nn.Module]:
    """A classifier of each view, trained on complete rows."""
    train = source(ROWS["judges"], 0.0).train.sample()
    return {name: judge(halved(train.values[name]), train.values["label"]) for name in VIEWS}


def judge(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    convolutions = [layer for a, b in ((3, 16), (16, 32)) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())]
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(8):
        for index in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def score(pictures: Path, jury: Mapping[str, nn.Module], rows: Path) -> dict[str, Any]:
    """By the number of views given coherence and variety; agreement of four views given one, of one draw and of one draw each."""
    said, varied = {}, {}
    with np.load(rows) as test, np.load(pictures) as arrays:
        served = len(arrays[arrays.files[0]])
        y = torch.from_numpy(test["label_test"])[:served]
        real = {name: variance(test[f"{name}_test"][:served], y.numpy()) for name in VIEWS}
        for key in arrays.files:
            name = key.rpartition("/")[2]
            said[key] = jury[name](torch.from_numpy(arrays[key]).float() / 255).argmax(1)
            varied[key] = variance(arrays[key], y.numpy()) / real[name]
    right: dict[int, list[float]] = {}
    variety: dict[int, list[float]] = {}
    agreed: dict[str, list[float]] = {"shared": [], "own": []}
    for given in subsets():
        absent = [name for name in VIEWS if name not in given]
        found = {kind: [said.get(f"{kind}/{'+'.join(given)}/{name}") for name in absent] for kind in agreed}
        right.setdefault(len(given), []).append(mean((x == y).float().mean().item() for x in found["shared"] if x is not None))
        variety.setdefault(len(given), []).append(mean(varied[f"shared/{'+'.join(given)}/{name}"] for name in absent))
        for kind, verdicts in found.items():
            if len(given) == 1:
                stacked = torch.stack([x for x in verdicts if x is not None])
                agreed[kind].append((stacked == stacked[0]).all(0).float().mean().item())
    by_size = {"coherence": [mean(values) for values in right.values()], "variety": [mean(values) for values in variety.values()]}
    return {**by_size, "agreement": mean(agreed["shared"]), "control": mean(agreed["own"])}


def variance(views: np.ndarray, y: np.ndarray) -> float:
    """The variance of pixels among views of one digit, summed over pixels."""
    return sum(float(views[y == digit].astype(np.float32).var(0).sum()) * (y == digit).mean() for digit in range(10))


def run(task: Task, python: Mapping[str, str], jury: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """The figures of the systems of one process."""
    theirs = task.systems[0] in THEIRS
    with tempfile.TemporaryDirectory() as folder:
        command = [python["multivae" if theirs else "nbridge"], str(HERE / f"{'multivae' if theirs else 'nbridge'}_runner.py")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        done = subprocess.run(
            [*command, replace(task, pictures=folder).as_json()], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            raise SystemExit(f"{task.systems}: failed\n{done.stderr[-3000:]}")
        found = {system: score(Path(folder) / f"{system}.npz", jury, Path(task.rows)) for system in task.systems}
    print(f"{time.monotonic() - started:.0f} s", task.seed, Path(task.rows).stem, json.dumps(found), flush=True)
    return found


def tasks(options: argparse.Namespace, folder: Path, known: Mapping[str, Any]) -> Iterator[tuple[str, Task]]:
    """The runs not measured yet, by seed."""
    asked = options.systems.split(",")
    for seed in range(options.seeds):
        for share in options.shares.split(","):
            for group in GROUPS:
                systems = tuple(name for name in group if name in asked and len(known.get(share, {}).get(name, ())) <= seed)
                if systems:
                    yield share, replace(TASK, systems=systems, rows=str(folder / f"{share}.npz"), seed=seed)


def table(results: dict[str, Any]) -> str:
    lines = []
    for share, systems in results["shares"].items():
        head = f"{float(share):.0%} of views missing in training" if float(share) else "complete rows"
        lines += ["", f"| {head} | 1 given | 2 | 3 | 4 | four agree, given one | of a draw each | variety |", "|---" * 8 + "|"]
        for name in (name for group in GROUPS for name in group if systems.get(name)):
            runs = systems[name]
            cells = [spread([one["coherence"][size] for one in runs]) for size in range(4)]
            cells += [spread([one[key] for one in runs]) for key in ("agreement", "control")]
            cells.append(spread([mean(one["variety"]) for one in runs]))
            lines.append(f"| {NAMES.get(name, name)} ({len(runs)}) | " + " | ".join(cells) + " |")
    judged = mean(results["classifiers"].values())
    return "\n".join(
        [*lines[1:], "", f"Means ± standard deviations over seeds (their number). The classifiers read {judged:.3f} of real views."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--multivae", metavar="PYTHON", help="python of an environment with multivae; without it only nbridge's systems are run"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", default="0,0.2,0.5")
    parser.add_argument("--systems", default=",".join(name for group in GROUPS for name in group))
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, of one thread each")
    options = parser.parse_args()
    if not options.multivae:
        options.systems = ",".join(name for name in options.systems.split(",") if name not in THEIRS)
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"task": asdict(TASK), "rows": ROWS, "shares": {}}
    python = {"nbridge": sys.executable, "multivae": options.multivae}
    jury = judges()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        for share in options.shares.split(","):
            write_rows(folder / f"{share}.npz", float(share))
        results["classifiers"] = accuracies(folder / f"{options.shares.split(',')[0]}.npz", jury)
        waiting = [(share, pool.submit(run, task, python, jury)) for share, task in tasks(options, folder, results["shares"])]
        for share, future in waiting:
            for system, found in future.result().items():
                results["shares"].setdefault(share, {}).setdefault(system, []).append(found)
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    replace_section("polymnist", table(results))


@torch.no_grad()
def accuracies(rows: Path, jury: Mapping[str, nn.Module]) -> dict[str, float]:
    """The accuracy of each classifier on real test views."""
    with np.load(rows) as arrays:
        y = torch.from_numpy(arrays["label_test"])
        return {
            name: (network(torch.from_numpy(arrays[f"{name}_test"]).float() / 255).argmax(1) == y).float().mean().item()
            for name, network in jury.items()
        }


if __name__ == "__main__":
    main()
