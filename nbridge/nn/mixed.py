r"""The likelihood of a table: columns of several kinds in one modality, each with its own distribution (HI-VAE, Nazabal et al., 2020).

The elements of the modality are the columns in order: one for each number or binary column, and C, one-hot, for C > 2 classes. Raw
parameters of all columns of a family are side by side, so that 2,000 columns cost as much as one modality of 2,000 numbers.

=================================== ==============================================================================================
``normal``                          :math:`\mathcal{N}(x; m + s\,\mu(z), (s\,\sigma)^2)`, with m and s from the training rows
``lognormal``                       the same for :math:`\log x`, for positive skewed numbers
``bernoulli``                       :math:`\mathrm{logit}\,\pi = \mathrm{logit}\,\bar{x} + r(z)`
``categorical``                     :math:`\log \pi_c = \log \bar{\pi}_c + r_c(z) + \mathrm{const}`
``ordinal``                         :math:`\log \pi_c = b_c + t_c\,r_1(z) + t_c^2\,r_2(z) + \mathrm{const}`, :math:`t_c` from -1 to 1
``poisson``, ``negative_binomial``  rate :math:`\bar{x}\, e^{r(z)}`; with ``zero_inflated``, also a probability of 0
=================================== ==============================================================================================

Every column starts at its distribution in the training rows (r = 0), and numbers are measured in units of their spread, so that no column
dominates the gradient by its unit.

References:
    | Handling Incomplete Heterogeneous Data using VAEs (Nazabal, Olmos, Ghahramani & Valera, 2020), https://arxiv.org/abs/1807.03653
    | Categorical Data Analysis (Agresti, 2013), chapter 8, for adjacent-categories logits

Axes: W elements, n elements of a family, G columns of classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Size, Tensor, distributions, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from nbridge.common import randomness
from nbridge.nn.likelihoods import LOG_RATE, LOG_SCALE, BoundWarning, Likelihood, learned_bounds
from nbridge.spec.columns import COUNTS, REAL, ColumnKind, Columns, width_of
from nbridge.spec.option_types import Scale, VectorShape

LOG_ODDS = 15.0
"""Bound of the log-odds and class scores that are predicted, relative to those of the training rows."""


class Mixed(Likelihood):
    """Columns of several kinds, such as age, sex, stage and visits, each with its own distribution and missing cells.

    Arguments:
        shape: The number of elements: one for each column, or C for a column of C > 2 classes.
        columns: The kind of each column in order: normal, lognormal, bernoulli, categorical, ordinal, poisson or negative_binomial, or a
            mapping with the key type and options.
        scale: The scale of real columns in units of their spread: learned, one number per column; predicted from z; or a fixed number.

    Raises:
        ValueError: if the columns have another number of elements, or classes without a number.
    """

    fill_value = 0.0
    partly = True

    def __init__(self, shape: VectorShape, *, columns: Columns, scale: Scale = "learned") -> None:
        super().__init__(shape)
        kinds = {
            name: kind if isinstance(kind, ColumnKind) else ColumnKind.model_validate(_mapping(kind)) for name, kind in columns.items()
        }
        if open_ := [name for name, kind in kinds.items() if kind.type in ("categorical", "ordinal") and kind.classes is None]:
            raise ValueError(f"columns: {open_[0]} of unknown classes; write {{type: {kinds[open_[0]].type}, classes: NUMBER}}")
        if width_of(kinds) != shape[0]:
            raise ValueError(f"{len(kinds)} columns of {width_of(kinds)} elements with classes one-hot; write shape: {width_of(kinds)}")
        self.kinds = kinds
        self.columns = tuple(kinds)
        places = _places(kinds)
        families: list[_Family] = []
        for make, names in _by_family(kinds, scale):
            if names:
                families.append(make([places[name] for name in names], [kinds[name] for name in names]))
        self.families = nn.ModuleList(families)
        order = torch.cat([family.elements for family in families])
        self.register_buffer("order", order.argsort(), persistent=False)
        self.register_buffer("column_of", torch.tensor(columns_of_elements(kinds)), persistent=False)
        self.spread = torch.ones(1, *shape)
        self.supports = tuple(_support_of(kind) for kind in kinds.values() for _ in range(kind.width))
        self.support = _BySupport(self.supports)

    order: Tensor
    column_of: Tensor

    @property
    def raw_shape(self) -> tuple[int, ...]:
        return (sum(family.parameters_in for family in self._families),)

    @property
    def _families(self) -> list[_Family]:
        return [family for family in self.families if isinstance(family, _Family)]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Start and stop of the elements of each column."""
        return tuple(_places(self.kinds).values())

    @property
    def units(self) -> Tensor:
        """The unit of each element, shape (W,): the spread of real columns, for lognormal ones at their median, and 1 for all others."""
        parts = [family.units() for family in self._families]
        return torch.cat(parts).index_select(0, self.order)

    def support_of(self, element: int) -> tuple[str, constraints.Constraint]:
        number = int(self.column_of[element])
        return f"{self.columns[number]} ({self.kinds[self.columns[number]].type})", self.supports[element]

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        if factor is not None and factor.ndim:
            factor = factor.expand(*factor.shape[:-1], self.shape[0])
        return self._independent(_Elements([
            family(part, factor if factor is None or not factor.ndim else factor[..., family.elements])
            for family, part in zip(self._families, self._parts(raw), strict=True)
        ], self.order))  # fmt: skip

    def served(self, raw: Tensor, given: Tensor | None = None) -> Distribution:
        assert self.spread is not None
        return self(raw, self.spread[0] if given is None else self.spread[given.clamp(max=len(self.spread) - 1)])

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        # By family, without putting elements back in the order of columns.
        total: Tensor | float = 0.0
        for family, part in zip(self._families, self._parts(raw), strict=True):
            each = family(part).log_prob(x.index_select(-1, family.elements))
            total = total + (each if cells is None else each * cells.index_select(-1, family.elements)).sum(-1)
        assert isinstance(total, Tensor)
        return total.to(raw.dtype)

    def _parts(self, raw: Tensor) -> tuple[Tensor, ...]:
        return raw.split([family.parameters_in for family in self._families], -1)

    @property
    def wide(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] (the dtype of the shift says it)
        return any(family.shift.dtype != self.dtype for family in self._families if isinstance(family, _Reals))

    def widen(self) -> None:
        for family in self._families:
            if isinstance(family, _Reals):
                family.shift = family.shift.double()

    def canonical(self, x: Tensor) -> Tensor:
        return x.to(torch.float64 if self.wide else self.dtype)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Fits the distribution of each column to its observed cells."""
        for family in self._families:
            family.fit(x[:, family.elements], observed[:, family.elements])

    def standardize(self, x: Tensor) -> Tensor:
        """Numbers centred and scaled, counts as log(1 + x), binary values as -1 and 1, classes one-hot."""
        parts = [family.standardize(x.index_select(-1, family.elements)).to(self.dtype) for family in self._families]
        return torch.cat(parts, -1).index_select(-1, self.order)

    def blank(self, rows: int) -> Tensor:
        parts = torch.cat([family.blank() for family in self._families]).index_select(0, self.order)
        return self.canonical(parts).expand(rows, -1)

    def point(self, expectation: Tensor) -> Tensor:
        parts = [family.point(expectation.index_select(-1, family.elements)) for family in self._families]
        return torch.cat(parts, -1).index_select(-1, self.order)

    def bound_warnings(self, raw: Tensor, x: Tensor, observed: Tensor) -> Iterator[BoundWarning]:  # noqa: ARG002 (of families that read values)
        """Reports learned scales and dispersions at a bound."""
        for family in self._families:
            yield from family.bound_warnings()

    def extra_repr(self) -> str:
        return f"shape={self.shape}, columns={len(self.columns)}"


class _Family(nn.Module, ABC):
    """Columns with one family of distributions.

    Arguments:
        spans: Start and stop of the elements of each column.
        kinds: The kind of each column.
    """

    elements: Tensor
    parameters_in: int
    """The number of raw parameters."""

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind]) -> None:  # noqa: ARG002 (of families with options)
        super().__init__()
        elements = torch.cat([torch.arange(start, stop) for start, stop in spans])
        self.register_buffer("elements", elements, persistent=False)
        self.parameters_in = len(elements)

    @abstractmethod
    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        """The distribution of each element, batch shape (*, n), for raw parameters of shape (*, `parameters_in`)."""

    @abstractmethod
    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Fits statistics to values of shape (N, n), and their observed cells."""

    @abstractmethod
    def standardize(self, x: Tensor) -> Tensor:
        """The standard form for encoders, shape (B, n); 0 is the middle of the data."""

    def blank(self) -> Tensor:
        """A value in the support, shape (n,)."""
        return torch.zeros(len(self.elements), device=self.elements.device)

    def units(self) -> Tensor:
        """The unit of each element, shape (n,)."""
        return torch.ones(len(self.elements), device=self.elements.device)

    def point(self, expectation: Tensor) -> Tensor:
        """A value in the support from an averaged expectation."""
        return expectation

    def bound_warnings(self) -> Iterator[BoundWarning]:
        """Learned parameters at a bound."""
        yield from ()


