r"""A stochastic bridge: draws of the features of all absent modalities at once, given those of any that are observed.

Features :math:`h = (h_1, \dots, h_n)` of encoders that no longer change, each standardised, are data of their own. A network v learns by
conditional flow matching to carry noise into the conditional distribution :math:`p(h_A \mid h_S)`: with :math:`h_A^t = (1 - t) \epsilon
+ t h_A`, :math:`\epsilon \sim \mathcal{N}(0, I)` and :math:`t \sim U(0, 1)`,

.. math:: \min_v \; \mathbb{E} \, \frac{1}{|A|} \big\| v(h_A^t, h_S, S, A, t) - (h_A - \epsilon) \big\|^2

where v may be told more of :math:`x_S` than :math:`h_S`, by a ``condition`` of C numbers. A proper loss: its minimiser has the data's own
conditional distribution, where a regression has its mean alone and the ELBO of eq. 8 the widest Gaussian that decodes well. One network
serves every S and every A, one draw of noise all of A, so that what it fills in agrees.

References:
    | Flow Matching for Generative Modeling (Lipman, Chen, Ben-Hamu, Nickel & Le, 2023), https://arxiv.org/abs/2210.02747
    | Flow Straight and Fast (Liu, Gong & Liu, 2023), https://arxiv.org/abs/2209.03003

Axes: K samples, M modalities, B rows, F features of all modalities together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from itertools import repeat

import torch
from torch import Tensor, nn

from nbridge.annotations import Activation, PositiveInt, Probability, Widths
from nbridge.bridges import Bridges
from nbridge.networks import MLP

WAVES = 4
"""Frequencies of the sines and cosines that tell the network the time."""
PIECE = 4096
"""Draws that go through the network together, so that they stay in the processor's cache."""
SMALLEST = 1e-4
"""The least spread that a feature is divided by: one that never changes stays as it is."""


