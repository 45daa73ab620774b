r"""Fusion: maps the features of a set of modalities to a posterior :math:`q(z \mid \cdot)`; with one modality, to a unimodal posterior."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.nn.distributions import LOG_VARIANCE, log_variance_normal
from nbridge.nn.networks import MLP
from nbridge.spec.option_types import Activation, Widths


class Fusion(nn.Module):
    r"""Concatenates features in a fixed order and maps them to :math:`q(z) = \mathcal{N}(\mu, \mathrm{diag}(\sigma^2))`.

    Generalises :math:`FC_{x,y \to z}` of Yadav et al. (2020, section 3.1) to any number of modalities.

    Arguments:
        features: Feature width of each modality, in the order of concatenation.
        latent_dim: Dimension D of z.
        hidden: Widths of the hidden layers.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.

    Example:
        >>> fusion = Fusion({"image": 6, "label": 2}, 4)
        >>> fusion({"image": torch.randn(3, 6), "label": torch.randn(3, 2)}).mean.shape
        torch.Size([3, 4])
    """

    def __init__(
        self, features: Mapping[str, int], latent_dim: int,
        *, hidden: Widths = (128,), batch_norm: bool = True, activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.names = tuple(features)
        self.latent_dim = latent_dim
        self.network = MLP(sum(features.values()), 2 * latent_dim, hidden=hidden, batch_norm=batch_norm, activation=activation)

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        r"""The posterior, batch shape (\*) over D, for features of shape (\*, F_i), one entry per modality."""
        raw = self.network(torch.cat([features[name] for name in self.names], dim=-1))
        loc, log_variance = raw.chunk(2, dim=-1)
        return log_variance_normal(loc, log_variance.clamp(*LOG_VARIANCE))
