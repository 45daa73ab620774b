r"""The joint VAE: one encoder of all modalities, nothing more (equation 7; JMVAE-zero of Suzuki et al.).

.. math:: \max \; \mathbb{E}_{q(z \mid x_M)} \Big[ \sum_i w_i \log p(x_i \mid z) \Big] - \mathrm{KL}(q(z \mid x_M) \,\|\, p(z))

It is trained on complete rows and knows no way to serve others: what is absent enters its encoder as zeros, the crude remedy that the
other models are measured against. Their stage ``joint`` is this one.

References:
    | Joint Multimodal Learning with Deep Generative Models (Suzuki, Nakayama & Matsuo, 2016), https://arxiv.org/abs/1611.01891
    | Bridged Variational Autoencoders for Joint Modeling of Images and Attributes (Yadav et al., WACV 2020), equation 7
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor
from torch.distributions import Independent

from nbridge.batch import Batch
from nbridge.decoders import Decoder
from nbridge.encoders import Encoder
from nbridge.fusion import Fusion
from nbridge.models.base import Features, MultimodalVAE, Stage
from nbridge.models.parts import Parts


class JointVAE(MultimodalVAE):
    """A VAE of all modalities at once; absent ones enter its encoder as zeros.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        weights: The weight of each modality's log-likelihood in training; 1 where left out.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        fusion: Fusion,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(encoders, decoders, fusion.latent_dim, weights)
        self.fusion = fusion

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        return cls(*cls.joint_parts(parts), parts.weights, **options)

    @staticmethod
    def joint_parts(parts: Parts) -> tuple[dict[str, Encoder], dict[str, Decoder], Fusion]:
        """Encoders, decoders and the fusion of all modalities, made in this order whatever else a model has."""
        encoders = {name: parts.encoder(name) for name in parts.names}
        decoders = {name: parts.decoder(name) for name in parts.names}
        return encoders, decoders, parts.fusion(parts.names)

    def infer(self, batch: Batch) -> Independent:
        return self.fusion(self.encode(batch))

    def stages(self) -> tuple[Stage, ...]:
        return (self.joint_stage(),)

    def joint_stage(self) -> Stage:
        """Stage ``joint``: encoders, fusion and decoders learn from complete rows."""
        return Stage("joint", (self.encoders, self.fusion, self.decoders), self._joint_loss, self._complete)

    def _complete(self, batch: Batch) -> Tensor:
        """The rows in which every modality is present."""
        return self.presence(batch).all(0)

    def _joint_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        return self.negative_elbo(self.fusion(self.encode(batch)), batch, kl_weight)
