"""A modality of a user's own that draws in every way that nothing of this library knows of: dropout, noise, and a distribution of torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributions, nn
from torch.nn import functional as F

import nbridge


class NoisyEncoder(nbridge.Encoder):
    """Noise, dropout and a nonlinearity with random slopes, at every call."""

    def __init__(self, shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.features = features
        self.network = nn.Sequential(nn.Linear(math.prod(shape), features), nn.Dropout(0.3), nn.RReLU())

    def forward(self, x: Tensor) -> Tensor:
        noisy = x.flatten(1) + 0.1 * torch.randn_like(x.flatten(1)) + torch.empty(x.shape[1]).normal_()
        return F.dropout(self.network(noisy), 0.1, training=True) + torch.zeros(self.features)


class OwnNormal(nbridge.Likelihood):
    """A normal distribution of unit scale."""

    def forward(self, raw: Tensor) -> distributions.Distribution:
        return distributions.Independent(distributions.Normal(raw, torch.ones(raw.shape)), len(self.shape))
