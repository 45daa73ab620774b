r"""Synchronised batch normalisation: statistics over the rows of all processes, applied from outside the model.

With the number :math:`n_r`, mean :math:`m_r` and variance :math:`v_r` of the rows of process r and :math:`n = \sum_r n_r`,

.. math:: m = \sum_r \frac{n_r}{n} m_r, \qquad v = \sum_r \frac{n_r}{n} \big( v_r + (m_r - m)^2 \big)

which, unlike sums of squares, loses no precision if the mean is large. A layer needs one small exchange forward and one backward. torch's
SyncBatchNorm does the same on GPUs, but supports neither CPUs nor `nbridge.nn.networks.StackedBatchNorm`.

Axes: P maps, B rows, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nbridge.acceleration.distributed import World
from nbridge.nn.networks import StackedBatchNorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SERVING: Callable[[nn.Module, Tensor], Tensor] = nn.BatchNorm1d.forward  # pyright: ignore[reportAssignmentType] (all three share it)


@contextmanager
def synchronised(model: nn.Module, world: World) -> Iterator[None]:
    """Makes every batch normalisation of a model use statistics over all processes in training mode. A single process changes nothing."""
    layers = [] if world.is_single else [module for module in model.modules() if isinstance(module, (*_PLAIN, StackedBatchNorm))]
    for layer in layers:
        layer.forward = partial(_stacked if isinstance(layer, StackedBatchNorm) else _plain, layer, world)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _combine(number: Tensor, mean: Tensor, variance: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance of the rows of all processes from those of this process; all of one shape."""
    numbers, means, variances = world.gather(torch.stack([number, mean, variance])).unbind(1)
    total = numbers.sum(0)
    shares = numbers / total.clamp(min=1)
    mean = (shares * means).sum(0)
    return total, mean, (shares * (variances + (means - mean).square())).sum(0)


class _BatchNorm(torch.autograd.Function):
    r"""Batch normalisation like `torch.nn.BatchNorm1d` to 3d but over all processes, composed of torch's own kernels.

    With :math:`\hat{x} = (x - m) / \sigma` the gradient is

    .. math:: \frac{w}{\sigma} \Big( g - \frac{1}{n} \sum g - \frac{\hat{x}}{n} \sum g \hat{x} \Big)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        number = torch.full_like(mean, x.numel() // len(mean))
        number, mean, variance = _combine(number, mean, variance, world)
        ctx.save_for_backward(x, weight, number, mean, variance)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(number, mean, variance)
        return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0], number, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, number, mean, variance = ctx.saved_tensors
        sums_only = (None, None, False, ctx.eps, [False, True, True])
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(gradient, x, weight, mean, variance, *sums_only)
        sum_, product = ctx.world.total(torch.stack([by_bias, by_weight])) / number
        inverse = (variance + ctx.eps).rsqrt()
        scale = inverse if weight is None else weight * inverse
        shape = (-1, *(1 for _ in x.shape[2:]))
        # Two passes over the rows: x with all terms that are constant in a channel, then the gradient.
        by_rows = -scale * inverse * product
        by_x = torch.addcmul((-scale * sum_ - by_rows * mean).view(shape), x, by_rows.view(shape)).addcmul_(gradient, scale.view(shape))
        return by_x, None if weight is None else by_weight, None if weight is None else by_bias, None, None


def _to_statistics_dtype(layer: nn.Module, x: Tensor) -> Tensor:
    """Converts rows to the dtype of the running statistics, because sums over many rows need its precision."""
    return x if layer.running_mean is None else x.to(layer.running_mean.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _plain(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, world: World, x: Tensor) -> Tensor:
    if not layer.training:
        return _SERVING(layer, x)
    x = _to_statistics_dtype(layer, x)
    y, number, mean, variance = _BatchNorm.apply(x, layer.weight, layer.bias, layer.eps, world)  # pyright: ignore[reportGeneralTypeIssues]
    _update_running(layer, number, mean, variance)
    return y


@torch.no_grad()
def _update_running(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, number: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Updates running statistics like torch's layers: with momentum or, without it, as an average over all batches."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance * (number / (number - 1)), momentum)


class _Moments(torch.autograd.Function):
    """Number, mean and variance, shape (P, C), of the counted rows of all processes, for rows of shape (P, B, C)."""

    @staticmethod
    def forward(ctx: Any, x_PBC: Tensor, counts_PB: Tensor, world: World) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        counts, number = counts_PB[..., None], counts_PB.sum(1)[:, None].to(x_PBC.dtype)
        mean = torch.where(counts, x_PBC, 0.0).sum(1) / number.clamp(min=1)
        variance = torch.where(counts, (x_PBC - mean[:, None]).square(), 0.0).sum(1) / number.clamp(min=1)
        number, mean, variance = _combine(number.expand_as(mean), mean, variance, world)
        ctx.save_for_backward(x_PBC, counts, number, mean)
        ctx.world = world
        ctx.mark_non_differentiable(number)
        return number, mean, variance

    @staticmethod
    def backward(ctx: Any, _: Tensor, by_mean: Tensor, by_variance: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, counts, number, mean = ctx.saved_tensors
        by_mean, by_variance = ctx.world.total(torch.stack([by_mean, by_variance])) / number.clamp(min=1)
        # d m / d x = 1 / n and d v / d x = 2 (x - m) / n.
        gradient = torch.addcmul(by_mean[:, None], x - mean[:, None], 2 * by_variance[:, None])
        return torch.where(counts, gradient, 0.0), None, None


def _stacked(layer: StackedBatchNorm, world: World, x_PBC: Tensor, counts_PB: Tensor | None = None) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x_PBC, counts_PB)
    x_PBC = _to_statistics_dtype(layer, x_PBC)
    # Another process may have a mask where this one has none, so a mask of ones keeps the exchange the same.
    counts = torch.ones_like(x_PBC[..., 0], dtype=torch.bool) if counts_PB is None else counts_PB
    number, mean, variance = _Moments.apply(x_PBC, counts, world)  # pyright: ignore[reportGeneralTypeIssues]
    return layer.normalised(x_PBC, mean, variance, number)
