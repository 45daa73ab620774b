r"""Likelihoods :math:`p(x_i \mid z)`: from a decoder's raw parameters to a distribution over one modality.

A likelihood defines everything that depends on the meaning of a modality's values: the number and meaning of the raw parameters per
element (so no network ends in a sigmoid or softmax), the support, the standard form for encoders, and how an expectation becomes a value
in the support. To add your own, inherit from `Likelihood`, take ``shape`` as the positional argument and hyper-parameters as keyword-only
arguments, implement `forward`, and test it with `nbridge.testing.check_likelihood`.
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
from nbridge.spec.option_types import ClassShape, Levels, Scale, Shape, SizeFactor

LOG_SCALE = (-7.0, 7.0)
"""Bounds of a log-scale, in standardised units, so that a constant column does not send the density to infinity."""
LOG_RATE = (-15.0, 15.0)
"""Bounds of a log-rate relative to its mean over the training rows."""
MIN_SHARE_AT_END = 0.9
"""Smallest share of values at the ends of a support, or equal to 0 or 1, that is reported: another likelihood would fit better."""
MIN_SHARE_AT_BOUND, BOUND_TOLERANCE = 0.05, 0.01
"""Smallest share of predicted parameters at a bound that is reported, and the distance that counts as at the bound."""
CERTAIN_LOG_ODDS, MIN_SHARE_WRONG = 15.0, 1e-3
"""Log-odds that count as certain, and the smallest share of values predicted with certainty but wrongly that is reported."""


@dataclass(frozen=True)
class BoundWarning:
    """A warning that values or predictions are at a limit of their likelihood.

    The text is the problem and the remedy, to follow the name of the modality; ``details`` are the numbers behind it.
    """

    text: str
    details: Mapping[str, float] = field(default_factory=dict)


class Likelihood(nn.Module, ABC):
    """Base class of likelihoods: a family of distributions over one modality.

    Arguments:
        shape: Shape of the modality.

    Attributes:
        parameters_per_element: Raw parameters per element.
        support: The values with a density, as a torch constraint on single elements.
        discrete: Whether the values are discrete enough for the ``cross`` objective, which would reduce the diversity of continuous ones.
        fill_value: The value that encoders get for missing cells, in standard form: the middle of the data.
        elementwise: Whether the distribution is an `Independent` over elements, so that a row may be partly observed.
        spread: Calibration factors of the distribution's scale (temperatures, for classes), shape (n,) or one for each element,
            (n, ...): entry k applies if k other modalities are given. `nbridge.inference.calibration` sets them after training;
            `log_prob` does not use them. None if the family has none; otherwise `forward` takes a factor as its second argument.
        resolution: The distance between neighbouring values; 0 for continuous values.
        partly: Whether parts of a row are imputed from its other parts, so that calibration counts them as given.
        averaged: Whether the point estimate is the `point` of the averaged `expectation`; otherwise `estimate` finds it in another way.
        wide: Whether values are float64, because float32 would round off a part of their spread; parameters of networks stay float32.
    """

    parameters_per_element: int = 1
    support: constraints.Constraint = constraints.real
    discrete: bool = False
    elementwise: bool = True
    fill_value: float = 0.0
    resolution: float = 0.0
    averaged: bool = True
    wide: bool = False
    partly: bool = False
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
        """The output shape of a decoder's network for each row: ``shape`` with its first axis repeated for each parameter."""
        return (self.parameters_per_element * self.shape[0], *self.shape[1:])

    @property
    def numbers(self) -> int:
        """How many numbers a decoder makes for each sample of z, by which imputation bounds its memory."""
        return math.prod(self.shape)

    @abstractmethod
    def forward(self, raw: Tensor) -> Distribution:
        """The distribution, batch shape :math:`(*)`, for raw parameters of shape :math:`(*, *raw_shape)`."""

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r""":math:`\log p(x_i \mid z)`, shape :math:`(*, B)`.

        Uses `forward`; override it if the density can be computed faster.

        Arguments:
            raw: Raw parameters, shape :math:`(*, B, *raw_shape)`.
            x: Values in canonical form, shape :math:`(B, *shape)`.
            cells: Observed cells, shape :math:`(B, *shape)`; other cells are ignored.
        """
        return _log_prob(self(raw), x, cells)

    def served(self, raw: Tensor, given: Tensor | None = None) -> Distribution:
        r"""The calibrated distribution that imputations are sampled from.

        Arguments:
            raw: Raw parameters, shape :math:`(*, B, *raw_shape)`.
            given: Number of other modalities that z was inferred from, integers, shape (B,); 0 by default.
        """
        if self.spread is None or not self.takes_factor:
            return self(raw)
        if given is None:
            return self(raw, self.spread[0])
        return self(raw, self.spread[given.clamp(max=len(self.spread) - 1)].reshape(-1, *(1 for _ in self.shape)))

    def served_log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        r"""`log_prob` under the distribution of `served`."""
        if self.spread is None or not self.takes_factor:
            return self.log_prob(raw, x, cells)
        return _log_prob(self.served(raw, given), x, cells)

    @property
    def counts(self) -> bool:
        """Whether values are counts, which are scored on the scale of log(1 + x)."""
        return self.support is constraints.nonnegative_integer

    @property
    def has_size(self) -> bool:
        """Whether rows have a size factor, which `log_size` is then the logarithm of."""
        return False

    @property
    def size_column(self) -> str:
        """The column that holds the size factor of each row; empty if there is none."""
        return ""

    @property
    def takes_factor(self) -> bool:
        """Whether `forward` takes a factor of the scale; a subclass may override it without one."""
        return "factor" in inspect.signature(type(self).forward).parameters

    def widen(self) -> None:
        """Makes values float64 from now on, for likelihoods that measure them from their mean; others ignore it."""

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Estimates statistics such as mean and standard deviation on training rows.

        Arguments:
            x: Canonical values of the rows in which the modality is present, shape :math:`(N, *shape)`.
            observed: The observed cells, boolean, of the shape of ``x``.
        """

    def canonical(self, x: Tensor) -> Tensor:
        """Converts user values in any supported form to the form of the distribution; canonical values are unchanged."""
        return x.to(self.dtype)

    def restore(self, x: Tensor, like: Tensor) -> Tensor:
        """Undoes `canonical`: converts to the form and dtype of ``like``, keeping leading axes."""
        return x.to(like.dtype) if like.is_floating_point() else x.round().to(like.dtype)

    def standardize(self, x: Tensor) -> Tensor:
        """Converts canonical values to the standard form for encoders: floating point, shape :math:`(B, *shape)`, of moderate size."""
        return x

    def log_size(self, x: Tensor, observed: Tensor | None = None) -> Tensor | None:  # noqa: ARG002 (for counts)
        r"""Log of the size factor of each row, as its own values show it, shape (B, 1, ...); None, the default, if all rows have size 1.

        Arguments:
            x: Values in canonical form, shape (B, \*shape).
            observed: Observed cells of the same shape; all by default. Rows with nothing observed have size 1.
        """
        return None

    def typical(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Canonical values divided by the size factor of their row (`log_size`), which are then comparable between rows."""
        size = self.log_size(x, observed)
        return x if size is None else x * (-size).exp()

    def support_of(self, element: int) -> tuple[str, constraints.Constraint]:  # noqa: ARG002 (for likelihoods of several kinds)
        """The name and the support of an element's distribution, by its index in the flattened shape, for messages."""
        return type(self).__name__, self.support

    def blank(self, rows: int) -> Tensor:
        """Placeholder rows for absent values: in the support and in canonical form."""
        return torch.zeros(rows, *self.shape, dtype=self.dtype)

    def expectation(self, distribution: Distribution) -> Tensor:
        """The quantity that a point estimate averages over samples of z."""
        return distribution.mean

    def point(self, expectation: Tensor) -> Tensor:
        """Converts an averaged expectation to a value in the support, in canonical form."""
        return expectation

    def estimate(self, distribution: Distribution) -> Tensor:
        r"""The point estimate, shape :math:`(B, *shape)`, for a distribution of batch shape :math:`(K, B)`, one for each sample of z."""
        return self.point(self.expectation(distribution).mean(0))

    def matches(self, estimate: Tensor, x: Tensor) -> Tensor:
        r"""Whether point estimates are exactly the true values, boolean, shape :math:`(B,)`; both have shape :math:`(B, *shape)`."""
        return (estimate == x).reshape(len(x), -1).all(1)

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:  # noqa: ARG002 (for likelihoods with bounds of their own)
        r"""Yields warnings if values or predictions are at limits of this likelihood; `nbridge.Model.evaluate` reports each in one line.

        By default, if 90 % of real values are exactly at an end of the support. Your own likelihood may add more after
        ``yield from super().bound_warnings(raw, x, observed)``.

        Arguments:
            raw: Raw parameters for rows in which the modality is present, one z each, shape :math:`(B, *raw_shape)`.
            x: Their values in canonical form.
            observed: The observed cells, boolean, of the shape of ``x``.
        """
        ends = [end for name in ("lower_bound", "upper_bound") if (end := getattr(self.support, name, None)) is not None]
        if not ends or self.support.is_discrete or not observed.any():
            return
        at_end = torch.stack([x == end for end in ends]).any(0)
        if (share := _share(at_end, observed)) >= MIN_SHARE_AT_END:
            named = " or ".join(f"{end:g}" for end in ends)
            text = f"{share:.0%} of its values are exactly {named}, at an end of the support; if they are binary, use bernoulli"
            yield BoundWarning(text, {"share of values at an end": share})

    def extra_repr(self) -> str:
        return f"shape={self.shape}"

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Splits raw parameters into one tensor per parameter, each of the modality's shape after the leading axes."""
        return raw.chunk(self.parameters_per_element, dim=-len(self.shape))

    def _independent(self, elements: Distribution) -> Independent:
        return Independent(elements, len(self.shape), validate_args=False)