class _Reals(_Family):
    """Normal and lognormal columns."""

    shift: Tensor
    unit: Tensor
    logged: Tensor
    most: Tensor
    least: Tensor
    low: Tensor
    high: Tensor
    whole: Tensor

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind], scale: Scale) -> None:
        super().__init__(spans, kinds)
        number, self.scale = len(kinds), scale
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(number))
        self.parameters_in = number * (2 if scale == "predicted" else 1)
        for name, start in (("shift", 0.0), ("unit", 1.0), ("least", -math.inf), ("most", math.inf)):
            self.register_buffer(name, torch.full((number,), start))
        options = {
            "logged": [kind.type == "lognormal" for kind in kinds],
            "whole": [kind.whole for kind in kinds],
            "low": [-math.inf if kind.low is None else kind.low for kind in kinds],
            "high": [math.inf if kind.high is None else kind.high for kind in kinds],
        }
        for name, values in options.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        loc, *rest = raw.chunk(2, -1) if self.scale == "predicted" else (raw,)
        if isinstance(self.scale, float | int):
            scale = torch.full_like(loc, self.scale)
        else:
            scale = (rest[0] if rest else self.log_scale).clamp(*LOG_SCALE).exp()
        scale = self.unit * scale
        return _RealElements(self.shift + self.unit * loc, scale if factor is None else scale * factor, self)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        some = observed.any(0)
        self.least.copy_(torch.where(some, torch.where(observed, x, math.inf).amin(0), -math.inf))
        self.most.copy_(torch.where(some, torch.where(observed, x, -math.inf).amax(0), math.inf))
        t, number = self.transformed(x).double(), observed.sum(0).clamp(min=1)
        mean = torch.where(observed, t, 0.0).sum(0) / number
        deviation = (torch.where(observed, t - mean, 0.0).square().sum(0) / number).sqrt().to(self.unit)
        self.shift.copy_(mean)
        # What rounding leaves of a constant.
        least = (1e-14 if self.shift.dtype == torch.float64 else 1e-6) * self.shift.abs().clamp(min=1e-30)
        self.unit.copy_(torch.where(deviation > least, deviation, 1.0))

    def transformed(self, x: Tensor) -> Tensor:
        """Values on the scale on which they are normal."""
        return torch.where(self.logged, torch.where(self.logged, x, 1.0).clamp(min=1e-30).log(), x)

    def finished(self, x: Tensor) -> Tensor:
        """Values within the bounds, and whole where they are whole numbers."""
        return torch.where(self.whole, x.round(), x).clamp(self.low.to(x), self.high.to(x))

    def standardize(self, x: Tensor) -> Tensor:
        return (self.transformed(x) - self.shift) / self.unit

    def blank(self) -> Tensor:
        return torch.where(self.logged, self.shift.exp(), self.shift)

    def units(self) -> Tensor:
        return torch.where(self.logged, self.shift.exp().to(self.unit) * self.unit, self.unit)

    def point(self, expectation: Tensor) -> Tensor:
        return self.finished(expectation)

    def bound_warnings(self) -> Iterator[BoundWarning]:
        if self.scale == "learned":
            yield from learned_bounds("learned scale", self.log_scale, "remove constant columns, or set scale to a number", unit="column")


