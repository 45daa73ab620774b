r"""Decoders :math:`\mathrm{Dec}_i`: a network from z to raw parameters, and the likelihood that interprets them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.networks import MLP, ConvUp, SkipMLP
from nbridge.spec.option_types import Activation, Channels, ImageShape, Probability, Shape, Widths


class Decoder(nn.Module):
    r"""The distribution :math:`p(x_i \mid z)`.

    Arguments:
        network: Maps z, shape :math:`(*, D)`, to raw parameters, shape :math:`(*, *raw_shape)`; any number of leading axes.
        likelihood: Maps raw parameters to a distribution.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        self.network, self.likelihood = network, likelihood

    def forward(self, z: Tensor) -> Distribution:
        return self.likelihood(self.network(z))

    def served(self, z: Tensor, given: Tensor | None = None) -> Distribution:
        """The calibrated distribution that imputations are sampled from; see `nbridge.nn.likelihoods.Likelihood.served`."""
        return self.likelihood.served(self.network(z), given)

    def log_prob(self, z: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r""":math:`\log p(x_i \mid z)`, shape :math:`(*, B)`.

        Arguments:
            z: Samples of z, shape :math:`(*, B, D)`.
            x: Values in canonical form, shape :math:`(B, *shape)`.
            cells: Observed cells, shape :math:`(B, *shape)`; other cells are ignored.
        """
        return self.likelihood.log_prob(self.network(z), x, cells)

    def index(self, rows: Tensor) -> Self:  # noqa: ARG002 (of `RowDecoder`)
        """The decoder of some of the rows, which is the same for all rows."""
        return self


@dataclass(frozen=True)
class RowDecoder:
    r"""A `Decoder` of given rows B, :math:`p(x_i \mid z, c, s)` with their covariates and sizes.

    It has the same methods, for z of shape :math:`(*, B, D)`.

    Arguments:
        decoder: The decoder of all rows.
        log_size: Log of the size factor of each row, which is added to the raw parameters, shape (B, 1, ...); None for sizes of 1.
        covariates: The vector c of each row, shape (B, W), which the network reads after z; None without covariates.
    """

    decoder: Decoder
    log_size: Tensor | None = None
    covariates: Tensor | None = None

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood, which knows no rows."""
        return self.decoder.likelihood

    def network(self, z: Tensor) -> Tensor:
        """Raw parameters of the rows, shape :math:`(*, B, *raw_shape)`."""
        if self.covariates is not None:
            z = torch.cat([z, self.covariates.to(z).expand(*z.shape[:-1], -1)], -1)
        raw = self.decoder.network(z)
        return raw if self.log_size is None else raw + self.log_size

    def __call__(self, z: Tensor) -> Distribution:
        return self.likelihood(self.network(z))

    def served(self, z: Tensor, given: Tensor | None = None) -> Distribution:
        """See `Decoder.served`."""
        return self.likelihood.served(self.network(z), given)

    def log_prob(self, z: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """See `Decoder.log_prob`."""
        return self.likelihood.log_prob(self.network(z), x, cells)

    def index(self, rows: Tensor) -> RowDecoder:
        """The decoder of the rows selected by an index or a boolean mask."""
        size, given = (None if x is None else x[rows] for x in (self.log_size, self.covariates))
        return RowDecoder(self.decoder, size, given)


class MLPDecoder(nn.Module):
    """A multilayer perceptron from z to raw parameters.

    Arguments:
        latent_dim: Dimension of z.
        shape: Shape of the raw parameters.
        hidden: Widths of the hidden layers.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.
        dropout: Dropout rate.
    """

    def __init__(
        self, latent_dim: int, shape: Shape,
        *, hidden: Widths = (128, 128), batch_norm: bool = True, activation: Activation = "leaky_relu", dropout: Probability = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = tuple(shape)
        self.network = MLP(latent_dim, math.prod(shape), hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=dropout)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).reshape(*z.shape[:-1], *self.shape)


class TableDecoder(nn.Module):
    """A multilayer perceptron beside a linear layer, from z to raw parameters: the mirror of the encoder `table`.

    Arguments:
        latent_dim: Dimension of z.
        shape: Shape of the raw parameters.
        hidden: Widths of the hidden layers.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.
        dropout: Dropout rate.
    """

    def __init__(
        self, latent_dim: int, shape: Shape,
        *, hidden: Widths = (128,), batch_norm: bool = False, activation: Activation = "gelu", dropout: Probability = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = tuple(shape)
        self.network = SkipMLP(latent_dim, math.prod(shape), hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=dropout)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).reshape(*z.shape[:-1], *self.shape)


class ConvDecoder(nn.Module):
    """A linear layer, then transposed convolutions that double each spatial axis and end exactly at any given shape.

    Arguments:
        latent_dim: Dimension of z.
        shape: Shape of the raw parameters: channels, then one to three spatial axes.
        channels: Channels of each layer, starting at the latent side.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.
    """

    def __init__(
        self, latent_dim: int, shape: ImageShape,
        *, channels: Channels = (64, 32), batch_norm: bool = True, activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = tuple(shape)
        self.up = ConvUp(shape, channels, batch_norm=batch_norm, activation=activation)
        self.stem = MLP(latent_dim, math.prod(self.up.input_shape), batch_norm=batch_norm, activation=activation, activate_last=True)

    def forward(self, z: Tensor) -> Tensor:
        grid = self.stem(z).reshape(-1, *self.up.input_shape)
        return self.up(grid).reshape(*z.shape[:-1], *self.shape)