class Bernoulli(Likelihood):
    r"""Independent Bernoulli elements, with soft targets: :math:`\log p(x \mid z) = \sum x \log \pi + (1 - x) \log(1 - \pi)`.

    For grey levels between 0 and 1 this is a cross-entropy, the usual choice for MNIST, and not a normalised density.

    Arguments:
        shape: Shape of the modality.
        attributes: Whether the elements are attributes instead of pixels; the ``cross`` objective then predicts them.
    """

    support = constraints.unit_interval
    fill_value = 0.5

    def __init__(self, shape: Shape, *, attributes: bool = False) -> None:
        super().__init__(shape)
        self.discrete = attributes

    def forward(self, raw: Tensor) -> Distribution:
        return self._independent(distributions.Bernoulli(logits=raw, validate_args=False))

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        if cells is not None or type(self).forward is not Bernoulli.forward:
            # Partly observed rows, or a subclass with its own distribution.
            return super().log_prob(raw, x, cells)
        axis = -len(self.shape)
        return bernoulli_log_prob(raw.flatten(axis), x.to(raw.dtype).flatten(axis))

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:
        """Reports values predicted with certainty but wrongly; binary values are expected at the ends of the support."""
        if type(self).forward is not Bernoulli.forward:
            # A subclass may interpret raw parameters differently.
            return
        wrong = (raw.abs() >= CERTAIN_LOG_ODDS) & ((raw > 0) != (x > 0.5))
        if observed.any() and (share := _share(wrong, observed)) >= MIN_SHARE_WRONG:
            text = (
                f"{share:.1%} of its values are predicted wrongly with a probability within {math.exp(-CERTAIN_LOG_ODDS):.0e} of 0 or 1, "
                f"costing {CERTAIN_LOG_ODDS:.0f} nats or more each; lower training.learning_rate, or set training.gradient_clip"
            )
            yield BoundWarning(text, {"share of values certain and wrong": share})


