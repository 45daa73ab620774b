r"""The bridged VAE with a stochastic bridge: one joint model, and a flow that draws the features of whatever is absent.

Stage ``joint`` is that of every bridged model. Stage ``bridges`` freezes it and trains a flow on its features
(`nbridge.flow_bridge.FlowBridge`), on every row in which two modalities or more are present: of what a row has, O, a random part S is
given and the rest is to be drawn,

.. math:: |S| \sim U\{1, \dots, |O| - 1\}, \qquad S \subset O, \qquad A = O \setminus S

The posterior is then a mixture with as many parts as draws, from which every absent modality is decoded together:

.. math:: q(z \mid x_S) = \mathbb{E}_{\hat{h}_A \sim p(h_A \mid h_S)} \big[ \mathrm{Fuse}(h_S, \hat{h}_A) \big]

If the flow has the data's conditional distribution, this is the mean of the joint posteriors :math:`q(z \mid x_M)` over the rows that
agree in :math:`x_S`, the very distribution that JMVAE fits a Gaussian to. Each draw :math:`z_k` comes from a Gaussian of its own,
:math:`q_k`, whatever the flow's density, so :math:`p(x_S, z_k) / q_k(z_k)` is an unbiased weight of importance for every k.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.annotations import NonNegativeFloat
from nbridge.batch import Batch
from nbridge.decoders import Decoder
from nbridge.distributions import diagonal_normal
from nbridge.encoders import Encoder
from nbridge.flow_bridge import FlowBridge
from nbridge.fusion import Fusion
from nbridge.means import masked_mean
from nbridge.models.base import Features, Stage
from nbridge.models.joint import JointVAE
from nbridge.models.parts import Parts
from nbridge.subsets import random_part


class FlowBridgedVAE(JointVAE):
    """A joint VAE whose missing features are drawn by a flow.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        bridges: Draws the features of absent modalities.
        weights: The weight of each modality's log-likelihood in training; 1 where left out.
        coupling: As of `JointVAE`.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        fusion: Fusion,
        bridges: FlowBridge,
        weights: Mapping[str, float] | None = None,
        *,
        coupling: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(encoders, decoders, fusion, weights, coupling=coupling)
        self.bridges = bridges
        self.noise_width = len(bridges.loc)

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        joint, bridges = cls.joint_parts(parts), parts.bridges()
        if not isinstance(bridges, FlowBridge):
            raise TypeError(f"bridges are a {type(bridges).__name__}, expected a FlowBridge")
        return cls(*joint, bridges, parts.weights, **options)

    # Serving

    def infer(self, batch: Batch) -> Independent:
        """One part of the mixture, drawn anew at every call."""
        q = self._draws(batch, 1)
        return diagonal_normal(q.mean[0], q.stddev[0])

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """K parts of q(z | what is present), batch shape (K, B) over D, each from features of its own; the prior where nothing is present.

        Arguments:
            batch: Rows with any pattern of presence.
            samples: The number K.
        """
        return self._parts(batch, samples)

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        return self._parts(batch, len(noise), noise)

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:
        return self.fusion(self.bridges.draw_by_masks(self.encode_inputs(inputs), present, noise))

    def _parts(self, batch: Batch, samples: int, noise: Tensor | None = None) -> Independent:
        batch = self.prepare(batch)
        some, q = self.presence(batch).any(0)[:, None], self._draws(batch, samples, noise)
        return diagonal_normal(torch.where(some, q.mean, 0.0), torch.where(some, q.stddev, 1.0))

    def _draws(self, batch: Batch, samples: int, noise: Tensor | None = None) -> Independent:
        return self.fusion(self.bridges.draw(self.encode(batch), self.presence(batch), samples, noise))

    # Training

    def stages(self) -> tuple[Stage, ...]:
        if len(self.names) == 1:
            return (self.joint_stage(),)
        bridges = Stage("bridges", (self.bridges,), self._flow_loss, self._several, self.encode, values=(), begin=self._standardise)
        return self.joint_stage(), bridges

    def _several(self, batch: Batch) -> Tensor:
        """The rows in which two modalities or more are present."""
        return self.presence(batch).sum(0) >= 2

    def _standardise(self, parts: Iterable[tuple[Batch, Features]]) -> None:
        self.bridges.standardise((features, batch.present) for batch, features in parts)

    def _flow_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        present = self.presence(batch)
        given = random_part(present)
        return {"flow": masked_mean(self.bridges.loss(features, given, present & ~given), present.sum(0) >= 2)}
