r"""Distributions missing from torch, and products of Gaussian posteriors.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.nn import functional as F

from nbridge.common import randomness

LOG_VARIANCE = (-10.0, 4.0)
"""Bounds of a posterior's log-variance: wide enough not to bind in a sound model, narrow enough that no product overflows."""


class StableNormal(Normal):
    r"""A normal distribution that squares the standardised distance instead of the scale, so that scales of 1e-25 or 1e25 are safe."""

    def log_prob(self, value: Tensor) -> Tensor:
        return -((value - self.loc) / self.scale).square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2


class _SeededNormal(Normal):
    """A normal distribution that draws by `nbridge.common.randomness`."""

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        with torch.no_grad():
            return randomness.normal(self.loc.expand(shape), self.scale.expand(shape))

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return self.loc + self.scale * randomness.randn(*shape, device=self.loc.device, dtype=self.loc.dtype)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    r"""The Gaussian :math:`\mathcal{N}(\mu, \mathrm{diag}(\sigma^2))` over the last axis.

    Arguments:
        loc: The mean :math:`\mu`, shape :math:`(*, D)`.
        scale: The standard deviation :math:`\sigma`, shape :math:`(*, D)`.
    """
    return Independent(_SeededNormal(loc, scale, validate_args=False), 1, validate_args=False)


def log_variance_normal(loc: Tensor, log_variance: Tensor) -> Independent:
    r"""`diagonal_normal` from the mean and :math:`\log \sigma^2`, each of shape :math:`(*, D)`."""
    return diagonal_normal(loc, (log_variance / 2).exp())


def normal_or_prior(rows: Tensor, q: Independent) -> Independent:
    """Takes ``q``, batch shape (B,) over D, where ``rows``, boolean, shape (B,), is true and N(0, I) elsewhere."""
    rows = rows[:, None]
    return diagonal_normal(torch.where(rows, q.mean, 0.0), torch.where(rows, q.stddev, 1.0))


def diagonal_where(rows: Tensor, q: Independent, p: Independent) -> Independent:
    """Takes ``q`` where ``rows``, boolean, shape (B,), is true and ``p`` elsewhere; each has batch shape (B,) over D."""
    rows = rows[:, None]
    return diagonal_normal(torch.where(rows, q.mean, p.mean), torch.where(rows, q.stddev, p.stddev))


def diagonal_kl(q: Independent, p: Independent | None = None) -> Tensor:
    r"""The KL divergence of two Gaussians with diagonal covariances; ``p`` is N(0, I) by default. The result has their batch shape.

    .. math:: \mathrm{KL}(q \,\|\, p) = \sum_d \Big( \log \frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2 \sigma_p^2}
        - \frac{1}{2} \Big)

    Equal to `torch.distributions.kl_divergence`, which `torch.compile` cannot trace.
    """
    if p is None:
        return ((q.stddev.square() + q.mean.square() - 1) / 2 - q.stddev.log()).sum(-1)
    ratio = q.stddev / p.stddev
    return ((ratio.square() + ((q.mean - p.mean) / p.stddev).square() - 1) / 2 - ratio.log()).sum(-1)