class Categorical(Likelihood):
    """One of C classes. Values are class indices, shape (B,), or one-hot, shape (B, C), and are returned in the form they were given."""

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
    """A predicted location and a learned, predicted or fixed scale, in units of the standard deviation of the training rows."""

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

    @property
    def wide(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] (the dtype of the shift says it)
        return self.shift.dtype != self.dtype

    def widen(self) -> None:
        self.shift = self.shift.double()

    def canonical(self, x: Tensor) -> Tensor:
        return x.to(self.shift.dtype)

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        return super().log_prob(raw, x, cells).to(raw.dtype)

    def _scale(self, predicted: Tensor | None = None) -> Tensor:
        return (self.log_scale if predicted is None else predicted).clamp(*LOG_SCALE).exp()

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Estimates the mean and standard deviation of each element; a constant element keeps the unit 1."""
        if self._standardize:
            mean = _mean(x, observed)
            deviation = _mean((x.double() - mean).square(), observed).sqrt().to(self.unit)
            self.shift.copy_(mean)
            # What rounding leaves of a constant.
            least = (1e-14 if self.wide else 1e-6) * self.shift.abs().clamp(min=1e-30)
            self.unit.copy_(torch.where(deviation > least, deviation, 1.0))

    def standardize(self, x: Tensor) -> Tensor:
        return ((x - self.shift) / self.unit).to(self.dtype)

    def blank(self, rows: int) -> Tensor:
        return self.shift.expand(rows, *self.shape)

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:
        """Reports values that are nearly all 0 or 1, and scales at a bound."""
        yield from super().bound_warnings(raw, x, observed)
        zeros, ones = ((_share(x == value, observed) if observed.any() else 0.0) for value in (0, 1))
        if zeros and ones and zeros + ones >= MIN_SHARE_AT_END:
            text = f"{zeros + ones:.0%} of its values are exactly 0 or 1, where a narrowing density grows without bound; use bernoulli"
            yield BoundWarning(text, {"share of values 0": zeros, "share of values 1": ones})
        if self.scale == "learned":
            yield from learned_bounds("learned scale", self.log_scale, "remove constant elements, or set scale to a number")
        elif self.scale == "predicted":
            yield from _bounded_share("predicted scales", self.split(raw)[1], observed, LOG_SCALE, "use scale: learned, or a number")

    def extra_repr(self) -> str:
        return f"shape={self.shape}, scale={self.scale!r}"


class Normal(_LocationScale):
    r"""Independent normal elements, :math:`\mathcal{N}(x; m + s\,\mu(z), (s\,\sigma)^2)`, with m and s from the training rows.

    Arguments:
        shape: Shape of the modality.
        scale: The scale :math:`\sigma` in units of s: ``"learned"``, one number per element; ``"predicted"`` from z; or a fixed number.
        standardize: Whether m and s are the training rows' mean and standard deviation (else 0 and 1).
    """

    family = StableNormal


class Laplace(_LocationScale):
    r"""Independent Laplace elements, :math:`\mathrm{Laplace}(x; m + s\,\mu(z), s\,b)`, with m and s from the training rows.

    Arguments:
        shape: Shape of the modality.
        scale: The scale b in units of s: ``"learned"``, one number per element; ``"predicted"`` from z; or a fixed number.
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
        high: The last level; 255 for uint8 images.

    Raises:
        ValueError: if ``high`` is not above ``low``.
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

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:
        """Reports values at the first and last level, and scales at a bound."""
        yield from super().bound_warnings(raw, x, observed)
        yield from learned_bounds("learned scale", self.log_scale, "remove constant channels", unit="channel")

    def expectation(self, distribution: Distribution) -> Tensor:
        # The exact mean sums over all levels; the location differs from it only where the tails are clipped.
        assert isinstance(distribution, Independent)
        return distribution.base_dist.loc.clamp(self.low, self.high)

    def point(self, expectation: Tensor) -> Tensor:
        step = self.resolution
        return (self.low + ((expectation - self.low) / step).round() * step).clamp(self.low, self.high)


