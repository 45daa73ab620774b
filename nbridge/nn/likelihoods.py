r"""Likelihoods :math:`p(x_i \mid z)`: from a decoder's raw numbers to a distribution over one modality.

A likelihood owns everything that depends on what the values of a modality mean: how many raw numbers an element needs and what they
stand for (so no network ends in a sigmoid or a softmax), the support, the standard form that an encoder sees, and how a mean becomes a
value that could have been observed. To add your own, inherit from `Likelihood`, take ``shape`` as the positional argument and your
hyper-parameters as keyword-only ones, implement `forward`, and run `nbridge.testing.check_likelihood` on it.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, distributions, nn
from torch.distributions import Distribution, Independent, constraints
from torch.nn import functional as F

from nbridge.nn.densities import bernoulli_log_prob
from nbridge.nn.distributions import DiscretizedLogistic as RoundedLogistic
from nbridge.nn.distributions import StableNormal
from nbridge.spec.option_types import ClassShape, Levels, Scale, Shape

LOG_SCALE = (-7.0, 7.0)
"""Bounds of the log of a spread, in standardised units: a constant column must not send a density to infinity."""
LOG_RATE = (-15.0, 15.0)
"""Bounds of the log of a rate relative to its mean over the training rows."""
MOSTLY = 0.9
"""The share of values at the ends of a support, or equal to 0 or 1, from which on another likelihood would serve them better."""
BOUND, NEAR = 0.05, 0.01
"""The share of predicted numbers at one of their bounds that is told, and how near a bound counts as there."""
CERTAIN, WRONG = 15.0, 1e-3
"""Log-odds from which on a probability counts as certain, and the share of values predicted so, and wrongly, that is told."""


@dataclass(frozen=True)
class Edge:
    """Something at the edge of what a likelihood can say.

    Arguments:
        text: What, and what to do, in words that follow the name of the modality.
        figures: What it rests on.
    """

    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Likelihood(nn.Module, ABC):
    """A family of distributions over one modality.

    Arguments:
        shape: Shape of the modality.

    Attributes:
        parameters_per_element: Raw numbers needed for each element.
        support: The values that have a density, as a torch constraint over single elements.
        discrete: Whether the values are few enough for the ``cross`` objective: regressing them does not cost diversity.
        hole: What an encoder sees in place of a cell that is not observed, in standard form: the middle of the data.
        elementwise: Whether the distribution is an `Independent` over elements of the modality, so that a row may be observed in part.
        spread: Factors of the distribution's spread (temperatures, for classes) as it is served, shape (n,): one for each number of
            other modalities given, the first where nothing is given. `nbridge.inference.calibration` sets them after training; densities
            never use them. None where the family has none; `forward` of a family with factors takes one as its second argument.
        resolution: The distance between neighbouring values; 0 where values are continuous.
    """

    parameters_per_element: int = 1
    support: constraints.Constraint = constraints.real
    discrete: bool = False
    elementwise: bool = True
    hole: float = 0.0
    resolution: float = 0.0
    spread: Tensor | None
    _typed: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("spread", None)
        # Moves with the module; what has a spread, a scale or none of them knows its type by it.
        self.register_buffer("_typed", torch.zeros(()), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of values in canonical and in standard form."""
        return self._typed.dtype

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """What a decoder's network must give for each row: the shape with its first axis repeated for each parameter."""
        return (self.parameters_per_element * self.shape[0], *self.shape[1:])

    @abstractmethod
    def forward(self, raw: Tensor) -> Distribution:
        """The distribution, batch shape :math:`(*)`, of raw numbers of shape :math:`(*, *raw_shape)`."""

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r""":math:`\log p(x_i \mid z)`, shape :math:`(*, B)`, of raw numbers of shape :math:`(*, B, *raw_shape)`.

        It goes through `forward`; a likelihood whose density has a shorter way may take it here.

        Arguments:
            raw: What the decoder's network gives.
            x: Values in canonical form, :math:`(B, *shape)`.
            cells: Observed cells, :math:`(B, *shape)`; the others do not count.
        """
        return _log_prob(self(raw), x, cells)

    def served(self, raw: Tensor, given: Tensor | None = None) -> Distribution:
        r"""The calibrated distribution, which imputations are drawn from, of raw numbers of shape :math:`(*, B, *raw_shape)`.

        Arguments:
            raw: What the decoder's network gives.
            given: How many other modalities z was inferred from, integers, shape (B,); nothing when left out.
        """
        if self.spread is None or not self.takes_factor:
            return self(raw)
        if given is None:
            return self(raw, self.spread[0])
        return self(raw, self.spread[given.clamp(max=len(self.spread) - 1)].reshape(-1, *(1 for _ in self.shape)))

    def served_log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        r"""`log_prob` of the distribution that `served` gives."""
        if self.spread is None or not self.takes_factor:
            return self.log_prob(raw, x, cells)
        return _log_prob(self.served(raw, given), x, cells)

    @property
    def takes_factor(self) -> bool:
        """Whether `forward` takes a factor of the spread; a class of one's own may override it without."""
        return "factor" in inspect.signature(type(self).forward).parameters

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Takes statistics such as a mean and a spread from training rows.

        Arguments:
            x: Canonical values of the rows in which the modality is present, shape :math:`(N, *shape)`.
            observed: Which of their cells count, boolean, of the shape of ``x``.
        """

    def canonical(self, x: Tensor) -> Tensor:
        """The form that the distribution takes, of values in any form that a user may give; canonical values stay as they are."""
        return x.to(self.dtype)

    def restore(self, x: Tensor, like: Tensor) -> Tensor:
        """Undoes `canonical`: the form and type in which ``like`` was given, leading axes kept."""
        return x.to(like.dtype) if like.is_floating_point() else x.round().to(like.dtype)

    def standardize(self, x: Tensor) -> Tensor:
        """The form that an encoder sees, of canonical values: floating point, shape :math:`(B, *shape)`, of moderate size."""
        return x

    def blank(self, rows: int) -> Tensor:
        """A stand-in for absent values: any rows inside the support, in canonical form."""
        return torch.zeros(rows, *self.shape, dtype=self.dtype)

    def expectation(self, distribution: Distribution) -> Tensor:
        """What a point estimate averages over draws of z."""
        return distribution.mean

    def point(self, expectation: Tensor) -> Tensor:
        """The value inside the support, in canonical form, that an averaged expectation stands for."""
        return expectation

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:  # noqa: ARG002 (for likelihoods with bounds of their own)
        r"""Where values, or what is predicted of them, stand at the edge of what this likelihood can say.

        `nbridge.evaluate` tells of each in a line. By default it is of real values that lie mostly, nine in ten, exactly at an end of the
        support; a likelihood of your own may add what it knows of its bounds: ``yield from super().edges(raw, x, observed)`` first.

        Arguments:
            raw: What the decoder's network gives for rows that have the modality, one z each, :math:`(B, *raw_shape)`.
            x: Their values in canonical form.
            observed: Which of them count, boolean, of the shape of ``x``.
        """
        ends = [end for name in ("lower_bound", "upper_bound") if (end := getattr(self.support, name, None)) is not None]
        if not ends or self.support.is_discrete or not observed.any():
            return
        at_end = torch.stack([x == end for end in ends]).any(0)
        if (share := _share(at_end, observed)) >= MOSTLY:
            named = " or ".join(f"{end:g}" for end in ends)
            text = f"{share:.0%} of its values are exactly {named}, at an end of the support; if there are two kinds, use bernoulli"
            yield Edge(text, {"share of values at an end": share})

    def extra_repr(self) -> str:
        return f"shape={self.shape}"

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """The raw numbers of each parameter, every part of the modality's shape behind the leading axes."""
        return raw.chunk(self.parameters_per_element, dim=-len(self.shape))

    def _independent(self, elements: Distribution) -> Independent:
        return Independent(elements, len(self.shape), validate_args=False)


