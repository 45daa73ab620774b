r"""MVAE: a product of experts, trained on sub-sampled evidence so that it serves any subset of modalities.

The posterior of a subset multiplies the prior with an expert for each modality in it,

.. math:: q(z \mid x_S) \propto p(z) \prod_{i \in S} q_i(z \mid x_i), \qquad p(z) = \mathcal{N}(0, I)

and the objective adds up the ELBOs of the whole row, of each modality alone, and of k subsets drawn at random at every step:

.. math::
    \max \; \mathrm{ELBO}(x_M) + \sum_i \mathrm{ELBO}(x_i) + \sum_{j=1}^{k} \mathrm{ELBO}(x_{S_j}), \qquad
    \mathrm{ELBO}(x_S) = \mathbb{E}_{q(z \mid x_S)} \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big]
    - \beta \, \mathrm{KL}(q(z \mid x_S) \,\|\, p(z))

with beta annealed from 0 to 1 (``training.kl_annealing``) and a weight for each modality. Of a row that is incomplete each term takes what
is present. With one modality there is one term, that of a VAE.

References:
    Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu & Goodman, 2018), https://arxiv.org/abs/1802.05335

Axes: S subsets, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.models.base import Features, Stage
from nbridge.models.experts import Experts
from nbridge.models.reductions import divisor, masked_mean
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_normal, product_of_experts
from nbridge.nn.encoders import Encoder
from nbridge.nn.fusion import Fusion
from nbridge.spec.option_types import Count


class MVAE(Experts):
    """A VAE whose posterior is the product of the prior and an expert for each modality present.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        heads: The expert of each modality, a fusion of its features alone.
        weights: The weight of each modality's log-likelihood in training; 1 where left out.
        random_subsets: The number k of subsets of two modalities or more, but not all, drawn at every step.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        heads: Mapping[str, Fusion],
        weights: Mapping[str, float] | None = None,
        *,
        random_subsets: Count = 1,
    ) -> None:
        super().__init__(encoders, decoders, heads, weights)
        self.random_subsets = random_subsets

    def combined(self, q: Independent, present: Tensor) -> Independent:
        loc, log_variance = product_of_experts(q.mean, 2 * q.stddev.log(), present)
        return diagonal_normal(loc, (log_variance / 2).exp())

    def stages(self) -> tuple[Stage, ...]:
        modules = (self.encoders, self.heads, self.decoders)
        return (Stage("joint", modules, self._loss, lambda batch: self.presence(batch).any(0)),)

    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        subsets = self._subsets().to(batch.device)
        present = subsets[..., None] & self.presence(batch)
        q = self.combined(self.unimodal(self.encode(batch)), present)
        z, rows = q.rsample(), present.any(1)
        # One for all terms, over all subsets: processes that draw others have as many of them in all, if not of each modality.
        number = divisor(rows)
        terms = {}
        for index, name in enumerate(self.names):
            members = subsets[:, index]
            log_prob = -self.weights[name] * self.log_prob(name, z[members], batch)
            terms[name] = masked_mean(log_prob, rows[members], number[members])
        return terms | {"kl": kl_weight * masked_mean(self.kl_to_prior(q), rows, number)}

    def _subsets(self) -> Tensor:
        """All modalities, each alone, and k at random: boolean, shape (S, M)."""
        n = len(self.names)
        everything = torch.ones(1, n, dtype=torch.bool)
        if n == 1:
            return everything
        drawn = [self._random_subset(n) for _ in range(self.random_subsets if n > 2 else 0)]
        return torch.cat([everything, torch.eye(n, dtype=torch.bool), *drawn])

    @staticmethod
    def _random_subset(n: int) -> Tensor:
        size = randomness.randint(2, n)
        members = torch.zeros(1, n, dtype=torch.bool)
        members[0, randomness.randperm(n)[:size]] = True
        return members
