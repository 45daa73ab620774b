"""multivae's JNF and MMVAE+ on PolyMNIST, trained by its own trainers in an environment of its own (`benchmarks.polymnist`).

Encoders and decoders are of the classes and widths of the library's default, with as many updates of as many rows. `jnf` and `mmvaeplus`
have z of as many dimensions as the default, half of those of MMVAE+ shared; `mmvaeplus_authors` has the settings of its authors, beta 2.5
and 32 + 32 dimensions. Their images are judged as all others are, for five sets of each number of views given, where the library's systems
answer all sets; densities of hidden views they do not give. JNF learns from complete rows alone, and is served the first 100 test rows,
because its sampler takes a thousand steps for each set.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.polymnist import task as polymnist
from benchmarks.suite.figures import Judged, by_number, of_number
from benchmarks.suite.judges import Panel
from benchmarks.suite.tasks import Task, split_of
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.errors import NBridgeError
from nbridge.spec.spec import Spec

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNER = ROOT / "benchmarks" / "polymnist" / "multivae_runner.py"
AUTHORS: Mapping[str, Mapping[str, Any]] = {"mmvaeplus_authors": {"latent_dim": 64, "beta": 2.5}}
"""Settings in which systems differ from the default."""
CHANNELS = (32, 64)
"""Of the library's default convolutions."""


def serves(task: Task) -> bool:
    """Whether rivals can run on a task; only on PolyMNIST."""
    return tuple(task.modalities) == polymnist.VIEWS


def run_rival(task: Task, system: str, spec: Spec, panel: Panel, python: str, budget: int) -> dict[str, Any]:
    """Trains a rival in a process of its own and judges its images.

    Arguments:
        task: The task.
        system: ``jnf``, ``mmvaeplus`` or ``mmvaeplus_authors``.
        spec: The default's spec on the task, for sizes and the seed.
        panel: The judges.
        python: The python of an environment that has multivae.
        budget: Updates of each of two stages.

    Raises:
        NBridgeError: when the process fails, with the end of what it wrote.
    """
    splits = split_of(task, spec.training.seed)
    assert isinstance(splits.test, Batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.npz", splits.train.sample(), splits.test)
        described = described_for(system, spec, splits.train, budget, folder)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        done = subprocess.run(
            [python, str(RUNNER), described.as_json()], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
        )
        if done.returncode:
            raise NBridgeError(f"{system}: {python} failed: {done.stderr.strip()[-2000:]}")
        seconds = time.monotonic() - started
        found = figures_of_pictures(folder / f"{described.systems[0]}.npz", panel, splits.test)
    # Wall-clock time, including generation.
    return {"train_seconds": round(seconds, 1), "monotonicity": {"broken": 0, "pairs": 0}, "targets": {}, **found}


def described_for(system: str, spec: Spec, train: Rows, budget: int, folder: Path) -> polymnist.Task:
    """The runner's task: sizes of the default, and the number of epochs for the budget."""
    model = system.partition("_")[0]
    size, own = spec.training.batch_size, AUTHORS.get(system, {})
    rows = int(torch.stack(list(train.present.values())).all(0).sum()) if model == "jnf" else len(train)
    # JNF has two stages; the trainer keeps the last batch of an epoch.
    updates = budget if model == "jnf" else 2 * budget
    return polymnist.Task(
        systems=(model,),
        rows=str(folder / "rows.npz"),
        pictures=str(folder),
        seed=spec.training.seed,
        epochs=math.ceil(updates / math.ceil(rows / size)),
        features=next(iter(spec.modalities.values())).features,
        encoder_channels=CHANNELS,
        channels=tuple(reversed(CHANNELS)),
        batch_size=size,
        learning_rate=spec.training.learning_rate,
        **{"latent_dim": spec.latent_dim, **own},
    )


def write_rows(path: Path, train: Batch, test: Batch) -> None:
    """The views of both parts as bytes, and which are present in training."""
    arrays = {
        f"{name}_{part}": (batch.values[name] * 255).round().to(torch.uint8).numpy()
        for part, batch in (("train", train), ("test", test))
        for name in polymnist.VIEWS
    }
    arrays |= {f"present_{part}": present(batch) for part, batch in (("train", train), ("test", test))}
    np.savez(path, allow_pickle=False, **arrays)


def present(batch: Batch) -> np.ndarray:
    """Presence of the views, shape (B, M)."""
    return torch.stack([batch.present[name] for name in polymnist.VIEWS], 1).numpy()


def figures_of_pictures(path: Path, panel: Panel, test: Batch) -> dict[str, Any]:
    """Coherence, variety and agreement by the number given, of a file of pictures."""
    drawn: dict[str, dict[str, torch.Tensor]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            kind, given, view = key.split("/")
            if kind == "shared":
                drawn.setdefault(given, {})[view] = torch.from_numpy(arrays[key]).float() / 255
    judged: list[Judged] = []
    for given, images in drawn.items():
        rows = torch.arange(len(next(iter(images.values()))))
        judged += [(given.count("+") + 1, name, found) for name, found in panel.verdicts(images, rows, test).items()]
    together = [one for one in judged if not one[1]]
    return {"kinds": {"images": by_number([], panel.task, [one for one in judged if one[1]])}, "agreement": of_number(together)}
