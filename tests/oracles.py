r"""A multimodal model whose every density has a closed form, in float64, and a real model of this library, of any kind, that equals it.

.. math:: z \sim \mathcal{N}(0, I), \qquad x_i = W_i z + b_i + \varepsilon_i, \qquad \varepsilon_i \sim \mathcal{N}(0, s_i^2 I)

Posteriors are diagonal, as the library's are, exactly when the columns of every :math:`W_i` are orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE
from nbridge.models.bivcca import BiVCCA
from nbridge.models.bridged import BridgedVAE
from nbridge.models.jmvae import JMVAE
from nbridge.models.joint import JointVAE
from nbridge.models.mvae import MVAE
from nbridge.models.retrofit import InferenceNetwork
from nbridge.models.subsets import proper_subsets
from nbridge.models.telbo import TELBO
from nbridge.nn.bridges import BridgeBank
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_normal
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Normal


@dataclass(frozen=True)
class LinearGaussian:
    """Loadings W of shape (d_i, D), offsets b of shape (d_i,) and noise s by modality."""

    loadings: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]
    noise: Mapping[str, float]

    @classmethod
    def random(cls, sizes: Mapping[str, int], latent_dim: int, seed: int, *, diagonal: bool = True) -> LinearGaussian:
        rng = np.random.default_rng(seed)
        loadings = {name: rng.normal(size=(size, latent_dim)) for name, size in sizes.items()}
        if diagonal:
            loadings = {name: _orthogonal_columns(W, rng) for name, W in loadings.items()}
        return cls(loadings, {name: rng.normal(size=size) for name, size in sizes.items()}, {name: rng.uniform(0.3, 1.5) for name in sizes})

    @property
    def latent_dim(self) -> int:
        return next(iter(self.loadings.values())).shape[1]

    def sample(self, rows: int, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(rows, self.latent_dim))
        return {
            name: z @ W.T + self.offsets[name] + self.noise[name] * rng.normal(size=(rows, len(W))) for name, W in self.loadings.items()
        }

    def posterior(self, x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean, shape (D,), and covariance, shape (D, D), of z given the modalities of one row."""
        precision, pull = np.eye(self.latent_dim), np.zeros(self.latent_dim)
        for name, value in x.items():
            scaled = self.loadings[name] / self.noise[name] ** 2
            precision = precision + self.loadings[name].T @ scaled
            pull = pull + scaled.T @ (value - self.offsets[name])
        covariance = np.linalg.inv(precision)
        return covariance @ pull, covariance

    def log_prob(self, x: Mapping[str, np.ndarray]) -> float:
        """log p(x_S) of the modalities of one row, from the marginal Gaussian and not from the posterior."""
        mean, covariance = self._marginal(x)
        return float(stats.multivariate_normal(mean, covariance).logpdf(np.concatenate(list(x.values()))))

    def conditional(self, targets: Iterable[str], x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of x_A given x_S for one row, by conditioning the joint Gaussian of both."""
        targets = list(targets)
        mean, covariance = self._marginal([*targets, *x])
        a = sum(len(self.loadings[name]) for name in targets)
        if not x:
            return mean, covariance
        gain = np.linalg.solve(covariance[a:, a:], covariance[a:, :a]).T
        observed = np.concatenate(list(x.values()))
        return mean[:a] + gain @ (observed - mean[a:]), covariance[:a, :a] - gain @ covariance[a:, :a]

    def _marginal(self, names: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        names = list(names)
        W = np.concatenate([self.loadings[name] for name in names])
        spread = np.concatenate([np.full(len(self.loadings[name]), self.noise[name] ** 2) for name in names])
        return np.concatenate([self.offsets[name] for name in names]), W @ W.T + np.diag(spread)


def _orthogonal_columns(W: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Columns that are orthogonal; where there are more columns than rows, the rest are zero, in a random order."""
    size, latent_dim = W.shape
    rank = min(size, latent_dim)
    orthogonal = np.zeros_like(W)
    orthogonal[:, rng.permutation(latent_dim)[:rank]] = np.linalg.qr(W[:, :rank])[0] * rng.uniform(0.5, 2.0, rank)
    return orthogonal


class EvidenceEncoder(Encoder):
    r"""What x says about z: the pull :math:`W^\top (x - b) / s^2` and the precision :math:`\mathrm{diag}(W^\top W) / s^2`."""

    def __init__(self, W: np.ndarray, b: np.ndarray, s: float) -> None:
        super().__init__()
        self.features = 2 * W.shape[1]
        self.register_buffer("matrix", torch.as_tensor(W / s**2))
        self.register_buffer("offset", torch.as_tensor(b))
        self.register_buffer("precision", torch.as_tensor((W**2).sum(0) / s**2))

    def forward(self, x: Tensor) -> Tensor:
        pull = (x.to(self.matrix) - self.offset) @ self.matrix
        return torch.cat([pull, self.precision.expand_as(pull)], -1)


class SumOfEvidence(nn.Module):
    """The exact posterior: the prior's precision and all evidence. A modality whose features are zero says nothing."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        pull, precision = torch.stack(list(features.values())).sum(0).chunk(2, -1)
        return diagonal_normal(pull / (1 + precision), (1 + precision).rsqrt())


class EvidenceAlone(SumOfEvidence):
    """The evidence without the prior, an expert; where there is none, a Gaussian of variance 1e12."""

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        pull, precision = torch.stack(list(features.values())).sum(0).chunk(2, -1)
        precision = precision.clamp(min=1e-12)
        return diagonal_normal(pull / precision, precision.rsqrt())


def exact_model(oracle: LinearGaussian, kind: str = "bridged", **options: Any) -> MultimodalVAE:
    """A model of a kind, float64, whose decoders and posteriors are the oracle's."""
    assert all(np.allclose(G := W.T @ W, np.diag(np.diag(G))) for W in oracle.loadings.values()), "posteriors must be diagonal"
    decoders = {}
    for name, W in oracle.loadings.items():
        network = nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64)
        network.load_state_dict({"weight": torch.as_tensor(W), "bias": torch.as_tensor(oracle.offsets[name])})
        decoders[name] = Decoder(network, Normal((len(W),), scale=float(oracle.noise[name]), standardize=False))
    return EXACT[kind](oracle, decoders, **options).double().eval()


