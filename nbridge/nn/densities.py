r"""Densities, and their gradients, that take fewer passes over memory than torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_FACTORS_PER_LOG = 8
"""Number of factors, each in [1/2, 1], whose product shares one logarithm."""


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    r"""The log-probability of independent Bernoulli elements, :math:`\sum_n x_n \ell_n - \log(1 + e^{\ell_n})`, for x in [0, 1].

    .. math:: \log p(x) = \sum_n \big( x_n \ell_n - \max(\ell_n, 0) \big) + \log \prod_n \sigma(|\ell_n|)

    On a CPU a sigmoid costs half as much as a logarithm, so logarithms are taken of products of several factors. An element predicted
    correctly and with certainty adds exactly 0: large terms cancel within the element instead of between two separate sums.

    Returns:
        Shape :math:`(*)`.

    Example:
        >>> bernoulli_log_prob(torch.tensor([0.0, 50.0]), torch.tensor([0.3, 1.0])).exp()
        tensor(0.5000)
    """
    logits, _ = torch.broadcast_tensors(logits, x)
    differentiated = torch.is_grad_enabled() and (logits.requires_grad or x.requires_grad)
    return _BernoulliLogProb.apply(logits, x) if differentiated else _bernoulli_log_prob(logits, x)


def _bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    excess = logits.clamp(min=0).addcmul_(logits, x, value=-1).sum(-1)
    factors = logits.abs().sigmoid_()
    whole = factors.shape[-1] // _FACTORS_PER_LOG * _FACTORS_PER_LOG
    # A group takes one element from each eighth of the axis, because products of neighbours in memory would be slow.
    grouped = factors[..., :whole].unflatten(-1, (_FACTORS_PER_LOG, whole // _FACTORS_PER_LOG)).prod(-2)
    log_prob = grouped.log_().sum(-1) - excess
    return log_prob if whole == factors.shape[-1] else log_prob + factors[..., whole:].log().sum(-1)


class _BernoulliLogProb(Function):
    r"""`_bernoulli_log_prob` with the gradient :math:`x - \sigma(\ell)`, for which automatic differentiation needs many more passes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        return _bernoulli_log_prob(logits, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, x = ctx.saved_tensors
        gradient = gradient[..., None]
        of_x = (gradient * logits).sum_to_size(x.shape) if ctx.needs_input_grad[1] else None
        return gradient * (x - logits.sigmoid()), of_x