class _Count(Likelihood):
    r"""Counts with a log-rate relative to the mean of the training rows, and to the size factor of the row.

    With a size factor other than 1, a row's own counts x show its size as

    .. math:: s = \frac{1 + \sum_e x_e}{1 + \sum_e \bar{x}_e}

    over its observed elements e, with the means :math:`\bar{x}` of the training rows. The count that is added to both sums keeps s finite
    in rows without counts, close to 1 where few counts could show it, and exactly 1 where nothing is observed.
    """

    support = constraints.nonnegative_integer
    resolution = 1.0
    log_mean: Tensor

    def __init__(self, shape: Shape, *, size_factor: SizeFactor = 1) -> None:
        super().__init__(shape)
        if size_factor == "auto" and math.prod(self.shape) == 1:
            raise ValueError("size_factor: auto, but there is one element, whose count would be its own size; use 1")
        self.size_factor = size_factor
        self.register_buffer("log_mean", torch.zeros(self.shape))

    @property
    def has_size(self) -> bool:
        return self.size_factor != 1

    @property
    def size_column(self) -> str:
        return "" if self.size_factor in (1, "auto") else str(self.size_factor)

    def log_size(self, x: Tensor, observed: Tensor | None = None) -> Tensor | None:
        if not self.has_size:
            return None
        axes, mean = tuple(range(1, x.ndim)), self.log_mean.exp()
        if observed is None:
            return ((1 + x.sum(axes, keepdim=True)) / (1 + mean.sum())).log()
        seen, expected = torch.where(observed, x, 0.0), torch.where(observed, mean, 0.0)
        return ((1 + seen.sum(axes, keepdim=True)) / (1 + expected.sum(axes, keepdim=True))).log()

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Estimates the mean count of each element; half a count is added to the sum so that its log is finite."""
        self.log_mean.copy_((_mean(x, observed) + 0.5 / observed.sum(0).clamp(min=1).double()).log())

    def standardize(self, x: Tensor) -> Tensor:
        return torch.log1p(x) - F.softplus(self.log_mean)

    def point(self, expectation: Tensor) -> Tensor:
        return expectation.round()

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:
        """Reports rates at a bound."""
        yield from super().bound_warnings(raw, x, observed)
        yield from _bounded_share("predicted rates", raw, observed, LOG_RATE, "check for extreme counts and for elements that are always 0")

    def _log_rate(self, raw: Tensor) -> Tensor:
        return (raw.clamp(*LOG_RATE) + self.log_mean).clamp(max=30.0)


class Poisson(_Count):
    r"""Independent Poisson counts with rate :math:`s\, \bar{x}\, e^{r(z)}`, where :math:`\bar{x}` is the mean count of the training rows.

    Arguments:
        shape: Shape of the modality.
        size_factor: The size s of a row, its sequencing depth, say: 1; auto, from the row's own counts relative to the means of the
            training rows; or the column that holds it, relative to its mean over the training rows.

    Raises:
        ValueError: if the size factor is auto and there is one element.
    """

    def forward(self, raw: Tensor) -> Distribution:
        return self._independent(distributions.Poisson(self._log_rate(raw).exp(), validate_args=False))


class NegativeBinomial(_Count):
    r"""Independent overdispersed counts with mean :math:`\mu = s\, \bar{x}\, e^{r(z)}` and variance :math:`\mu + \mu^2 / \theta`.

    The dispersion :math:`\theta` is one learned number per element (gene), as in scVI (Lopez et al., 2018).

    Arguments:
        shape: Shape of the modality.
        size_factor: The size s of a row, its sequencing depth, say: 1; auto, from the row's own counts relative to the means of the
            training rows; or the column that holds it, relative to its mean over the training rows.

    Raises:
        ValueError: if the size factor is auto and there is one element.
    """

    def __init__(self, shape: Shape, *, size_factor: SizeFactor = 1) -> None:
        super().__init__(shape, size_factor=size_factor)
        self.log_dispersion = nn.Parameter(torch.zeros(self.shape))

    def forward(self, raw: Tensor) -> Distribution:
        log_dispersion = self.log_dispersion.clamp(*LOG_RATE)
        logits = self._log_rate(raw) - log_dispersion
        return self._independent(distributions.NegativeBinomial(log_dispersion.exp().expand_as(logits), logits=logits, validate_args=False))

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:
        """Reports rates and dispersions at a bound."""
        yield from super().bound_warnings(raw, x, observed)
        yield from learned_bounds("dispersion", self.log_dispersion, "if it is the upper bound, use poisson", bounds=LOG_RATE)


def _log_prob(distribution: Distribution, x: Tensor, cells: Tensor | None) -> Tensor:
    """The log-density of the observed cells."""
    if cells is None:
        return distribution.log_prob(x)
    assert isinstance(distribution, Independent), "partly observed rows need independent elements"
    elements = distribution.base_dist.log_prob(x) * cells
    return elements.flatten(-distribution.reinterpreted_batch_ndims).sum(-1)


def _mean(x: Tensor, observed: Tensor) -> Tensor:
    """The mean of each element over the rows in which it is observed, in double precision; 0 if it never is."""
    return torch.where(observed, x, 0.0).double().sum(0) / observed.sum(0).clamp(min=1)


def _share(cells: Tensor, observed: Tensor) -> float:
    """The share of observed cells that are in ``cells``; at least one cell must be observed."""
    return (cells & observed).sum().item() / observed.sum().item()


def learned_bounds(
    what: str, log: Tensor, advice: str, *, bounds: tuple[float, float] = LOG_SCALE, unit: str = "element"
) -> Iterator[BoundWarning]:
    """Yields a warning if learned parameters are at a bound, where their gradient is zero and training cannot move them.

    Arguments:
        what: The parameter.
        log: Its logarithms.
        advice: What to do about it.
        bounds: The bounds of the logarithms.
        unit: What has such a parameter.
    """
    low, high = int((log <= bounds[0] + BOUND_TOLERANCE).sum()), int((log >= bounds[1] - BOUND_TOLERANCE).sum())
    for number, side, bound in ((low, "lower", bounds[0]), (high, "upper", bounds[1])):
        if number:
            text = f"the {what} of {number:,} of {log.numel():,} {unit}s is at its {side} bound, {math.exp(bound):.2g}; {advice}"
            yield BoundWarning(text, {f"{unit}s at the {side} bound": number, f"{unit}s": log.numel()})


def _bounded_share(what: str, log: Tensor, observed: Tensor, bounds: tuple[float, float], advice: str) -> Iterator[BoundWarning]:
    """Reports a predicted parameter that is at a bound in many cells."""
    at = (log <= bounds[0] + BOUND_TOLERANCE) | (log >= bounds[1] - BOUND_TOLERANCE)
    if observed.any() and (share := _share(at, observed)) >= MIN_SHARE_AT_BOUND:
        text = f"{share:.0%} of its {what} are at their bounds, {math.exp(bounds[0]):.2g} and {math.exp(bounds[1]):.2g} units; {advice}"
        yield BoundWarning(text, {"share at a bound": share})
