r"""MVAE: a product of experts, trained on sampled subsets of modalities so that it serves any of them.

The posterior given a subset is the product of the prior and an expert for each of its modalities,

.. math:: q(z \mid x_S) \propto p(z) \prod_{i \in S} q_i(z \mid x_i), \qquad p(z) = \mathcal{N}(0, I)

and the objective is the sum of the ELBOs of all modalities, of each modality alone, and of k random subsets per step:

.. math::
    \max \; \mathrm{ELBO}(x_M) + \sum_i \mathrm{ELBO}(x_i) + \sum_{j=1}^{k} \mathrm{ELBO}(x_{S_j}), \qquad
    \mathrm{ELBO}(x_S) = \mathbb{E}_{q(z \mid x_S)} \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big]
    - \beta \, \mathrm{KL}(q(z \mid x_S) \,\|\, p(z))

with beta annealed from 0 to 1 (``training.kl_annealing``) and a weight for each modality. In incomplete rows, each term uses the observed
modalities of its subset. With one modality there is a single term, that of a VAE.

References:
    Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu & Goodman, 2018), https://arxiv.org/abs/1802.05335

Axes: S subsets, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.models.base import Decoders, Encoders, Features, Weights
from nbridge.models.experts import Experts, Heads
from nbridge.models.reductions import divisor, masked_mean
from nbridge.nn.distributions import log_variance_normal, product_of_experts
from nbridge.spec.option_types import Count


class MVAE(Experts):
    """A VAE whose posterior is the product of the prior and an expert for each observed modality.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        heads: The expert of each modality, a fusion of its features alone.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        random_subsets: The number k of random subsets per step, each of at least two modalities but not all.
    """

    def __init__(self, encoders: Encoders, decoders: Decoders, heads: Heads, weights: Weights = None, *, random_subsets: Count = 1) -> None:
        super().__init__(encoders, decoders, heads, weights)
        self.random_subsets = random_subsets

    def combined(self, q: Independent, present: Tensor) -> Independent:
        return log_variance_normal(*product_of_experts(q.mean, 2 * q.stddev.log(), present))

    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        subsets = self._subsets().to(batch.device)
        present = subsets[..., None] & self.presence(batch)
        q = self.combined(self.unimodal(self.encode(batch)), present)
        z, rows = q.rsample(), present.any(1)
        # Computed once over all subsets: processes draw different subsets, equally many in total but not per modality.
        number = divisor(rows)
        terms = {}
        for index, name in enumerate(self.names):
            members = subsets[:, index]
            log_prob = -self.weights[name] * self.log_prob(name, z[members], batch)
            terms[name] = masked_mean(log_prob, rows[members], number[members])
        return terms | {"kl": kl_weight * masked_mean(self.kl_to_prior(q), rows, number)}

    def _subsets(self) -> Tensor:
        """All modalities, each alone, and k random subsets: boolean, shape (S, M)."""
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