def product_of_posteriors(loc: Tensor, log_variance: Tensor, present: Tensor, exponents: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Multiplies the unimodal posteriors of the observed modalities, counting the prior once.

    .. math:: p(z \mid x_S) \propto p(z)^{1 - \sum_S a_i} \prod_{i \in S} p(z \mid x_i)^{a_i}, \qquad p(z) = \mathcal{N}(0, I)

    With all exponents :math:`a_i = 1`, the default, this is exact if the modalities are independent given z. Approximate posteriors are not
    equally reliable: an exponent below 1 discounts an overconfident one, an exponent above 1 sharpens an underconfident one.

    For Gaussians :math:`\mathcal{N}(\mu_i, \lambda_i^{-1})` the product has precision
    :math:`\lambda = \sum_i a_i \lambda_i - (\sum_i a_i - 1)` and mean :math:`\lambda^{-1} \sum_i a_i \lambda_i \mu_i`. Posteriors wider
    than the prior could make :math:`\lambda` non-positive; it is therefore bounded below by the precision of the sharpest expert,
    :math:`\max_i a_i \lambda_i - (a_i - 1)`. Exact posteriors satisfy this bound because evidence does not widen a Gaussian posterior.
    With one modality observed and an exponent of 1 the result is its own posterior; with none it is the prior.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu & Goodman, 2018), https://arxiv.org/abs/1802.05335

    Arguments:
        loc: Means :math:`\mu_i`, shape :math:`(M, B, D)`.
        log_variance: Log-variances :math:`-\log \lambda_i`, shape :math:`(M, B, D)`.
        present: Which modalities are observed, boolean, shape :math:`(M, B)`.
        exponents: The exponents :math:`a_i`, positive, broadcastable with :math:`(M, B, D)`; all 1 by default.

    Returns:
        Mean and log-variance, each of shape :math:`(B, D)`.
    """
    observed = present[..., None]
    precision = torch.where(observed, (-log_variance).exp(), 0.0)
    if exponents is None:
        total = torch.maximum(precision.sum(0) - (present.sum(0)[..., None] - 1), precision.amax(0))
        return (precision * torch.where(observed, loc, 0.0)).sum(0) / total, -total.log()
    a = torch.where(observed, exponents, 0.0)
    tempered = a * precision
    # The tempered precision of each expert alone; an expert wider than the prior keeps its own, as a large exponent would make it improper.
    alone = torch.maximum(tempered - (a - 1), precision.clamp(max=1))
    total = torch.maximum(tempered.sum(0) - (a.sum(0) - 1), torch.where(observed, alone, 0.0).amax(0))
    # With nothing observed the sum is the prior's precision, 1.
    return (tempered * torch.where(observed, loc, 0.0)).sum(0) / total, -total.log()


def product_with_mixture(
    loc: Tensor, log_variance: Tensor, present: Tensor, exponents: Tensor | None, mixture: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Multiplies the unimodal posteriors of the observed modalities with a mixture of Gaussians in place of the prior.

    .. math:: q(z \mid x_S) \propto \hat{p}(z) \prod_{i \in S} \Big( \frac{q_i(z \mid x_i)}{\bar{q}(z)} \Big)^{a_i}, \qquad
        \hat{p}(z) = \sum_c \pi_c \, \mathcal{N}(m_c, v_c)

    where :math:`\bar{q}` is the Gaussian with the mean and variance of the mixture. Unimodal posteriors are fitted to codes distributed
    like the mixture, so dividing by :math:`\bar{q}` leaves the evidence of each. A posterior that is wider than :math:`\bar{q}` in a
    dimension adds nothing there. The result is again a mixture, in closed form, with components of precision
    :math:`\lambda_c = 1 / v_c + \ell`, mean :math:`\lambda_c^{-1} (m_c / v_c + \eta)` and weight proportional to
    :math:`\pi_c \int \mathcal{N}(z \mid m_c, v_c) e^{\eta z - \ell z^2 / 2} dz`.

    Arguments:
        loc: Means of the posteriors, shape :math:`(M, B, D)`.
        log_variance: Their log-variances, shape :math:`(M, B, D)`.
        present: Which modalities are observed, boolean, shape :math:`(M, B)`.
        exponents: The exponents :math:`a_i`, positive, broadcastable with :math:`(M, B, D)`, or None for ones.
        mixture: Weights :math:`\pi`, shape :math:`(C,)`, means m and variances v, each of shape :math:`(C, D)`.

    Returns:
        Normalised log-weights of the components, shape :math:`(B, C)`, and what the observed modalities add to every component: the
        precision :math:`\ell` and the natural mean :math:`\eta`, each of shape :math:`(B, D)`.
    """
    weights, means, variances = mixture
    centre = weights @ means
    spread = (weights[:, None] * (variances + (means - centre).square())).sum(0)
    gain = (-log_variance).exp() - 1 / spread
    counts = present[..., None] & (gain > 0)
    a = torch.ones_like(gain) if exponents is None else exponents
    precision = torch.where(counts, a * gain, 0.0).sum(0)
    natural = torch.where(counts, a * (loc * (-log_variance).exp() - centre / spread), 0.0).sum(0)
    total = 1 / variances + precision[:, None]
    mean = (means / variances + natural[:, None]) / total
    # The integral of each component, up to a factor common to all.
    exponent = mean.square() * total - means.square() / variances - (variances * total).log()
    return (weights.log() + exponent.sum(-1) / 2).log_softmax(-1), precision, natural


