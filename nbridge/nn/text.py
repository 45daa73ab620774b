r"""Networks for texts: an encoder of token sequences, and a decoder of one vector for each place of a text.

A text has L places, each with the number of a token (`nbridge.common.vocabulary`): its tokens, the end, then padding, which no output
depends on.

Axes: B rows, L places, W channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbridge.common.vocabulary import ASCII, PAD, SPECIAL
from nbridge.nn.encoders import Encoder
from nbridge.nn.networks import MLP, activation_module
from nbridge.spec.option_types import Activation, Layers, Pooling, PositiveInt, Shape, TextNetwork, TextShape, TokenCount

HEADS = 4
"""Heads of attention; one if the channels cannot be divided by this."""


class _ConvBlock(nn.Module):
    r"""A residual convolution over the places of a text, :math:`h + \sigma(\mathrm{Conv}(\mathrm{LN}(h)))`, of width 3."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.norm, self.activation = nn.LayerNorm(width), activation_module(activation)
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1)

    def forward(self, h_BLW: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        inner = self.norm(h_BLW)
        inner = inner if mask_BL is None else inner * mask_BL[..., None]
        return h_BLW + self.activation(self.conv(inner.mT).mT)


class _TransformerBlock(nn.Module):
    """Attention between the places of a text, then an MLP at each place, both residual."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.heads = HEADS if width % HEADS == 0 else 1
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = MLP(width, width, hidden=(2 * width,), batch_norm=False, activation=activation)

    def forward(self, h_BLW: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        rows, places, _ = h_BLW.shape
        split = self.queries(self.before(h_BLW)).view(rows, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        attended = F.scaled_dot_product_attention(*split.unbind(0), attn_mask=mask)
        h_BLW = h_BLW + self.output(attended.transpose(1, 2).reshape(rows, places, -1))
        return h_BLW + self.inner(self.between(h_BLW))


def _blocks(kind: TextNetwork, width: int, layers: int, activation: Activation) -> nn.ModuleList:
    block = _ConvBlock if kind == "conv" else _TransformerBlock
    return nn.ModuleList(block(width, activation) for _ in range(layers))


class TextEncoder(Encoder):
    """A learned vector for each token and each place, residual layers, and one vector of the text as a whole; padding is ignored.

    Arguments:
        shape: The most tokens of a text, as a shape of one axis.
        features: Width of the output.
        kind: Layers: conv, convolutions of width 3; or transformer.
        width: Channels of the layers.
        layers: Number of layers.
        pooling: How places become one vector: attention, a weighted mean with learned weights; or mean.
        activation: The nonlinearity.
        tokens: Number of tokens of the vocabulary; that of the likelihood by default.

    Example:
        >>> numbers = torch.tensor([[5.0, 6, 1, 0, 0], [7, 1, 0, 0, 0]])
        >>> TextEncoder((5,), 16, tokens=8)(numbers).shape
        torch.Size([2, 16])
    """

    def __init__(
        self, shape: TextShape, features: int,
        *, kind: TextNetwork = "conv", width: PositiveInt = 64, layers: Layers = 2, pooling: Pooling = "attention",
        activation: Activation = "leaky_relu", tokens: TokenCount = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.pooling = features, pooling
        self._mirror = {"type": "text", "kind": kind, "width": width, "layers": layers, "activation": activation}
        self.embedding = nn.Embedding(SPECIAL + len(ASCII) if tokens is None else tokens, width)
        self.places = nn.Parameter(0.1 * torch.randn(shape[0], width))
        self.blocks = _blocks(kind, width, layers, activation)
        if pooling == "attention":
            self.scores = nn.Linear(width, 1)
        self.head = MLP(width, features, activation=activation, activate_last=True)

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.long()
        mask = numbers != PAD
        # An absent text is all padding; something must be attended to.
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], 1)
        h_BLW = self.embedding(numbers) + self.places
        for block in self.blocks:
            h_BLW = block(h_BLW, mask)
        return self.head((self._shares(h_BLW, mask) * h_BLW).sum(1))

    def _shares(self, h_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        """The share of each place in the text's vector, shape (B, L, 1); 0 for padding."""
        scores = self.scores(h_BLW) if self.pooling == "attention" else torch.zeros_like(h_BLW[..., :1])
        return scores.masked_fill(~mask_BL[..., None], -torch.inf).softmax(1)


class TextDecoder(nn.Module):
    """A vector for each place from z, residual layers between places, then the raw parameters of each place.

    Where the raw parameters have a single axis, as of an autoregressive text, it is a multilayer perceptron.

    Arguments:
        latent_dim: Dimension of z.
        shape: Shape of the raw parameters: places, then parameters of each; or a single axis.
        kind: Layers: conv, convolutions of width 3; or transformer.
        width: Channels of the layers.
        layers: Number of layers.
        hidden: Width of the hidden layer between z and the places.
        activation: The nonlinearity.

    Example:
        >>> TextDecoder(4, (7, 30))(torch.randn(2, 5, 4)).shape
        torch.Size([2, 5, 7, 30])
    """

    def __init__(
        self, latent_dim: int, shape: Shape,
        *, kind: TextNetwork = "conv", width: PositiveInt = 64, layers: Layers = 2, hidden: PositiveInt = 128,
        activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.width = tuple(shape), width
        places, *each = shape
        inner = places * width if each else places
        self.stem = MLP(latent_dim, inner, hidden=(hidden, hidden), activation=activation)
        if each:
            self.blocks = _blocks(kind, width, layers, activation)
            self.head = nn.Linear(width, each[0])

    def forward(self, z: Tensor) -> Tensor:
        raw = self.stem(z.reshape(-1, z.shape[-1]))
        if len(self.shape) > 1:
            raw = raw.view(-1, self.shape[0], self.width)
            for block in self.blocks:
                raw = block(raw)
            raw = self.head(raw)
        return raw.reshape(*z.shape[:-1], *self.shape)
