"""Damaged run folders of an interrupted training, which is resumed."""

from __future__ import annotations

import functools
import json
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import nbridge
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import CHECKPOINT, METRICS

from .model import with_header
from .mutations import as_json, changed, damaged
from .rows import ROWS

SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "model": "vae",
    "modalities": {"x": {"shape": 3, "features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal"}},
    "training": {"batch_size": 8, "checkpoint_seconds": 0, "stages": {"joint": {"epochs": 2}}},
}


class _Stop(Callback):
    """Interrupts training after its first epoch."""

    def on_warning(self, finding: object) -> None:
        """Says nothing."""

    def on_validation(self, record: EpochRecord) -> None:
        """Interrupts."""
        raise KeyboardInterrupt


@functools.cache
def halted(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """An interrupted run, and the weights that it ends with."""
    np.savez(folder / "base.npz", x=np.random.default_rng(0).normal(size=(2 * ROWS, 3)))
    spec = {**SPEC, "data": {"source": "npz", "path": str(folder / "base.npz")}}
    with suppress(KeyboardInterrupt):
        nbridge.train(spec, out=folder / "run", device="cpu", overwrite=True, callbacks=[_Stop()])
    shutil.copytree(folder / "run", folder / "whole", dirs_exist_ok=True)
    return folder / "run", nbridge.resume(folder / "whole", device="cpu").model.network.state_dict()


def prepare(folder: Path) -> None:
    """Makes the interrupted run."""
    halted(folder)


def case(rng: Random, folder: Path) -> None:
    """Resumes a run of which one file is damaged."""
    run, weights = halted(folder.parent)
    target = Path(shutil.copytree(run, folder / "run"))
    place = rng.choice((CHECKPOINT, CHECKPOINT, "env.json", "spec.resolved.yaml", "spec.yaml", METRICS))
    path = target / place
    content = path.read_bytes()
    match rng.randrange(4):
        case 0 if place == CHECKPOINT:
            path.write_bytes(with_header(rng, content))
        case 1 if place == "env.json":
            path.write_bytes(as_json(changed(rng, json.loads(content))))
        case 2:
            path.unlink()
        case _:
            path.write_bytes(damaged(rng, content))
    resumed = nbridge.resume(target, device="cpu")
    if place in ("spec.yaml", METRICS):
        found = resumed.model.network.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items()), "another model, though the checkpoint is whole"
