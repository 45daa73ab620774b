"""A residual MLP with every block scaled and shifted by a context (FiLM), and an output near zero at initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INITIAL_SCALE = 0.01
"""Factor of initial weights where the output should start near zero; not 0, which would block the gradients of earlier layers."""


class ModulatedMLP(nn.Module):
    r"""Residual blocks over a hidden state, :math:`h \leftarrow h + W_2 \, \mathrm{SiLU}(W_1 (\mathrm{LN}(h) (1 + \gamma(c)) + \beta(c)))`.

    References:
        | FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), https://arxiv.org/abs/1709.07871
        | Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748 (residuals that begin at zero)

    Arguments:
        context: Width of the context c.

    Example:
        >>> network = ModulatedMLP(3, 4, 2, width=8, blocks=2)
        >>> network(torch.randn(5, 3), torch.randn(5, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(self, inputs: int, context: int, outputs: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), _scale_down(nn.Linear(width, outputs))
        self.blocks = nn.ModuleList(_Block(width, context) for _ in range(blocks))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = block(h, context)
        return self.last(F.silu(h))


class _Block(nn.Module):
    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.modulation, self.first, self.second = (nn.Linear(context, 2 * width), nn.Linear(width, width), nn.Linear(width, width))
        _scale_down(self.modulation)
        _scale_down(self.second)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context).chunk(2, -1)
        return h + self.second(F.silu(self.first(F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)))


@torch.no_grad()
def _scale_down(linear: nn.Linear) -> nn.Linear:
    for parameter in linear.parameters():
        parameter.mul_(INITIAL_SCALE)
    return linear
