"""Shared code of both libraries' runners: a task as JSON, the parts of every model, and generated images in a file."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nbridge.nn.decoders import ConvDecoder
from nbridge.nn.encoders import ConvEncoder, Encoder, MLPEncoder

VIEWS = tuple(f"view{number}" for number in range(5))
SHAPE = (3, 14, 14)
"""A view at half resolution: digits stay readable, at a quarter of the cost."""

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One process's work: models that are trained, and files with the pictures that they generate.

    Arguments:
        systems: Their names; those of one process share their first stage.
        rows: The .npz file with views, masks and statistics.
        pictures: The folder for SYSTEM.npz.
        seed: Seed of weights, training and draws.
        epochs: Epochs of the stage that trains encoders and decoders, and of the next one; models without a second stage get twice as many.
        latent_dim: Dimension of z.
        encoder_hidden: Width of the hidden layer of encoders.
        encoder_channels: Of encoders with convolutions, in the place of those with a hidden layer.
        features: Width of what encoders give.
        hidden: Width of the layer behind all features.
        channels: Of the decoders' transposed convolutions.
        scale: The spread of the Laplace likelihood, in units of each pixel's standard deviation.
        beta: The weight of MMVAE+'s KL term.
        shape: The shape of a view.
        batch_size: Rows of a step.
        learning_rate: Adam's.
    """

    systems: tuple[str, ...] = ()
    rows: str = ""
    pictures: str = ""
    seed: int = 0
    epochs: int = 8
    latent_dim: int = 160
    encoder_hidden: int = 128
    encoder_channels: tuple[int, ...] = ()
    features: int = 64
    hidden: int = 256
    channels: tuple[int, ...] = (32,)
    scale: float = 0.3
    beta: float = 1.0
    shape: tuple[int, int, int] = SHAPE
    batch_size: int = 128
    learning_rate: float = 2e-3

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    def encoder(self) -> Encoder:
        if self.encoder_channels:
            return ConvEncoder(self.shape, self.features, channels=self.encoder_channels)
        return MLPEncoder(self.shape, self.features, hidden=(self.encoder_hidden,))

    def decoder(self) -> ConvDecoder:
        return ConvDecoder(self.latent_dim, self.shape, channels=self.channels)

    def read(self, part: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Colours in [0, 1], zeros where absent, and which rows have each view."""
        with np.load(self.rows) as arrays:
            values = {name: torch.from_numpy(arrays[f"{name}_{part}"]).float() / 255 for name in VIEWS}
            present = torch.from_numpy(arrays[f"present_{part}"])
        return values, dict(zip(VIEWS, present.T.contiguous(), strict=True))


def subsets() -> list[Subset]:
    """Five sets of each size from 1 to 4: neighbours on a circle, so that every view is in the same number of sets."""
    return [
        tuple(VIEWS[(start + step) % len(VIEWS)] for step in range(size)) for size in range(1, len(VIEWS)) for start in range(len(VIEWS))
    ]


def keep_pictures(path: Path, generate: Callable[[Subset, Sequence[str]], Mapping[str, Tensor]], *, rebuilt: bool = False) -> None:
    """Writes the absent views for each subset: of one draw, and where one view is given also each of a draw of its own.

    Arguments:
        path: The .npz file.
        generate: Colours, shape (B, 3, H, W), of the views asked for, from one new draw given a subset.
        rebuilt: Whether to write all views given all of them as well.
    """
    arrays = {}
    for given in [*subsets(), VIEWS] if rebuilt else subsets():
        absent = [name for name in VIEWS if name not in given] or list(VIEWS)
        drawn = dict(generate(given, absent))
        found = {"shared": drawn}
        if len(given) == 1:
            found["own"] = {name: generate(given, [name])[name] for name in absent}
        arrays |= {f"{kind}/{'+'.join(given)}/{name}": _levels(x) for kind, views in found.items() for name, x in views.items()}
    np.savez(path, allow_pickle=False, **arrays)


def device_name() -> str:
    """The default device: the first GPU, or else the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def serve(tasks: Callable[[Task], None]) -> None:
    """Runs the task in the first argument, on one thread."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")  # bfloat16 if the CPU supports it, in both libraries
    raw: dict[str, Any] = json.loads(sys.argv[1])
    lists: dict[str, Any] = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    tasks(Task(**{**raw, **lists}))


def _levels(colours: Tensor) -> np.ndarray:
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
