r"""A model small enough to follow by hand, and the formulas in numpy, which know nothing of the library.

There are two vectors of reals and a class, a latent dimension of two, linear decoders, and encoders whose features *are* a posterior: a
modality's four numbers (one-hot for the class) times the encoder's factor are the mean and the log-variance, and a fusion adds its
modalities up. Every encoder has a factor of its own, so that no network can pass for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_normal
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Categorical, Likelihood, Normal

D, ROWS, CERTAIN = 2, 5, -60.0
NAMES = ("a", "b", "c")
NOISE = {"a": 0.5, "b": 2.0}
WEIGHTS = {"a": 1.0, "b": 0.5, "c": 10.0}
INCOMPLETE = {"a": [1, 1, 0, 0, 1], "b": [1, 1, 1, 0, 0], "c": [1, 0, 1, 0, 1]}


class Reading(Encoder):
    """The values themselves, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.features, self.factor = 2 * D, nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.double() * self.factor


class Adding(nn.Module):
    """The sum of the features is a mean and a log-variance, to which the latter a number is added."""

    def __init__(self, log_variance: float = 0.0) -> None:
        super().__init__()
        self.latent_dim = D
        self.log_variance = nn.Parameter(torch.tensor(log_variance, dtype=torch.float64))

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        loc, log_variance = torch.stack(list(features.values())).sum(0).chunk(2, -1)
        return diagonal_normal(loc, ((log_variance + self.log_variance) / 2).exp())


class Parts:
    """Fresh parts; the encoders' factors are 0.5, 0.6, ... in the order in which they are made.

    With the log-variance `CERTAIN` added, z is the posterior's mean, to 13 digits, whatever the noise.
    """

    def __init__(self, log_variance: float = 0.0) -> None:
        self.factors, self.log_variance = (0.5 + 0.1 * i for i in count()), log_variance

    def encoders(self, names: Iterable[str] = NAMES) -> dict[str, Encoder]:
        return {name: Reading(next(self.factors)) for name in names}

    def head(self) -> Adding:
        return Adding(self.log_variance)

    def decoders(self) -> dict[str, Decoder]:
        generator = torch.Generator().manual_seed(3)
        likelihoods: dict[str, Likelihood] = {
            name: Normal((2 * D,), scale=NOISE[name], standardize=False) if name in NOISE else Categorical((2 * D,)) for name in NAMES
        }
        decoders = {name: Decoder(nn.Linear(D, 2 * D, dtype=torch.float64), likelihood) for name, likelihood in likelihoods.items()}
        for decoder in decoders.values():
            for parameter in decoder.parameters():
                nn.init.normal_(parameter, generator=generator)
        return {name: decoder.double() for name, decoder in decoders.items()}


def rows(present: Mapping[str, Iterable[int]] | None = None) -> Batch:
    """Five rows; their values are representable in float32, to which the library brings them, and all that follows is in float64."""
    rng = np.random.default_rng(4)
    values = {name: torch.as_tensor(rng.normal(size=(ROWS, 4)).astype(np.float32)) for name in ("a", "b")}
    values["c"] = torch.as_tensor(rng.integers(4, size=ROWS))
    masks = {name: torch.tensor(list((present or {}).get(name, [1] * ROWS)), dtype=torch.bool) for name in NAMES}
    return Batch(values, masks)


def stage(model: MultimodalVAE, name: str) -> Stage:
    return {stage.name: stage for stage in model.stages()}[name]


def losses(model: MultimodalVAE, name: str, batch: Batch, kl_weight: float = 1.0, seed: int = 0) -> dict[str, float]:
    """The terms of a stage's loss, from a seed."""
    prepared = model.prepare(batch)
    torch.manual_seed(seed)
    return {term: loss.item() for term, loss in stage(model, name).loss(prepared, {}, kl_weight).items()}


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradients that a loss leaves, by parameter, of those that get one."""
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


# The formulas, in numpy


def standard_forms(batch: Batch) -> dict[str, np.ndarray]:
    """Shape (B, 4) by modality, zero where it is absent."""
    forms = {name: batch.values[name].double().numpy() for name in ("a", "b")} | {"c": np.eye(4)[batch.values["c"].numpy()]}
    return {name: x * batch.present[name].numpy()[:, None] for name, x in forms.items()}


def gaussian(x: Mapping[str, np.ndarray], factors: Mapping[str, float], log_variance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance, shape (B, D), of the modalities that have a factor."""
    raw = sum(factor * x[name] for name, factor in factors.items())
    return raw[:, :D], raw[:, D:] + log_variance


def log_prob(model: MultimodalVAE, name: str, z: np.ndarray, batch: Batch) -> np.ndarray:
    """log p(x_i | z), shape (B,), of z of shape (B, D)."""
    weight, bias = (parameter.detach().numpy() for parameter in model.decoders[name].network.parameters())
    raw, x = z @ weight.T + bias, batch.values[name].double().numpy()
    if name == "c":
        return raw[np.arange(len(x)), x.astype(int)] - np.log(np.exp(raw).sum(1))
    return (-0.5 * ((x - raw) / NOISE[name]) ** 2 - np.log(NOISE[name]) - 0.5 * np.log(2 * np.pi)).sum(1)


def divergence(
    loc: np.ndarray, log_variance: np.ndarray, other_loc: np.ndarray | float = 0.0, other_log_variance: np.ndarray | float = 0.0
) -> np.ndarray:
    """KL between two diagonal Gaussians, the second the prior when left out, shape (B,)."""
    ratio = np.exp(log_variance - other_log_variance)
    return 0.5 * (ratio + (loc - other_loc) ** 2 / np.exp(other_log_variance) - 1 - log_variance + other_log_variance).sum(-1)
