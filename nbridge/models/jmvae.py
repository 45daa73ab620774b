r"""JMVAE: a joint VAE whose subset posteriors are drawn towards the joint one while it trains.

.. math::
    \max \; \mathrm{ELBO}(x_M) - \alpha \sum_{\emptyset \neq S \subsetneq M} \mathrm{KL}(q(z \mid x_M) \,\|\, q_S(z \mid x_S))

With two modalities this is equation 7 of the paper, with alpha 0 the joint VAE. The divergence reaches the joint encoder too: alpha trades
its evidence for posteriors that a single modality can follow.

References:
    Joint Multimodal Learning with Deep Generative Models (Suzuki, Nakayama & Matsuo, 2016), https://arxiv.org/abs/1611.01891
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nbridge.annotations import NonNegativeFloat
from nbridge.batch import Batch
from nbridge.decoders import Decoder
from nbridge.distributions import diagonal_kl
from nbridge.encoders import Encoder
from nbridge.fusion import Fusion
from nbridge.models.base import Features, Stage
from nbridge.models.retrofit import InferenceNetwork, Retrofit, Subset


class JMVAE(Retrofit):
    """A joint VAE with subset posteriors that minimise their divergence from the joint one.

    Arguments:
        encoders: The joint posterior's encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the joint posterior.
        networks: An inference network for each nonempty proper subset of the modalities.
        weights: The weight of each modality's log-likelihood in training; 1 where left out.
        alpha: The weight of the divergences between joint and subset posteriors.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        fusion: Fusion,
        networks: Mapping[Subset, InferenceNetwork],
        weights: Mapping[str, float] | None = None,
        *,
        alpha: NonNegativeFloat = 0.1,
    ) -> None:
        super().__init__(encoders, decoders, fusion, networks, weights)
        self.alpha = alpha

    def stages(self) -> tuple[Stage, ...]:
        modules = (self.encoders, self.fusion, self.decoders, *((self.networks,) if self.alpha else ()))
        return (Stage("joint", modules, self._loss, lambda batch: self.presence(batch).all(0)),)

    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        inputs = self.inputs(batch)
        q = self.fusion(self.encode_inputs(inputs))
        terms = self.negative_elbo(q, batch, kl_weight)
        if self.alpha and self.subsets:
            divergences = [diagonal_kl(q, self.subset_posterior(subset, inputs)).mean() for subset in self.subsets]
            terms["subsets.divergence"] = self.alpha * torch.stack(divergences).sum()
        return terms