class _Flags(_Family):
    """Binary columns."""

    log_odds: Tensor

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind]) -> None:
        super().__init__(spans, kinds)
        self.register_buffer("log_odds", torch.zeros(len(kinds)))

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        logits = self.log_odds + raw.clamp(-LOG_ODDS, LOG_ODDS)
        return _FlagElements(logits=logits if factor is None else logits / factor, validate_args=False)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        p = (torch.where(observed, x, 0.0).double().sum(0) + 0.5) / (observed.sum(0) + 1)
        self.log_odds.copy_(torch.logit(p))

    def standardize(self, x: Tensor) -> Tensor:
        return 2 * x - 1

    def point(self, expectation: Tensor) -> Tensor:
        return (expectation >= 0.5).to(expectation)


class _Classes(_Family):
    """Columns of more than two classes, one-hot."""

    log_shares: Tensor
    group: Tensor
    place: Tensor
    valid: Tensor

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind]) -> None:
        super().__init__(spans, kinds)
        widths = [stop - start for start, stop in spans]
        group = torch.tensor([number for number, width in enumerate(widths) for _ in range(width)])
        place = torch.cat([torch.arange(width) for width in widths])
        valid = torch.zeros(len(spans), max(widths), dtype=torch.bool)
        valid[group, place] = True
        for name, tensor in (("group", group), ("place", place), ("valid", valid)):
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("log_shares", torch.zeros(len(group)))

    def scores(self, raw: Tensor) -> Tensor:
        """The unnormalised log-probability of each class, relative to the training rows, shape (*, n)."""
        return raw.clamp(-LOG_ODDS, LOG_ODDS)

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:
        scores = self.log_shares + self.scores(raw)
        return _ClassElements(scores if factor is None else scores / factor, self)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        counts = torch.where(observed, x, 0.0).double().sum(0)
        # Half a count in total, as in the free baseline.
        totals = torch.zeros(len(self.valid), dtype=torch.float64, device=x.device).index_add_(0, self.group, counts)
        width = self.valid.sum(1)
        self.log_shares.copy_(((counts + 0.5 / width[self.group]) / (totals + 0.5)[self.group]).log())

    def standardize(self, x: Tensor) -> Tensor:
        return x

    def blank(self) -> Tensor:
        return (self.place == 0).float()

    def padded(self, x: Tensor, fill: float) -> Tensor:
        """By column, shape (*, G, C), from one element after the other, (*, n)."""
        wide = x.new_full((*x.shape[:-1], *self.valid.shape), fill)
        wide[..., self.group, self.place] = x
        return wide

    def flat(self, x: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return x[..., self.group, self.place]

    def point(self, expectation: Tensor) -> Tensor:
        return self.flat(_one_hot(self.padded(expectation, -1.0).argmax(-1), self.valid.shape[1]).to(expectation))


class _Ordinals(_Classes):
    """Columns of ordered classes: a location and a spread, by the adjacent-categories logit model."""

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind]) -> None:
        super().__init__(spans, kinds)
        self.parameters_in = 2 * len(spans)
        level = 2 * self.place / (self.valid.sum(1)[self.group] - 1).clamp(min=1) - 1
        self.register_buffer("level", level, persistent=False)

    level: Tensor

    def scores(self, raw: Tensor) -> Tensor:
        location, spread = raw.clamp(-LOG_ODDS, LOG_ODDS).chunk(2, -1)
        return location[..., self.group] * self.level + spread[..., self.group] * self.level.square()


