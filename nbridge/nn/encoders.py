r"""Encoders: deterministic features :math:`h_i = \mathrm{Enc}_i(x_i)` of one modality.

Encoders take values in standard form (`Likelihood.standardize`): reals centred and scaled, categories one-hot. To add your own, inherit
from `Encoder`, take ``shape`` and ``features`` as positional arguments and hyper-parameters as keyword-only arguments, and test it with
`nbridge.testing.check_encoder`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nbridge.common import randomness
from nbridge.nn.networks import MLP, ConvDown, SkipMLP
from nbridge.spec.option_types import (
    Activation,
    Channels,
    ClassShape,
    Hide,
    ImageShape,
    PositiveInt,
    Probability,
    Shape,
    VectorShape,
    Widths,
)


class Encoder(nn.Module, ABC):
    """Base class of encoders: maps a modality to features.

    Attributes:
        features: The width F of the output.
        reads_mask: Whether inputs have the mask of observed cells, as 0 and 1, after the values along the last axis.
    """

    features: int
    reads_mask: bool = False
    _mirror: Mapping[str, object] = {"type": "mlp"}

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features, shape :math:`(B, F)`, of rows in standard form, shape :math:`(B, *shape)`."""

    def mirror(self) -> dict[str, object]:
        """The decoder that mirrors this encoder: its ``type`` and options, as in a spec."""
        return dict(self._mirror)


class MLPEncoder(Encoder):
    """A multilayer perceptron over the flattened modality; its output is also normalised and activated.

    Arguments:
        shape: Shape of the modality.
        features: Width of the output.
        hidden: Widths of the hidden layers.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.
        dropout: Dropout rate.

    Example:
        >>> MLPEncoder((1, 8, 8), 16, hidden=(32,))(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self, shape: Shape, features: int,
        *, hidden: Widths = (128,), batch_norm: bool = True, activation: Activation = "leaky_relu", dropout: Probability = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = features
        self._mirror = {
            "type": "mlp", "hidden": (features, *reversed(hidden)), "batch_norm": batch_norm, "activation": activation, "dropout": dropout,
        }  # fmt: skip
        self.network = MLP(
            math.prod(shape), features, hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=dropout, activate_last=True
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flatten(1))


class ConvEncoder(Encoder):
    """Convolutions that halve each spatial axis (rounding up), then a linear layer.

    Arguments:
        shape: Channels, then one to three spatial axes of any size.
        features: Width of the output.
        channels: Channels of each convolution.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.

    Example:
        >>> ConvEncoder((3, 7, 5), 16, channels=(8, 8))(torch.rand(4, 3, 7, 5)).shape
        torch.Size([4, 16])
    """

    def __init__(
        self, shape: ImageShape, features: int,
        *, channels: Channels = (32, 64), batch_norm: bool = True, activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = features
        self._mirror = {"type": "conv", "channels": tuple(reversed(channels)), "batch_norm": batch_norm, "activation": activation}
        self.down = ConvDown(shape, channels, batch_norm=batch_norm, activation=activation)
        self.head = MLP(math.prod(self.down.output_shape), features, batch_norm=batch_norm, activation=activation, activate_last=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(x).flatten(1))


class TableEncoder(Encoder):
    """A multilayer perceptron beside a linear layer, over the columns of a table and the mask of observed cells.

    The first layer is an embedding of each class, since classes are one-hot, a direction for each number, and one for each missing cell.
    In training, a share of the observed columns of each row, drawn from U(0, ``hide``) times two, is hidden from the encoder, whereas the
    likelihood scores all observed ones: cells are learned to be imputed from any others. Rows are read twice, the second time with a guess
    of the missing cells from the first, as iterative imputation does.

    Arguments:
        shape: The number of elements.
        features: Width of the output.
        columns: The number of the column of each element, which is hidden as a whole; by default each element is a column.
        hide: The mean share of observed columns that is hidden from the encoder in training; 0 to hide none.
        hidden: Widths of the hidden layers.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.
        dropout: Dropout rate.

    References:
        Variational Autoencoder with Arbitrary Conditioning (Ivanov, Figurnov & Vetrov, 2019), https://arxiv.org/abs/1806.02382

    Example:
        >>> values, observed = torch.randn(5, 3), torch.ones(5, 3)
        >>> TableEncoder((3,), 16)(torch.cat([values, observed], -1)).shape
        torch.Size([5, 16])
    """

    reads_mask = True
    columns: Tensor

    def __init__(
        self, shape: VectorShape, features: int, columns: Sequence[int] | None = None,
        *, hide: Hide = 0.5, hidden: Widths = (128,), batch_norm: bool = False, activation: Activation = "gelu",
        dropout: Probability = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.hide = features, hide
        self._mirror = {
            "type": "table", "hidden": tuple(reversed(hidden)), "batch_norm": batch_norm, "activation": activation, "dropout": dropout,
        }  # fmt: skip
        columns = range(math.prod(shape)) if columns is None else columns
        self.register_buffer("columns", torch.tensor(list(columns)), persistent=False)
        self.number = max(columns) + 1
        width = math.prod(shape)
        self.network = SkipMLP(2 * width, features, hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=dropout)
        self.guess = nn.Linear(features, width)
        nn.init.zeros_(self.guess.weight)
        nn.init.zeros_(self.guess.bias)

    def forward(self, x: Tensor) -> Tensor:
        values, observed = (self._with_holes(x) if self.training and self.hide else x).chunk(2, -1)
        guess = self.guess(self.network(torch.cat([values, observed], -1)))
        return self.network(torch.cat([values + (1 - observed) * guess, observed], -1))

    def _with_holes(self, x: Tensor) -> Tensor:
        """The inputs with random columns of each row hidden: as missing ones, 0 with the mask 0."""
        share = 2 * self.hide * randomness.rand(len(x), 1, device=x.device)
        kept = (randomness.rand(len(x), self.number, device=x.device) >= share).index_select(1, self.columns).to(x.dtype)
        return x * kept.repeat(1, 2)


class EmbeddingEncoder(Encoder):
    """A learned vector for each class, then an MLP.

    Arguments:
        shape: The number of classes, as a shape of one axis.
        features: Width of the output.
        embedding_dim: Dimension of the vector of a class.
        hidden: Widths of the hidden layers after the embedding.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.

    Example:
        >>> one_hot = torch.nn.functional.one_hot(torch.tensor([2, 0, 1]), 3).float()
        >>> EmbeddingEncoder((3,), 16)(one_hot).shape
        torch.Size([3, 16])
    """

    def __init__(
        self, shape: ClassShape, features: int,
        *, embedding_dim: PositiveInt = 32, hidden: Widths = (), batch_norm: bool = True, activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = features
        self._mirror = {"type": "mlp", "hidden": (features, *reversed(hidden)), "batch_norm": batch_norm, "activation": activation}
        self.embedding = nn.Linear(shape[0], embedding_dim, bias=False)
        self.network = MLP(embedding_dim, features, hidden=hidden, batch_norm=batch_norm, activation=activation, activate_last=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.embedding(x))