def product_of_experts(loc: Tensor, log_variance: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    r"""Multiplies the prior with the experts of the observed modalities.

    .. math:: q(z \mid x_S) \propto p(z) \prod_{i \in S} q_i(z \mid x_i), \qquad p(z) = \mathcal{N}(0, I)

    For Gaussian experts :math:`\mathcal{N}(\mu_i, \lambda_i^{-1})` the product has precision :math:`\lambda = 1 + \sum_i \lambda_i` and
    mean :math:`\lambda^{-1} \sum_i \lambda_i \mu_i`, computed in logarithms so that no precision overflows. Unlike posteriors, experts do
    not include the prior. With no modality observed the result is the prior.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu & Goodman, 2018), https://arxiv.org/abs/1802.05335

    Arguments:
        loc: Means :math:`\mu_i`, shape :math:`(M, B, D)`.
        log_variance: Log-variances :math:`-\log \lambda_i`, shape :math:`(M, B, D)`.
        present: Which experts count, boolean, shape :math:`(*, M, B)`.

    Returns:
        Mean and log-variance, each of shape :math:`(*, B, D)`.
    """
    log_precision = torch.where(present[..., None], -log_variance, -math.inf)
    total = torch.logaddexp(torch.logsumexp(log_precision, -3), torch.zeros_like(log_variance[0]))
    shares = (log_precision - total.unsqueeze(-3)).exp()
    return (shares * torch.where(present[..., None], loc, 0.0)).sum(-3), -total


class DiscretizedLogistic(Distribution):
    r"""A logistic distribution rounded to equally spaced levels, with the tails assigned to the first and last level.

    .. math:: P(x) = \sigma\big((x + \delta/2 - \mu) / s\big) - \sigma\big((x - \delta/2 - \mu) / s\big)

    where :math:`\delta` is the distance between levels; the first term is 1 at the last level, the second is 0 at the first level. The log
    of the difference is :math:`\log \sigma(b) + \log \sigma(-a) + \log(1 - e^{a-b})`, which is accurate at any distance from the mean.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), https://arxiv.org/abs/1606.04934

    Arguments:
        loc: The location :math:`\mu`, any shape.
        log_scale: :math:`\log s`, broadcastable with ``loc``.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256, low: float = 0.0, high: float = 1.0) -> None:
        # The scale is not broadcast: there are few scales, and exponentiating each once halves the time of the density.
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)[0], log_scale
        self.levels, self.low, self.high = levels, low, high
        self.step = (high - low) / (levels - 1)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {"loc": constraints.real, "log_scale": constraints.real}

    @property
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.low, self.high)

    @property
    def mode(self) -> Tensor:
        return self._to_level(self.loc)

    @property
    def mean(self) -> Tensor:
        r""":math:`\mathrm{low} + \delta \sum_{k \geq 1} P(x \geq x_k)`, summed level by level so that memory does not grow."""
        tail = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            edge = self.low + (k - 0.5) * self.step
            tail = tail + torch.sigmoid((self.loc - edge) * (-self.log_scale).exp())
        return self.low + self.step * tail

    def expand(self, batch_shape: Size | list[int] | tuple[int, ...], _instance: object = None) -> DiscretizedLogistic:
        shape = Size(batch_shape)
        return DiscretizedLogistic(self.loc.expand(shape), self.log_scale.expand(shape), self.levels, self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        inverse = (-self.log_scale).exp()
        distance, margin = (value - self.loc) * inverse, self.step / 2 * inverse
        below, above = F.logsigmoid(margin + distance), F.logsigmoid(margin - distance)
        inside = below + above + torch.log(-torch.expm1(-(self.step * inverse).clamp(min=1e-30)))
        half = self.step / 2
        return torch.where(value < self.low + half, below, torch.where(value > self.high - half, above, inside))

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            u = randomness.rand(*shape, dtype=self.loc.dtype, device=self.loc.device).clamp(1e-7, 1 - 1e-7)
            return self._to_level(self.loc + self.log_scale.exp() * torch.logit(u))

    def _to_level(self, x: Tensor) -> Tensor:
        index = ((x - self.low) / self.step).round().clamp(0, self.levels - 1)
        return (self.low + index * self.step).clamp(self.low, self.high)