class Bernoulli(Likelihood):
    r"""Independent Bernoulli elements, with soft targets: :math:`\log p(x \mid z) = \sum x \log \pi + (1 - x) \log(1 - \pi)`.

    For grey levels between 0 and 1 this is a cross-entropy, the usual choice for MNIST, and not a normalised density.

    Arguments:
        shape: Shape of the modality.
        attributes: Whether the elements are attributes with a meaning each, not pixels: then the ``cross`` objective predicts them.
    """

    support = constraints.unit_interval
    hole = 0.5

    def __init__(self, shape: Shape, *, attributes: bool = False) -> None:
        super().__init__(shape)
        self.discrete = attributes

    def forward(self, raw: Tensor) -> Distribution:
        return self._independent(distributions.Bernoulli(logits=raw, validate_args=False))

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        if cells is not None or type(self).forward is not Bernoulli.forward:
            # Rows observed in part, or a subclass with a distribution of its own.
            return super().log_prob(raw, x, cells)
        axis = -len(self.shape)
        return bernoulli_log_prob(raw.flatten(axis), x.to(raw.dtype).flatten(axis))

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:
        """Values that are predicted with certainty, and wrongly; the ends of the support are where binary values belong."""
        if type(self).forward is not Bernoulli.forward:
            # A subclass may read its raw numbers in another way.
            return
        wrong = (raw.abs() >= CERTAIN) & ((raw > 0) != (x > 0.5))
        if observed.any() and (share := _share(wrong, observed)) >= WRONG:
            text = (
                f"{share:.1%} of its values are predicted wrongly with a probability within {math.exp(-CERTAIN):.0e} of 0 or 1, at "
                f"{CERTAIN:.0f} nats each or more; lower training.learning_rate, or set training.gradient_clip"
            )
            yield Edge(text, {"share of values certain and wrong": share})


