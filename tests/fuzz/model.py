"""Damaged model folders: bytes and trees of the configuration, and bytes, headers and numbers of the tensors."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import nbridge
from nbridge.data.batch import Batch

from .mutations import as_json, changed, damaged
from .rows import ROWS, model_of, small

SHAPES = {"x": {"shape": 3, "likelihood": "normal"}, "kind": {"shape": 3, "likelihood": "categorical"}}


@functools.cache
def rows() -> Batch:
    """Rows that a whole model imputes."""
    rng = np.random.default_rng(0)
    values = {"x": torch.tensor(rng.normal(size=(ROWS, 3)), dtype=torch.float32), "kind": torch.tensor(rng.integers(0, 3, ROWS))}
    return Batch(values, {name: torch.tensor(rng.random(ROWS) < 0.7) for name in values})


@functools.cache
def whole(folder: Path) -> Path:
    """A whole model folder."""
    np.savez(folder / "base.npz", **{name: value.numpy() for name, value in rows().values.items()})
    model_of(small(SHAPES, {"source": "npz", "path": str(folder / "base.npz")})).save(folder / "model")
    return folder / "model"


def prepare(folder: Path) -> None:
    """Saves the model."""
    whole(folder)


def case(rng: Random, folder: Path) -> None:
    """Loads a damaged model and imputes rows with it."""
    target = Path(shutil.copytree(whole(folder.parent), folder / "model"))
    config, tensors = target / "config.json", target / "model.safetensors"
    match rng.randrange(5):
        case 0:
            config.write_bytes(damaged(rng, config.read_bytes()))
        case 1:
            config.write_bytes(as_json(changed(rng, json.loads(config.read_text(encoding="utf-8")))))
        case 2:
            tensors.write_bytes(damaged(rng, tensors.read_bytes()))
        case 3:
            tensors.write_bytes(with_header(rng, tensors.read_bytes()))
        case _:
            gone = rng.choice((config, tensors))
            gone.unlink()
            if rng.random() < 0.5:
                gone.mkdir()
    loaded = nbridge.load(target)
    assert all(bool(tensor.isfinite().all()) for tensor in loaded.network.state_dict().values()), "weights that are not finite"
    done = loaded.impute(rows())
    for name, values in rows().values.items():
        there = rows().present[name]
        assert torch.equal(done.values[name][there], values[there]), "an observed value has changed"


def with_header(rng: Random, content: bytes) -> bytes:
    """A file of tensors whose header is changed and of the right length."""
    size = int.from_bytes(content[:8], "little")
    header: Any = changed(rng, json.loads(content[8 : 8 + size]))
    text = as_json(header)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
