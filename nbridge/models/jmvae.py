r"""JMVAE: a joint VAE that is trained together with subset posteriors close to the joint one.

.. math::
    \max \; \mathrm{ELBO}(x_M) - \alpha \sum_{\emptyset \neq S \subsetneq M} \mathrm{KL}(q(z \mid x_M) \,\|\, q_S(z \mid x_S))

For a row in which only O is observed, O takes the place of M, with the subset posterior :math:`q_O`:

.. math:: \max \; \mathrm{ELBO}(x_O) - \alpha \sum_{\emptyset \neq S \subsetneq O} \mathrm{KL}(q_O(z \mid x_O) \,\|\, q_S(z \mid x_S))

With two modalities this is equation 7 of the paper; with alpha 0 it is the joint VAE. The divergence also trains the joint encoder: alpha
trades its ELBO for a posterior that single modalities can match.

References:
    Joint Multimodal Learning with Deep Generative Models (Suzuki, Nakayama & Matsuo, 2016), https://arxiv.org/abs/1611.01891
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, Features, Stage, Weights
from nbridge.models.retrofit import Networks, Retrofit
from nbridge.models.subsets import Subset
from nbridge.nn.distributions import diagonal_kl, diagonal_where
from nbridge.nn.fusion import Fusion
from nbridge.spec.option_types import NonNegativeFloat


class JMVAE(Retrofit):
    """A joint VAE with subset posteriors trained to match the joint one.

    Arguments:
        encoders: The joint posterior's encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the joint posterior.
        networks: An inference network for each nonempty proper subset of the modalities.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        alpha: The weight of the divergences between joint and subset posteriors.
    """

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, networks: Networks, weights: Weights = None,
        *, alpha: NonNegativeFloat = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(encoders, decoders, fusion, networks, weights)
        self.alpha = alpha

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """See `Retrofit.supports_pattern`; with alpha 0, the network of a subset learns only from rows with exactly this subset."""
        return super().supports_pattern(pattern, seen) if self.alpha else pattern in seen.rows

    def stages(self) -> tuple[Stage, ...]:
        modules = (self.encoders, self.fusion, self.decoders, *((self.networks,) if self.subsets else ()))
        return (Stage("joint", modules, self._loss, self._observed),)

    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        inputs = self.inputs(batch)
        q = self.fusion(self.encode_inputs(inputs))
        subsets = {subset: self.subset_posterior(subset, inputs) for subset in self.subsets} if self.alpha or not batch.whole else {}
        matching = {} if batch.whole else {subset: self._matches(subset, self.presence(batch)) for subset in subsets}
        for subset, rows in matching.items():
            q = diagonal_where(rows, subsets[subset], q)
        terms = self.negative_elbo(q, batch, kl_weight)
        if self.alpha and self.subsets:
            divergences = [self._divergence(q, subset, posterior, batch, matching.get(subset)) for subset, posterior in subsets.items()]
            terms["subsets.divergence"] = self.alpha * torch.stack(divergences).sum()
        return terms

    def _divergence(self, q: Independent, subset: Subset, posterior: Independent, batch: Batch, matching: Tensor | None) -> Tensor:
        """The mean over all rows; rows without a proper superset of ``subset`` contribute 0."""
        divergence = diagonal_kl(q, posterior)
        if matching is None:
            return divergence.mean()
        has_all = torch.stack([batch.present[name] for name in subset]).all(0)
        return torch.where(has_all & ~matching, divergence, 0.0).mean()