class _Counts(_Family):
    """Poisson or negative binomial columns."""

    log_mean: Tensor
    inflated: Tensor

    def __init__(self, spans: Sequence[tuple[int, int]], kinds: Sequence[ColumnKind]) -> None:
        super().__init__(spans, kinds)
        self.dispersed = kinds[0].type == "negative_binomial"
        inflated = torch.tensor([kind.zero_inflated for kind in kinds])
        self.register_buffer("inflated", inflated, persistent=False)
        self.register_buffer("log_mean", torch.zeros(len(kinds)))
        if self.dispersed:
            self.log_dispersion = nn.Parameter(torch.zeros(len(kinds)))
        self.parameters_in = len(kinds) + sum(kind.zero_inflated for kind in kinds)

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> Distribution:  # noqa: ARG002 (counts have no factor)
        number = len(self.elements)
        log_rate = (raw[..., :number].clamp(*LOG_RATE) + self.log_mean).clamp(max=30.0)
        if self.dispersed:
            log_dispersion = self.log_dispersion.clamp(*LOG_RATE)
            logits = log_rate - log_dispersion
            counts = distributions.NegativeBinomial(log_dispersion.exp().expand_as(logits), logits=logits, validate_args=False)
        else:
            counts = distributions.Poisson(log_rate.exp(), validate_args=False)
        if raw.shape[-1] == number:
            return counts
        # Elements without inflation have a probability of 0 that adds nothing.
        gate = torch.full_like(log_rate, -1e4)
        # Starts at a probability of 1/4.
        gate = gate.index_copy(-1, self.inflated.nonzero()[:, 0], raw[..., number:].clamp(-LOG_ODDS, LOG_ODDS) - 1.0)
        return _InflatedElements(counts, gate)

    def fit(self, x: Tensor, observed: Tensor) -> None:
        number = observed.sum(0).clamp(min=1).double()
        self.log_mean.copy_(((torch.where(observed, x, 0.0).double().sum(0) + 0.5) / number).log())

    def standardize(self, x: Tensor) -> Tensor:
        return torch.log1p(x) - F.softplus(self.log_mean)

    def point(self, expectation: Tensor) -> Tensor:
        return expectation.round()

    def bound_warnings(self) -> Iterator[BoundWarning]:
        if self.dispersed:
            advice = "if it is the upper bound, use poisson"
            yield from learned_bounds("dispersion", self.log_dispersion, advice, unit="column", bounds=LOG_RATE)