class Categorical(Likelihood):
    """One of C classes. Values are class indices, shape (B,), or one-hot, shape (B, C); what was given comes back in its own form."""

    discrete = True
    elementwise = False

    def __init__(self, shape: ClassShape) -> None:
        super().__init__(shape)
        self.spread = torch.ones(1)
        self.support = constraints.integer_interval(0, self.shape[0] - 1)

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        return distributions.Categorical(logits=raw if factor is None else raw / factor, validate_args=False)

    def canonical(self, x: Tensor) -> Tensor:
        return x.argmax(-1) if x.ndim == 2 else x.long()

    def restore(self, x: Tensor, like: Tensor) -> Tensor:
        return (F.one_hot(x, self.shape[0]) if like.ndim == 2 else x).to(like.dtype)

    def standardize(self, x: Tensor) -> Tensor:
        return F.one_hot(x, self.shape[0]).to(self.dtype)

    def blank(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.long)

    def expectation(self, distribution: Distribution) -> Tensor:
        assert isinstance(distribution, distributions.Categorical)
        return distribution.probs

    def point(self, expectation: Tensor) -> Tensor:
        return expectation.argmax(-1)


class _LocationScale(Likelihood):
    """A location from the decoder and a spread that is learned, predicted or fixed, in units of the training rows' spread."""

    family: ClassVar[type[distributions.Normal] | type[distributions.Laplace]]
    shift: Tensor
    unit: Tensor

    def __init__(self, shape: Shape, *, scale: Scale = "learned", standardize: bool = True) -> None:
        super().__init__(shape)
        self.scale, self._standardize = scale, standardize
        self.parameters_per_element = 2 if scale == "predicted" else 1
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("shift", torch.zeros(self.shape))
        self.register_buffer("unit", torch.ones(self.shape))
        self.spread = torch.ones(1)

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        loc, *rest = self.split(raw)
        scale = self.unit * (torch.full_like(loc, self.scale) if isinstance(self.scale, float | int) else self._scale(*rest))
        return self._independent(
            self.family(self.shift + self.unit * loc, scale if factor is None else scale * factor, validate_args=False)
        )

    def _scale(self, predicted: Tensor | None = None) -> Tensor:
        return (self.log_scale if predicted is None else predicted).clamp(*LOG_SCALE).exp()

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Takes the mean and the standard deviation of each element; one that never varies keeps the unit 1."""
        if self._standardize:
            mean = _mean(x, observed)
            deviation = _mean((x.double() - mean).square(), observed).sqrt().to(self.unit)
            self.shift.copy_(mean)
            self.unit.copy_(torch.where(deviation > 1e-6 * self.shift.abs().clamp(min=1e-30), deviation, 1.0))

    def standardize(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.unit

    def blank(self, rows: int) -> Tensor:
        return self.shift.expand(rows, *self.shape)

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:
        """Values that are nearly all 0 or 1, and spreads at a bound."""
        yield from super().edges(raw, x, observed)
        zeros, ones = ((_share(x == value, observed) if observed.any() else 0.0) for value in (0, 1))
        if zeros and ones and zeros + ones >= MOSTLY:
            text = (
                f"{zeros + ones:.0%} of its values are exactly 0 or 1, which a density describes ever better as it narrows; use bernoulli"
            )
            yield Edge(text, {"share of values 0": zeros, "share of values 1": ones})
        if self.scale == "learned":
            yield from _bounded("learned spread", self.log_scale, "leave out elements that never vary, or give scale a number")
        elif self.scale == "predicted":
            yield from _bounded_share("predicted spreads", self.split(raw)[1], observed, LOG_SCALE, "use scale: learned, or a number")

    def extra_repr(self) -> str:
        return f"shape={self.shape}, scale={self.scale!r}"


class Normal(_LocationScale):
    r"""Independent normal elements, :math:`\mathcal{N}(x; m + s\,\mu(z), (s\,\sigma)^2)`, with m and s from the training rows.

    Arguments:
        shape: Shape of the modality.
        scale: The spread :math:`\sigma` in units of s: ``"learned"``, one number per element; ``"predicted"`` from z; or a fixed number.
        standardize: Whether m and s are the training rows' mean and standard deviation (else 0 and 1).
    """

    family = StableNormal


class Laplace(_LocationScale):
    r"""Independent Laplace elements, :math:`\mathrm{Laplace}(x; m + s\,\mu(z), s\,b)`, with m and s from the training rows.

    Arguments:
        shape: Shape of the modality.
        scale: The spread b in units of s: ``"learned"``, one number per element; ``"predicted"`` from z; or a fixed number.
        standardize: Whether m and s are the training rows' mean and standard deviation (else 0 and 1).
    """

    family = distributions.Laplace


class DiscretizedLogistic(Likelihood):
    """Independent logistic elements rounded to equally spaced levels, for images of 256 grey or colour levels.

    The scale is one learned number per channel (the first axis) in units of the range, as in Kingma et al. (2016).

    Arguments:
        shape: Shape of the modality.
        levels: The number of levels.
        low: The first level.
        high: The last level; 255 for images of type uint8.

    Raises:
        ValueError: when ``high`` is not above ``low``.
    """

    def __init__(self, shape: Shape, *, levels: Levels = 256, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(shape)
        if not low < high:
            raise ValueError(f"discretized_logistic: high ({high}) must be above low ({low})")
        self.levels, self.low, self.high = levels, low, high
        self.resolution = (high - low) / (levels - 1)
        self.support = constraints.interval(low, high)
        self.spread = torch.ones(1)
        self.log_scale = nn.Parameter(torch.full((self.shape[0], *(1 for _ in self.shape[1:])), -2.0))

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        span = self.high - self.low
        loc = (self.low + self.high) / 2 + raw * (span / 4)
        log_scale = self.log_scale.clamp(*LOG_SCALE) + math.log(span)
        log_scale = log_scale if factor is None else log_scale + factor.log()
        return self._independent(RoundedLogistic(loc, log_scale, self.levels, self.low, self.high))

    def standardize(self, x: Tensor) -> Tensor:
        return (x - self.low) * (4 / (self.high - self.low)) - 2

    def blank(self, rows: int) -> Tensor:
        return torch.full((rows, *self.shape), self.low, dtype=self.dtype)

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:
        """Values at the first and the last level, and spreads at a bound."""
        yield from super().edges(raw, x, observed)
        yield from _bounded("learned spread", self.log_scale, "leave out channels that never vary", unit="channel")

    def expectation(self, distribution: Distribution) -> Tensor:
        # The exact mean sums over all levels; the location differs from it only where the tails are cut.
        assert isinstance(distribution, Independent)
        return distribution.base_dist.loc.clamp(self.low, self.high)

    def point(self, expectation: Tensor) -> Tensor:
        step = (self.high - self.low) / (self.levels - 1)
        return (self.low + ((expectation - self.low) / step).round() * step).clamp(self.low, self.high)


class _Count(Likelihood):
    """Counts with a log-rate relative to the training rows' mean."""

    support = constraints.nonnegative_integer
    resolution = 1.0
    log_mean: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.register_buffer("log_mean", torch.zeros(self.shape))

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Takes the mean count of each element, with half a count added to the sum so that its log is finite."""
        self.log_mean.copy_((_mean(x, observed) + 0.5 / observed.sum(0).clamp(min=1).double()).log())

    def standardize(self, x: Tensor) -> Tensor:
        return torch.log1p(x) - F.softplus(self.log_mean)

    def point(self, expectation: Tensor) -> Tensor:
        return expectation.round()

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:
        """Rates at a bound."""
        yield from super().edges(raw, x, observed)
        yield from _bounded_share("predicted rates", raw, observed, LOG_RATE, "look for extreme counts, or leave out what is always 0")

    def _log_rate(self, raw: Tensor) -> Tensor:
        return (raw.clamp(*LOG_RATE) + self.log_mean).clamp(max=30.0)


class Poisson(_Count):
    r"""Independent Poisson counts with rate :math:`\bar{x}\, e^{r(z)}`, where the mean count is taken from the training rows."""

    def forward(self, raw: Tensor) -> Distribution:
        return self._independent(distributions.Poisson(self._log_rate(raw).exp(), validate_args=False))


class NegativeBinomial(_Count):
    r"""Independent overdispersed counts with mean :math:`\mu = \bar{x}\, e^{r(z)}` and variance :math:`\mu + \mu^2 / \theta`.

    The dispersion :math:`\theta` is one learned number per element, as in scVI (Lopez et al., 2018).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.log_dispersion = nn.Parameter(torch.zeros(self.shape))

    def forward(self, raw: Tensor) -> Distribution:
        log_dispersion = self.log_dispersion.clamp(*LOG_RATE)
        logits = self._log_rate(raw) - log_dispersion
        return self._independent(distributions.NegativeBinomial(log_dispersion.exp().expand_as(logits), logits=logits, validate_args=False))

    def edges(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[Edge]:
        """Rates and dispersions at a bound."""
        yield from super().edges(raw, x, observed)
        yield from _bounded("dispersion", self.log_dispersion, "where it is at the upper one, use poisson", bounds=LOG_RATE)


def _log_prob(distribution: Distribution, x: Tensor, cells: Tensor | None) -> Tensor:
    """The log-density of the cells that count."""
    if cells is None:
        return distribution.log_prob(x)
    assert isinstance(distribution, Independent), "rows observed in part need independent elements"
    elements = distribution.base_dist.log_prob(x) * cells
    return elements.flatten(-distribution.reinterpreted_batch_ndims).sum(-1)


def _mean(x: Tensor, observed: Tensor) -> Tensor:
    """The mean of each element over the rows in which it is observed, in double precision; zero where it never is."""
    return torch.where(observed, x, 0.0).double().sum(0) / observed.sum(0).clamp(min=1)


def _share(cells: Tensor, observed: Tensor) -> float:
    """The share of some cells among those observed, one or more."""
    return (cells & observed).sum().item() / observed.sum().item()


def _bounded(what: str, log: Tensor, advice: str, *, bounds: tuple[float, float] = LOG_SCALE, unit: str = "element") -> Iterator[Edge]:
    """That a learned number is at a bound for some elements, where its gradient is zero and training can move it no more."""
    low, high = int((log <= bounds[0] + NEAR).sum()), int((log >= bounds[1] - NEAR).sum())
    for number, side, bound in ((low, "lower", bounds[0]), (high, "upper", bounds[1])):
        if number:
            text = f"the {what} of {number:,} of {log.numel():,} {unit}s is at its {side} bound, {math.exp(bound):.2g}; {advice}"
            yield Edge(text, {f"{unit}s at the {side} bound": number, f"{unit}s": log.numel()})


def _bounded_share(what: str, log: Tensor, observed: Tensor, bounds: tuple[float, float], advice: str) -> Iterator[Edge]:
    """That a predicted number is at a bound in many cells."""
    at = (log <= bounds[0] + NEAR) | (log >= bounds[1] - NEAR)
    if observed.any() and (share := _share(at, observed)) >= BOUND:
        text = f"{share:.0%} of its {what} are at their bounds, {math.exp(bounds[0]):.2g} and {math.exp(bounds[1]):.2g} units; {advice}"
        yield Edge(text, {"share at a bound": share})
