r"""BiVCCA: each unimodal posterior reconstructs all modalities, and the objective is a convex combination over the posteriors.

.. math::
    \max \; \sum_i \lambda_i \Big( \mathbb{E}_{q(z \mid x_i)} \Big[ \sum_j w_j \log p(x_j \mid z) \Big]
    - \mathrm{KL}(q(z \mid x_i) \,\|\, p(z)) \Big), \qquad \sum_i \lambda_i = 1

With two modalities :math:`\lambda = (\mu, 1 - \mu)` is the paper's. The paper defines no posterior given several modalities; nbridge uses
the product of the unimodal posteriors with the prior counted once, which is exact if those are.

References:
    Deep Variational Canonical Correlation Analysis (Wang, Yan, Lee & Livescu, 2016), https://arxiv.org/abs/1610.03454

Axes: M modalities (as sources), B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.models.base import Decoders, Encoders, Features, Weights
from nbridge.models.experts import Experts, Heads
from nbridge.models.reductions import divisor
from nbridge.nn.distributions import log_variance_normal, product_of_posteriors
from nbridge.spec.option_types import NonNegativeFloat


class BiVCCA(Experts):
    """A VAE in which each unimodal posterior reconstructs all modalities.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        heads: The posterior of each modality, a fusion of its features alone.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        mixing: The weight of each modality as the source, adding up to 1; equal by default.

    Raises:
        ValueError: if the weights do not match the modalities or do not add up to 1.
    """

    def __init__(
        self, encoders: Encoders, decoders: Decoders, heads: Heads, weights: Weights = None,
        *, mixing: Mapping[str, NonNegativeFloat] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(encoders, decoders, heads, weights)
        self.mixing = self._checked(mixing or dict.fromkeys(self.names, 1 / len(self.names)))

    def _checked(self, mixing: Mapping[str, float]) -> dict[str, float]:
        if set(mixing) != set(self.names):
            raise ValueError(f"mixing has {', '.join(mixing)}, expected a weight for each of {', '.join(self.names)}")
        if not math.isclose(total := sum(mixing.values()), 1.0, rel_tol=1e-6):
            raise ValueError(f"mixing adds up to {total:g}, expected 1")
        return {name: float(mixing[name]) for name in self.names}

    def combined(self, q: Independent, present: Tensor) -> Independent:
        return log_variance_normal(*product_of_posteriors(q.mean, 2 * q.stddev.log(), present))

    def _loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        present = self.presence(batch)
        q = self.unimodal(self.encode(batch))
        z = q.rsample()
        terms = {
            name: self._mixed(-self.weights[name] * self.log_prob(name, z, batch), present & batch.present[name]) for name in self.names
        }
        return terms | {"kl": kl_weight * self._mixed(self.kl_to_prior(q), present)}

    def _mixed(self, loss: Tensor, rows: Tensor) -> Tensor:
        """The convex combination over sources of the mean loss over the counted rows, both of shape (M, B)."""
        shares = torch.tensor([self.mixing[name] for name in self.names], dtype=loss.dtype, device=loss.device)
        return (shares * torch.where(rows, loss, 0.0).sum(-1) / divisor(rows)).sum()