class FlowBridge(Bridges):
    r"""Draws absent features from :math:`p(h_A \mid h_S)` by a flow, for every pattern of presence.

    Arguments:
        features: Width of each modality's features.
        condition: The number C of what else it is told of each row; 0 by default.
        hidden: Widths of the hidden layers of the velocity's network.
        steps: Steps of the midpoint rule from noise to features; each takes two passes through the network.
        decay: What an exponential moving average of the weights keeps at each step of training; that average serves.
        activation: The nonlinearity.

    Example:
        >>> flow = FlowBridge({"image": 6, "label": 2}, hidden=(16,))
        >>> h = {"image": torch.randn(3, 6), "label": torch.zeros(3, 2)}
        >>> present = torch.tensor([[True, True, True], [False, True, False]])
        >>> flow.eval().draw(h, present, samples=5)["label"].shape
        torch.Size([5, 3, 2])
    """

    loc: Tensor
    scale: Tensor
    updates: Tensor
    frequencies: Tensor

    def __init__(
        self,
        features: Mapping[str, int],
        condition: int = 0,
        *,
        hidden: Widths = (256, 256, 256),
        steps: PositiveInt = 4,
        decay: Probability = 0.999,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.widths, self.steps, self.decay = dict(features), steps, decay
        total, inputs = sum(features.values()), sum(features.values()) + 2 * len(features) + 2 * WAVES + condition
        self.network = MLP(inputs, total, hidden=hidden, batch_norm=False, activation=activation)
        self.average = _as_buffers(copy.deepcopy(self.network))
        self.register_buffer("loc", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(WAVES), persistent=False)

    @torch.no_grad()
    def standardise(self, parts: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> None:
        """Takes mean and spread of every feature over the rows in which its modality is present.

        Arguments:
            parts: Rows part by part: features of every modality, shape (B, F_i), and presence, shape (B,).
        """
        number, total, squares = (torch.zeros(len(self.loc), dtype=torch.float64, device=self.loc.device) for _ in range(3))
        for features, present in parts:
            h, counts = self._flat(features).double(), self._cells(torch.stack([present[name] for name in self.widths])).double()
            number += counts.sum(0)
            total += (counts * h).sum(0)
            squares += (counts * h.square()).sum(0)
        mean = total / number.clamp(min=1)
        variance = (squares / number.clamp(min=1) - mean.square()).clamp(min=0)
        self.loc.copy_(mean)
        self.scale.copy_(torch.where(variance > SMALLEST**2, variance.sqrt(), 1.0))

    def loss(self, features: Mapping[str, Tensor], given: Tensor, wanted: Tensor, condition: Tensor | None = None) -> Tensor:
        """The mean square error of the velocity over the wanted features, shape (B,); zero for a row that wants none.

        Arguments:
            features: Features of every modality, shape (B, F_i); anything finite where it is neither given nor wanted.
            given: Which modalities are given, boolean, shape (M, B).
            wanted: Which are to be drawn, likewise; the others are not known.
            condition: What else is told, shape (B, C), where something is.
        """
        if self.training:
            self._follow()
        h, cells = self._standard(self._flat(features)), self._cells(wanted)
        noise, time = torch.randn_like(h), torch.rand(len(h), 1, device=h.device)
        there = torch.where(cells, torch.lerp(noise, h, time), torch.where(self._cells(given), h, 0.0))
        error = (self._velocity(there, given, wanted, time, condition) - (h - noise)).square()
        return torch.where(cells, error, 0.0).sum(-1) / cells.sum(-1).clamp(min=1)

    def draw(
        self,
        features: Mapping[str, Tensor],
        present: Tensor,
        samples: int = 1,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Features with draws in the place of absent ones, shape (K, B, F_i); observed ones are as they came.

        Arguments:
            features: Features of every modality, shape (B, F_i); anything finite where the modality is absent.
            present: Which modalities are observed, boolean, shape (M, B).
            samples: The number K of draws.
            noise: Standard normal noise that all rows share, shape (K, F); each row's own, drawn anew, when left out.
            condition: What else is told, shape (B, C), where something is.
        """
        h = self._flat(features)
        some = ~present.all(0)
        drawn = h.expand(samples, *h.shape)
        if bool(some.any()):
            observed = self._cells(present)[some]
            told = None if condition is None else condition[some]
            filled = self._solve(self._standard(h)[some], present[:, some], observed, samples, noise, told) * self.scale + self.loc
            drawn = drawn.clone()
            drawn[:, some] = torch.where(observed, h[some], filled)
        return dict(zip(self.widths, drawn.split(list(self.widths.values()), -1), strict=True))

    def draw_by_masks(
        self, features: Mapping[str, Tensor], present: Tensor, noise: Tensor, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The same of given noise, shape (K, F), by masks alone: all rows go through the flow, whatever they have."""
        h, samples = self._flat(features), len(noise)
        cells = self._cells(present)
        start = torch.where(cells, self._standard(h), noise[:, None])
        rows = cells.expand(samples, -1, -1).flatten(0, 1)
        told = None if condition is None else condition.repeat(samples, 1)
        filled = self._carried(start.flatten(0, 1), present.repeat(1, samples), rows, told).view_as(start) * self.scale + self.loc
        drawn = torch.where(cells, h, filled)
        return dict(zip(self.widths, drawn.split(list(self.widths.values()), -1), strict=True))

    def _solve(self, h: Tensor, present: Tensor, cells: Tensor, samples: int, noise: Tensor | None, condition: Tensor | None) -> Tensor:
        """Draws of standardised features, shape (K, B, F), by the midpoint rule; observed ones, by modality and by cell, stay."""
        rows, present, cells = len(h), present.repeat(1, samples), cells.repeat(samples, 1)
        own = torch.randn(samples * rows, h.shape[1], device=h.device, dtype=h.dtype) if noise is None else noise.repeat_interleave(rows, 0)
        start = torch.where(cells, h.repeat(samples, 1), own)
        pieces = zip(start.split(PIECE), present.split(PIECE, 1), cells.split(PIECE), strict=True)
        told = repeat(None) if condition is None else condition.repeat(samples, 1).split(PIECE)
        return torch.cat([self._carried(*piece, more) for piece, more in zip(pieces, told, strict=False)]).view(samples, rows, -1)

    def _carried(self, state: Tensor, present: Tensor, cells: Tensor, condition: Tensor | None) -> Tensor:
        """What noise becomes from time 0 to time 1."""
        step = 1 / self.steps
        for number in range(self.steps):
            middle = state + self._change(state, present, cells, number * step, condition) * step / 2
            state = state + self._change(middle, present, cells, (number + 0.5) * step, condition) * step
        return state

    def _change(self, state: Tensor, present: Tensor, cells: Tensor, time: float, condition: Tensor | None) -> Tensor:
        return torch.where(cells, 0.0, self._velocity(state, present, ~present, state.new_full((state.shape[0], 1), time), condition))

    def _velocity(self, there: Tensor, given: Tensor, wanted: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        angles = time * self.frequencies
        flags = torch.cat([given, wanted]).T.to(there.dtype)
        network = self.network if self.training else self.average
        told = [] if condition is None else [condition.to(there.dtype)]
        return network(torch.cat([there, flags, angles.sin(), angles.cos(), *told], -1)).to(there.dtype)

    @torch.no_grad()
    def _follow(self) -> None:
        """Lets the average follow the weights, sooner at first."""
        self.updates += 1
        weight = 1 - torch.clamp((self.updates + 1) / (self.updates + 10), max=self.decay)
        for mean, value in zip(self.average.buffers(), self.network.parameters(), strict=True):
            mean.lerp_(value, weight.to(mean.dtype))

    def _flat(self, features: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([features[name] for name in self.widths], -1)

    def _standard(self, flat: Tensor) -> Tensor:
        return (flat - self.loc) / self.scale

    def _cells(self, present: Tensor) -> Tensor:
        """Presence of modalities, shape (M, B), as presence of features, shape (B, F)."""
        return torch.cat([mask[:, None].expand(-1, width) for mask, width in zip(present, self.widths.values(), strict=True)], -1)


def _as_buffers(network: nn.Module) -> nn.Module:
    """The network with buffers in the place of its parameters: saved and moved, never trained."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone())
    return network