def _encoders(oracle: LinearGaussian, names: Iterable[str] | None = None) -> dict[str, Encoder]:
    return {
        name: EvidenceEncoder(oracle.loadings[name], oracle.offsets[name], oracle.noise[name])
        for name in (oracle.loadings if names is None else names)
    }


def _bridged(oracle: LinearGaussian, decoders: Mapping[str, Decoder], **options: Any) -> BridgedVAE:
    """Its bridges say nothing."""
    encoders = _encoders(oracle)
    bridges = BridgeBank({name: encoder.features for name, encoder in encoders.items()}, hidden=(), batch_norm=False)
    for parameter in bridges.parameters():
        nn.init.zeros_(parameter)
    return BridgedVAE(encoders, decoders, SumOfEvidence(oracle.latent_dim), bridges, **({"objective": {"elbo": 1.0}} | options))


def _retrofit(kind: type[JMVAE] | type[TELBO], oracle: LinearGaussian, decoders: Mapping[str, Decoder], **options: Any) -> MultimodalVAE:
    networks = {
        subset: InferenceNetwork(_encoders(oracle, subset), SumOfEvidence(oracle.latent_dim)) for subset in proper_subsets(oracle.loadings)
    }
    return kind(_encoders(oracle), decoders, SumOfEvidence(oracle.latent_dim), networks, **options)


EXACT: dict[str, Callable[..., MultimodalVAE]] = {
    "bridged": _bridged,
    "joint": lambda oracle, decoders: JointVAE(_encoders(oracle), decoders, SumOfEvidence(oracle.latent_dim)),
    "jmvae": lambda *parts, **options: _retrofit(JMVAE, *parts, **options),
    "telbo": lambda *parts, **options: _retrofit(TELBO, *parts, **options),
    "mvae": lambda oracle, decoders, **options: MVAE(
        _encoders(oracle), decoders, {name: EvidenceAlone(oracle.latent_dim) for name in decoders}, **options
    ),
    "bivcca": lambda oracle, decoders, **options: BiVCCA(
        _encoders(oracle), decoders, {name: SumOfEvidence(oracle.latent_dim) for name in decoders}, **options
    ),
}


REPEATS = 40
"""Means of the loss that a standard error is taken from."""


def repeated(oracle: LinearGaussian, seed: int, draws: int = 250) -> tuple[dict[str, np.ndarray], Batch]:
    """One row of the oracle, and a batch that holds it again and again: the mean of a loss is one over draws of z."""
    x = {name: value[0].astype(np.float32).astype(np.float64) for name, value in oracle.sample(1, seed).items()}
    return x, Batch.complete({name: torch.as_tensor(value).expand(draws, -1) for name, value in x.items()})


@torch.no_grad()
def mean_loss(model: MultimodalVAE, stage: str, batch: Batch, terms: Iterable[str] | None = None) -> tuple[float, float]:
    """The mean of a stage's loss, or of some of its terms, over draws of z, and its standard error."""
    loss, prepared = {each.name: each.loss for each in model.stages()}[stage], model.prepare(batch)
    torch.manual_seed(0)
    drawn = [loss(prepared, {}, 1.0) for _ in range(REPEATS)]
    sums = torch.stack([sum(each[name] for name in (each if terms is None else terms)) for each in drawn])
    return sums.mean().item(), sums.std().item() / REPEATS**0.5
