r"""Batch normalisation over the rows of all processes, applied from outside: models never mention it.

The statistics of a batch that is shared out are put together from each process's own number of rows, mean and variance, and in the backward
pass the gradients of mean and variance are added up: one small exchange each way for a layer. torch's SyncBatchNorm does the same for GPUs,
but refuses CPUs and knows nothing of `nbridge.networks.StackedBatchNorm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nbridge.acceleration.distributed import World
from nbridge.networks import StackedBatchNorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH_NORM: Callable[[nn.Module, Tensor], Tensor] = nn.BatchNorm1d.forward  # pyright: ignore[reportAssignmentType] (all three share it)


@contextmanager
def synchronised(model: nn.Module, world: World) -> Iterator[None]:
    """Lets every batch normalisation of a model, in training mode, take its statistics over the rows of all processes.

    Arguments:
        model: The model.
        world: The processes; where there is one, nothing changes.
    """
    layers = [] if world.alone else [module for module in model.modules() if isinstance(module, (*_PLAIN, StackedBatchNorm))]
    for layer in layers:
        layer.forward = partial(_stacked if isinstance(layer, StackedBatchNorm) else _plain, layer, world)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class Moments(torch.autograd.Function):
    r"""Mean and variance over rows that lie in several processes, and their number.

    With the number :math:`n_r`, mean :math:`m_r` and variance :math:`v_r` of process r and :math:`n = \sum_r n_r`,

    .. math:: m = \sum_r \frac{n_r}{n} m_r, \qquad v = \sum_r \frac{n_r}{n} \big( v_r + (m_r - m)^2 \big)

    which, unlike sums of squares, loses no digits where the mean is large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: Tensor | None, axes: tuple[int, ...], world: World) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        number, mean, variance = _own_moments(x, counts, axes)
        packed = world.gather(torch.stack([number.expand_as(mean), mean, variance]))
        numbers, means, variances = packed.unbind(1)
        total = numbers.sum(0)
        shares = numbers / total.clamp(min=1)
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, counts, mean, total)
        ctx.world = world
        ctx.mark_non_differentiable(total)
        return mean, variance, total

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, counts, mean, total = ctx.saved_tensors
        by_mean, by_variance = ctx.world.gather(torch.stack([grad_mean, grad_variance])).sum(0) / total.clamp(min=1)
        # d m / d x = 1 / n and d v / d x = 2 (x - m) / n, as a x + b in one pass.
        slope = 2 * by_variance
        gradient = torch.addcmul(by_mean - slope * mean, x, slope)
        return (gradient if counts is None else torch.where(counts, gradient, 0.0)), None, None, None


def _own_moments(x: Tensor, counts: Tensor | None, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance of this process's rows, the axes kept with length 1."""
    if counts is None:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return mean.new_full((), x.numel() // mean.numel()), mean, variance
    number = counts.sum(axes, keepdim=True).to(x.dtype)
    divisor = number.clamp(min=1)
    mean = torch.where(counts, x, 0.0).sum(axes, keepdim=True) / divisor
    return number, mean, torch.where(counts, (x - mean).square(), 0.0).sum(axes, keepdim=True) / divisor


def _plain(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, world: World, x: Tensor) -> Tensor:
    """`torch.nn.BatchNorm1d` and its kin over all processes."""
    if not layer.training:
        return _BATCH_NORM(layer, x)
    axes = (0, *range(2, x.ndim))
    mean, variance, number = Moments.apply(x, None, axes, world)  # pyright: ignore[reportGeneralTypeIssues]
    if number.flatten()[0] < 2:
        raise ValueError(f"batch normalisation of a single value in each channel, input size {tuple(x.shape)}")
    _follow(layer, mean.flatten(), variance.flatten(), number.flatten())
    normal = (x - mean) * (variance + layer.eps).rsqrt()
    if layer.weight is None:
        return normal
    shape = mean.shape
    return torch.addcmul(layer.bias.view(shape), normal, layer.weight.view(shape))


@torch.no_grad()
def _follow(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, mean: Tensor, variance: Tensor, number: Tensor) -> None:
    """Running statistics as torch's layers keep them: with momentum, or as an average over all batches without."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance * (number / (number - 1)), momentum)


def _stacked(layer: StackedBatchNorm, world: World, x_PBC: Tensor, counts_PB: Tensor | None = None) -> Tensor:
    """`StackedBatchNorm` over all processes; a process without marks counts all of its rows, since others may have marks."""
    if not layer.training:
        return type(layer).forward(layer, x_PBC, counts_PB)
    counts = None if counts_PB is None else counts_PB[..., None]
    moments = Moments.apply(x_PBC, counts, (1,), world)  # pyright: ignore[reportGeneralTypeIssues]
    return layer.normalised(x_PBC, *(moment.squeeze(1) for moment in moments))