class _Joined(Distribution):
    """Distributions of elements without a common family; `torch.distributions` checks nothing here."""

    arg_constraints: Mapping[str, constraints.Constraint] = {}  # pyright: ignore[reportIncompatibleMethodOverride] (as in torch's own classes)
    has_rsample = False

    def __init__(self, shape: Size) -> None:
        super().__init__(shape, validate_args=False)


class _Elements(_Joined):
    """The elements of all families, in the order of columns."""

    def __init__(self, parts: Sequence[Distribution], order: Tensor) -> None:
        self.parts, self.order = parts, order
        self.places = order.argsort()
        lead = parts[0].batch_shape[:-1]
        super().__init__(Size((*lead, len(order))))

    def _split(self, x: Tensor) -> list[Tensor]:
        sizes = [part.batch_shape[-1] for part in self.parts]
        return list(x.index_select(-1, self.places).split(sizes, -1))

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else parts[0].dtype
        return torch.cat([part.to(dtype) for part in parts], -1).index_select(-1, self.order)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._join([part.log_prob(x) for part, x in zip(self.parts, self._split(value), strict=True)])

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return self._join([part.sample(Size(sample_shape)) for part in self.parts])

    @property
    def mean(self) -> Tensor:
        return self._join([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._join([part.variance for part in self.parts])

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real


class _RealElements(_Joined):
    """Normal and lognormal elements; the mean of a lognormal one is kept within the values of the training rows."""

    def __init__(self, loc: Tensor, scale: Tensor, family: _Reals) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.family = family
        super().__init__(self.loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        t = self.family.transformed(value)
        density = -((t - self.loc) / self.scale).square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2
        return torch.where(self.family.logged, density - t, density)

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        with torch.no_grad():
            t = randomness.normal(self.loc.expand(shape), self.scale.to(self.loc.dtype).expand(shape))
            x = torch.where(self.family.logged, t.clamp(-80.0, 80.0).exp(), t)
            return self.family.finished(x)

    @property
    def mean(self) -> Tensor:
        family = self.family
        logged = (self.loc + self.scale.square() / 2).clamp(max=80.0).exp()
        logged = torch.minimum(torch.maximum(logged, family.least.to(logged)), family.most.to(logged))
        return torch.where(family.logged, logged, self.loc)

    @property
    def variance(self) -> Tensor:
        logged = torch.expm1(self.scale.square().clamp(max=40.0)) * (2 * self.loc + self.scale.square()).clamp(max=80.0).exp()
        return torch.where(self.family.logged, logged, self.scale.square())


class _FlagElements(distributions.Bernoulli):
    """Binary elements; soft targets have a density, as for `nbridge.nn.likelihoods.Bernoulli`."""

    def log_prob(self, value: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(self.logits, value.to(self.logits.dtype).expand_as(self.logits), reduction="none")


class _ClassElements(_Joined):
    """One-hot elements of several columns; a sample of a column is one class, and the log-probability is at the element of that class."""

    def __init__(self, scores: Tensor, family: _Classes) -> None:
        self.family = family
        # Of few classes in the last axis, the first one is normalised fifteen times as fast.
        self.log_p = family.padded(scores, -math.inf).movedim(-1, 0).contiguous().log_softmax(0).movedim(0, -1)
        super().__init__(scores.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.family.flat(self.log_p) * value

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = Size((*Size(sample_shape), *self.log_p.shape))
        with torch.no_grad():
            # By the Gumbel trick: all columns and rows at once.
            noise = randomness.rand(*shape, device=self.log_p.device).clamp(1e-20, 1 - 1e-7)
            drawn = (self.log_p - (-noise.log()).log()).argmax(-1)
            return self.family.flat(_one_hot(drawn, shape[-1]).to(self.log_p))

    @property
    def mean(self) -> Tensor:
        return self.family.flat(self.log_p).exp()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)


class _InflatedElements(_Joined):
    """Counts with an additional probability of 0, given its log-odds."""

    def __init__(self, counts: Distribution, gate: Tensor) -> None:
        self.counts, self.gate = counts, gate
        super().__init__(gate.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        other = self.counts.log_prob(value) + F.logsigmoid(-self.gate)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.gate), other), other)

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            drawn = self.counts.sample(Size(sample_shape))
            return torch.where(randomness.rand(*drawn.shape, device=drawn.device) < self.gate.sigmoid(), 0.0, drawn)

    @property
    def mean(self) -> Tensor:
        return self.counts.mean * torch.sigmoid(-self.gate)

    @property
    def variance(self) -> Tensor:
        zero = self.gate.sigmoid()
        return (1 - zero) * (self.counts.variance + zero * self.counts.mean.square())


class _BySupport(constraints.Constraint):
    """Each element has its own support."""

    event_dim = 0

    def __init__(self, of: Sequence[constraints.Constraint]) -> None:
        self.of = tuple(of)
        self.positive = torch.tensor([one is constraints.positive for one in of])
        self.flag = torch.tensor([one is constraints.unit_interval for one in of])
        self.one_hot = torch.tensor([one is constraints.boolean for one in of])
        self.count = torch.tensor([one is constraints.nonnegative_integer for one in of])
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        positive, flag, one_hot, count = (mask.to(value.device) for mask in (self.positive, self.flag, self.one_hot, self.count))
        inside = ~positive | (value > 0)
        inside &= ~flag | ((value >= 0) & (value <= 1))
        inside &= ~one_hot | (value == 0) | (value == 1)
        return inside & (~count | ((value >= 0) & (value == value.floor())))


def columns_of_elements(kinds: Mapping[str, ColumnKind]) -> tuple[int, ...]:
    """The number of the column of each element."""
    return tuple(number for number, kind in enumerate(kinds.values()) for _ in range(kind.width))


def _mapping(kind: object) -> object:
    return {"type": kind} if isinstance(kind, str) else kind


def _places(kinds: Mapping[str, ColumnKind]) -> dict[str, tuple[int, int]]:
    """Start and stop of the elements of each column."""
    places, start = {}, 0
    for name, kind in kinds.items():
        places[name] = (start, start + kind.width)
        start += kind.width
    return places


def _by_family(
    kinds: Mapping[str, ColumnKind], scale: Scale
) -> Iterator[tuple[Callable[[Sequence[tuple[int, int]], Sequence[ColumnKind]], _Family], list[str]]]:
    """A constructor and the columns of each family, in a fixed order."""
    several = {name: kind for name, kind in kinds.items() if kind.width > 1}
    yield (lambda spans, some: _Reals(spans, some, scale)), [name for name, kind in kinds.items() if kind.type in REAL]
    yield _Flags, [name for name, kind in kinds.items() if kind.binary]
    yield _Classes, [name for name, kind in several.items() if kind.type == "categorical"]
    yield _Ordinals, [name for name, kind in several.items() if kind.type == "ordinal"]
    for count in COUNTS:
        yield _Counts, [name for name, kind in kinds.items() if kind.type == count]


def _support_of(kind: ColumnKind) -> constraints.Constraint:
    if kind.type in COUNTS:
        return constraints.nonnegative_integer
    if kind.type == "lognormal":
        return constraints.positive
    return constraints.unit_interval if kind.binary else constraints.boolean if kind.width > 1 else constraints.real


def _one_hot(classes: Tensor, number: int) -> Tensor:
    # Not F.one_hot, which looks at the values.
    return classes[..., None] == torch.arange(number, device=classes.device)
