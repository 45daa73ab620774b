r"""Base class of MVAE and BiVCCA: one posterior :math:`q_i(z \mid x_i)` per modality, and no network over several modalities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, Features, MultimodalVAE, Stage, Weights
from nbridge.models.parts import Parts
from nbridge.nn.distributions import diagonal_normal
from nbridge.nn.fusion import Fusion

Heads = Mapping[str, Fusion]


class Experts(MultimodalVAE):
    """A VAE with a unimodal posterior for each modality.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        heads: For each modality, a fusion of its features alone.
        weights: The weight of each modality's log-likelihood in training; 1 by default.

    Raises:
        ValueError: if the heads do not match the modalities.
    """

    def __init__(self, encoders: Encoders, decoders: Decoders, heads: Heads, weights: Weights = None) -> None:
        super().__init__(encoders, decoders, next(iter(heads.values())).latent_dim, weights)
        if set(heads) != set(self.names):
            raise ValueError(f"heads of {sorted(heads)}, expected one for each of {', '.join(self.names)}")
        self.heads = nn.ModuleDict({name: heads[name] for name in self.names})

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        return cls(
            {name: parts.encoder(name) for name in parts.names}, {name: parts.decoder(name) for name in parts.names},
            {name: parts.fusion((name,)) for name in parts.names}, parts.weights, **options,
        )  # fmt: skip

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """A product of experts serves any set of modalities if every pair of them was observed together."""
        return pattern in seen.rows or ("1" in pattern and seen.pairwise(pattern))

    @abstractmethod
    def combined(self, q: Independent, present: Tensor) -> Independent:
        r"""The posterior given the modalities present, shape (\*, M, B), from all :math:`q_i(z \mid x_i)`, batch shape (M, B) over D."""

    @abstractmethod
    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:
        """The loss of stage ``joint``."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("joint", (self.encoders, self.heads, self.decoders), self._loss, self._observed),)

    def infer(self, batch: Batch) -> Independent:
        return self.combined(self.unimodal(self.encode(batch)), self.presence(batch))

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:  # noqa: ARG002 (of flows)
        return self.combined(self.unimodal(self.encode_inputs(inputs)), present)

    def unimodal(self, features: Features) -> Independent:
        """All q_i(z | x_i), batch shape (M, B) over D."""
        each = [self.heads[name]({name: features[name]}) for name in self.names]
        return diagonal_normal(torch.stack([q.mean for q in each]), torch.stack([q.stddev for q in each]))
