"""Network building blocks: MLP, convolutions for any size, and stacks of independent MLPs in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from nbridge.common import randomness
from nbridge.spec.option_types import Activation

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def activation_module(name: Activation) -> nn.Module:
    """Creates the nonlinearity with the given name."""
    return _ACTIVATIONS[name]()


class _Dropout(nn.Dropout):
    """Dropout that draws by `nbridge.common.randomness`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's signature)
        return randomness.dropout(input, self.p) if self.training else input


class MLP(nn.Module):
    """Linear layers, each but the last followed by batch normalisation, a nonlinearity and dropout.

    Accepts any number of leading axes, which are flattened to rows. With ``activate_last``, the last layer is like the others.
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden: Sequence[int] = (), batch_norm: bool = True, activation: Activation = "leaky_relu",
        dropout: float = 0.0, activate_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for depth, (width, wider) in enumerate(pairwise(widths), start=1):
            layers.append(nn.Linear(width, wider))
            if depth < len(widths) - 1 or activate_last:
                layers += [nn.BatchNorm1d(wider)] if batch_norm else []
                layers.append(activation_module(activation))
                layers += [_Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], y.shape[-1])


class SkipMLP(nn.Module):
    """An `MLP` and a linear layer, added, so that what is linear needs no hidden units: factor analysis is a special case of such a VAE."""

    def __init__(
        self, inputs: int, outputs: int, *, hidden: Sequence[int], batch_norm: bool, activation: Activation, dropout: float
    ) -> None:  # fmt: skip
        super().__init__()
        self.mlp = MLP(inputs, outputs, hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=dropout)
        self.linear = nn.Linear(inputs, outputs, bias=False) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(x)
        return y if self.linear is None else y + self.linear(x)


def halved_sizes(size: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """The sequence of spatial sizes when halving ``times`` times, rounding up; the first is the size itself."""
    sizes = [tuple(size)]
    for _ in range(times):
        sizes.append(tuple(math.ceil(edge / 2) for edge in sizes[-1]))
    return sizes


class ConvDown(nn.Module):
    """Convolutions that each halve every one of one to three spatial axes, rounding up, for any size."""

    def __init__(self, shape: Sequence[int], channels: Sequence[int], *, batch_norm: bool, activation: Activation) -> None:
        super().__init__()
        axes = len(shape) - 1
        layers: list[nn.Module] = []
        for width, wider in zip([shape[0], *channels], channels, strict=False):
            layers.append(_CONVOLUTIONS[axes](width, wider, kernel_size=3, stride=2, padding=1))
            layers += [_NORMS[axes](wider)] if batch_norm else []
            layers.append(activation_module(activation))
        self.layers = nn.Sequential(*layers)
        self.output_shape = (channels[-1] if channels else shape[0], *halved_sizes(shape[1:], len(channels))[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ConvUp(nn.Module):
    """The mirror of `ConvDown`: transposed convolutions that end exactly at a given shape.

    Channels are those of the input and of each layer except the last, which has ``shape[0]``.
    """

    def __init__(self, shape: Sequence[int], channels: Sequence[int], *, batch_norm: bool, activation: Activation) -> None:
        super().__init__()
        axes = len(shape) - 1
        sizes = halved_sizes(shape[1:], len(channels))[::-1]
        widths = [*channels, shape[0]]
        layers: list[nn.Module] = []
        for depth, (width, narrower) in enumerate(pairwise(widths)):
            # A transposed convolution of stride 2 maps size h to 2h - 1, or to 2h with output padding 1.
            padding = tuple(to - (2 * size - 1) for size, to in zip(sizes[depth], sizes[depth + 1], strict=True))
            layers.append(_TRANSPOSED[axes](width, narrower, kernel_size=3, stride=2, padding=1, output_padding=padding))
            if depth < len(channels) - 1:
                layers += [_NORMS[axes](narrower)] if batch_norm else []
                layers.append(activation_module(activation))
        self.layers = nn.Sequential(*layers)
        self.input_shape = (widths[0], *sizes[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class StackedLinear(nn.Module):
    r"""P independent linear maps in one batched product: :math:`y_p = x_p W_p^\top + b_p`.

    Each map is initialised like `torch.nn.Linear`. Input :math:`(P, B, inputs)`, output :math:`(P, B, outputs)`. Consecutive maps may share
    their input: each entry of an input :math:`(S, B, inputs)`, with :math:`P = Sk`, is used by k maps without a copy.

    Outputs are stored with rows last, :math:`(P, outputs, B)`, so that later layers need no copy in either direction.
    """

    def __init__(self, stack: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(stack, inputs, outputs).uniform_(-bound, bound).mT.contiguous())
        self.bias = nn.Parameter(torch.empty(stack, 1, outputs).uniform_(-bound, bound))

    def forward(self, x_SBI: Tensor) -> Tensor:
        return self.apply_slice(slice(None), x_SBI)

    def apply_slice(self, maps: slice, x_SBI: Tensor) -> Tensor:
        """Applies a slice of the maps."""
        weight, bias = self.weight[maps], self.bias[maps]
        (stack, outputs, inputs), shared = weight.shape, len(x_SBI)
        y = torch.baddbmm(bias.view(shared, -1, 1), weight.view(shared, -1, inputs), x_SBI.mT)
        return y.view(stack, outputs, -1).mT

    def extra_repr(self) -> str:
        return "stack={}, outputs={}, inputs={}".format(*self.weight.shape)


class StackedBatchNorm(nn.Module):
    """P independent batch normalisations, each with statistics over its own subset of rows.

    Without ``counts``, the result equals P calls of `torch.nn.BatchNorm1d`. Otherwise statistics are taken over the marked rows; a map
    with fewer than two of them uses its running statistics and does not update them.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, stack: int, width: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(stack, width))
        self.bias = nn.Parameter(torch.zeros(stack, width))
        self.register_buffer("running_mean", torch.zeros(stack, width))
        self.register_buffer("running_var", torch.ones(stack, width))

    def forward(self, x_PBC: Tensor, counts_PB: Tensor | None = None) -> Tensor:
        if self.training and counts_PB is not None:
            return self.normalised(x_PBC, *self._moments(x_PBC, counts_PB))
        return self.apply_slice(slice(None), x_PBC)

    def apply_slice(self, maps: slice, x_PBC: Tensor) -> Tensor:
        """Normalises the rows of a slice of the maps; of fewer than all only in eval mode."""
        # With rows last, the channels of all maps are the channels of one call, and the output of a `StackedLinear` is not copied.
        flat = F.batch_norm(
            rearrange(x_PBC, "p b c -> 1 (p c) b"), self.running_mean[maps].view(-1), self.running_var[maps].view(-1),
            self.weight[maps].view(-1), self.bias[maps].view(-1), self.training, self.momentum, self.eps,
        )  # fmt: skip
        return rearrange(flat, "1 (p c) b -> p b c", p=len(x_PBC))

    def normalised(self, x_PBC: Tensor, mean: Tensor, variance: Tensor, number: Tensor) -> Tensor:
        """Normalises rows by the statistics of a batch and updates the running statistics.

        Means and variances (without Bessel's correction) over the counted rows have the shape (P, C). Where ``number``, that of counted
        rows, is below two, the running statistics are used instead.
        """
        mean, variance = self._usable(mean, variance, number)
        normal = (x_PBC - mean[:, None]) * (variance[:, None] + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None])

    def _moments(self, x_PBC: Tensor, counts_PB: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # In the dtype of the buffers, because sums over many rows need its precision.
        x_PBC = x_PBC.to(self.running_mean.dtype)
        counts = counts_PB[..., None]
        number = counts_PB.sum(1)[:, None].to(x_PBC.dtype)
        divisor = number.clamp(min=2)
        mean = torch.where(counts, x_PBC, 0.0).sum(1) / divisor
        return mean, torch.where(counts, (x_PBC - mean[:, None]).square(), 0.0).sum(1) / divisor, number

    def _usable(self, mean: Tensor, variance: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        usable, divisor = number >= 2, number.clamp(min=2)
        mean, variance = torch.where(usable, mean, self.running_mean), torch.where(usable, variance, self.running_var)
        with torch.no_grad():
            unbiased = torch.where(usable, variance * divisor / (divisor - 1), self.running_var)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        return mean, variance

    def extra_repr(self) -> str:
        return "stack={}, width={}".format(*self.weight.shape)


class StackedMLP(nn.Module):
    """P independent MLPs of equal shape in one call; see `MLP`.

    Consecutive networks may share their input, like the maps of `StackedLinear`.
    """

    def __init__(
        self, stack: int, inputs: int, outputs: int,
        *, hidden: Sequence[int] = (), batch_norm: bool = True, activation: Activation = "leaky_relu",
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [inputs, *hidden, outputs]
        self.linears = nn.ModuleList(StackedLinear(stack, a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(StackedBatchNorm(stack, width) for width in hidden if batch_norm)
        self.activation = activation_module(activation)

    def apply_slice(self, maps: slice, x_BI: Tensor) -> Tensor:
        """Applies a slice of p networks to the same rows, output shape (p, B, outputs); only in eval mode."""
        h = x_BI[None]
        for depth, linear in enumerate(self.linears):
            assert isinstance(linear, StackedLinear)
            h = linear.apply_slice(maps, h)
            if depth < len(self.linears) - 1:
                if len(self.norms):
                    norm = self.norms[depth]
                    assert isinstance(norm, StackedBatchNorm)
                    h = norm.apply_slice(maps, h)
                h = self.activation(h)
        return h

    def forward(self, x_SBI: Tensor, counts_SB: Tensor | None = None) -> Tensor:
        h = x_SBI
        for depth, linear in enumerate(self.linears):
            h = linear(h)
            if depth < len(self.linears) - 1:
                if len(self.norms):
                    counts_PB = None if counts_SB is None else counts_SB.repeat_interleave(len(h) // len(counts_SB), dim=0)
                    h = self.norms[depth](h, counts_PB)
                h = self.activation(h)
        return h
