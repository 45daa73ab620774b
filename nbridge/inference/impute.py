r"""Imputation, generation and embedding, from any missingness pattern.

Each sample of a row draws one :math:`z_k \sim q(z \mid x_S)` and decodes *all* missing modalities from it: with separate draws they would
not match each other. Samples include the spread of :math:`p(x_j \mid z_k)`, so their variance is the predictive variance.

Axes: K samples, B rows, D latent dimensions.
"""

from __future__ import annotations

import math
import threading
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Independent
from torch.nn import Module
from torch.quasirandom import SobolEngine

from nbridge.common.memory import check_fits
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.common.randomness import own_draws, reseed
from nbridge.data.batch import Batch
from nbridge.data.covariates import check_batch
from nbridge.data.imputed import Imputed
from nbridge.errors import DataError, require_positive
from nbridge.models.base import MultimodalVAE
from nbridge.models.mixture_prior import Mixture
from nbridge.nn.decoders import Decoder, RowDecoder
from nbridge.nn.distributions import diagonal_normal
from nbridge.spec.option_types import Prior

POINT_DRAWS, TABLE_DRAWS = 64, 16
"""Number of samples of z that a point estimate averages over, and for models of tables alone, whose decoders are nearly linear."""
ELEMENTS, ROWS = 2**21, 1024
"""Maximum number of values decoded and rows encoded at a time: they bound memory and keep convolutions in the CPU cache."""
_STRIDE = 0x9E3779B9
"""Stride between the seeds of chunks: 2^32 over the golden ratio, so that chunks of neighbouring seeds differ (torch uses 32 bits)."""


def impute(
    model: MultimodalVAE, batch: Batch, *, samples: int | None = None, noise: bool = True, seed: int = 0, first: int = 0,
    one_hot: Mapping[str, Sequence[tuple[int, int]]] | None = None, covariates: Mapping[str, Tensor] | None = None,
) -> Imputed[Tensor]:  # fmt: skip
    r"""Imputes every missing modality and every missing cell.

    Without ``samples``, the result is a point estimate: the mean (or the most probable class, or a rounded count) of
    :math:`p(x_j \mid x_S) = \mathbb{E}_{q(z \mid x_S)} [p(x_j \mid z)]`, over a fixed set of points z, so that a row's result
    depends only on that row. With ``samples=K`` there are K samples, each of which decodes all missing modalities of a row from one z.

    Rows are processed in chunks of `rows_at_a_time`, each with its own seed, so that batches cut between chunks give results that are
    bit-identical to those of all rows at once. Options are those of `nbridge.Model.impute`. Rows with nothing observed are imputed from the
    prior N(0, I), even if `generate` would sample from a mixture. By modality, ``one_hot`` has the start and stop of each group of elements
    that one-hot encodes a class: a sample of a group is one class c, with probability
    :math:`\mathbb{E}[x_c \mid z_k] / \sum_d \mathbb{E}[x_d \mid z_k]`. Decoders are given fixed ``covariates`` instead of a row's own
    (`nbridge.nn.covariates.Covariates.fixed`), and encoders those of the row.

    Raises:
        DataError: if observed values are outside the support of their likelihood, or the model lacks a modality of the batch.

    Example:
        >>> import nbridge
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
        ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> rows = nbridge.Batch.complete({"top": torch.randn(5, 4), "label": torch.tensor([0, 1, 2, 0, 1])})
        >>> impute(model, rows.hide("label"), samples=7).values["label"].shape
        torch.Size([7, 5])
    """
    batch = own_covariates(model, batch, covariates)
    _check(model, batch, samples)
    check_size(model, "samples", samples or 1, rows=len(batch))
    size = rows_at_a_time(model, samples)
    check_first(first, size)
    parts = []
    with serving(model, seed):
        for number, part in enumerate(_cut(batch, size), start=first // size):
            reseed(part_seed(seed, number))
            parts.append(_impute_rows(model, part, samples, noise, one_hot or {}, covariates or {}))
    axis = 0 if samples is None else 1
    return Imputed(
        {name: torch.cat([part.values[name] for part in parts], axis) for name in model.names},
        {name: torch.cat([part.mask[name] for part in parts]) for name in model.names},
        samples,
    )


def own_covariates(model: MultimodalVAE, batch: Batch, fixed: Mapping[str, Tensor] | None = None) -> Batch:
    """A batch with the covariates that encoders are given: its own, and fixed values in place of those that it lacks.

    Raises:
        DataError: if it lacks one.
    """
    if model.covariates is None:
        return batch
    lacking = {name: x for name, x in (fixed or {}).items() if name not in batch.covariates}
    return check_batch(model.covariates, batch.with_covariates(lacking) if lacking else batch)


def check_size(model: MultimodalVAE, option: str, number: int, *, rows: int = 1, kind: type[DataError] = DataError) -> None:
    """Checks that draws of rows, of z and of all modalities, fit into memory.

    Raises:
        DataError: if they don't.
    """
    width = model.latent_dim + sum(math.prod(one.shape) for one in model.likelihoods.values())
    of = f"{rows:,} rows of " if rows > 1 else ""
    check_fits(f"{option} {number}: {of}{number:,} draws of {width:,} numbers", 4 * number * rows * width, kind)


def rows_at_a_time(model: MultimodalVAE, samples: int | None = None) -> int:
    """The number of rows per chunk of `impute`, which depends only on the model and K."""
    return _size((number_of_points(model) if samples is None else samples) * sum(x.numbers for x in model.likelihoods.values()))


def check_first(first: int, size: int) -> None:
    """Checks that the first row is at the start of a chunk.

    Raises:
        DataError: if it is not.
    """
    if first < 0 or first % size:
        raise DataError(f"first is {first}, expected a multiple of {size} (rows_at_a_time)")


def part_seed(seed: int, number: int) -> int:
    """The seed of a chunk, by its number."""
    return (seed + number * _STRIDE) % 2**63


def generate(
    model: MultimodalVAE, num: int, given: Mapping[str, ArrayLike | Tensor] | None = None,
    *, noise: bool = False, seed: int = 0, prior: Prior | None = None, covariates: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    r"""Generates rows: :math:`z \sim p(z)` or :math:`z \sim q(z \mid \mathrm{given})`, then the expectation of :math:`p(x_j \mid z)`.

    If nothing is given, a model trained with ``prior: mixture`` samples z from its mixture (see `nbridge.models.mixture_prior`). Options
    are those of `nbridge.Model.generate`. A given value is one for all rows, shape ``shape`` (for classes a scalar index), or one for each
    row. Covariates that are not fixed are drawn from the frequencies of their classes in the training rows, and numbers are their mean.

    Returns:
        Values of all modalities, including the given ones, shape (B, \*shape).

    Raises:
        DataError: if given values do not match the model, or it does not have the prior.
    """
    require_positive(num=num)
    check_size(model, "num", num)
    if (mixture := mixture_for(model, prior, given or ())) is not None:
        return _drawn_from(mixture, model, _unobserved(model, num, seed, covariates), noise, seed)
    likelihoods = model.likelihoods
    if unknown := [name for name in given or {} if name not in likelihoods]:
        raise DataError(f"given {unknown[0]!r}: no such modality in this model; it has {', '.join(likelihoods)}")
    rows = {name: _repeated(torch.as_tensor(x), num, likelihoods[name].blank(0).ndim - 1) for name, x in (given or {}).items()}
    if wrong := [name for name, x in rows.items() if len(x) != num]:
        raise DataError(f"given {wrong[0]!r}: {len(rows[wrong[0]])} rows, expected one value or {num} of them")
    unobserved = _unobserved(model, num, seed, covariates)
    batch = Batch.complete(rows).with_covariates(unobserved.covariates) if rows else unobserved
    return {name: x[0] for name, x in impute(model, batch, samples=1, noise=noise, seed=seed).values.items()}


def _unobserved(model: MultimodalVAE, num: int, seed: int, fixed: Mapping[str, Tensor] | None) -> Batch:
    """Rows with nothing observed, with fixed covariates or drawn ones."""
    anchor = model.names[0]
    blank = model.likelihoods[anchor].blank(num).cpu()
    batch = Batch({anchor: blank}, {anchor: torch.zeros(num, dtype=torch.bool)})
    if model.covariates is None:
        return batch
    with own_draws(seed):
        return batch.with_covariates({**model.covariates.draw(num), **(fixed or {})})


def mixture_for(model: MultimodalVAE, prior: str | None, given: Iterable[str] = ()) -> Mixture | None:
    """The mixture that z is sampled from; None for N(0, I), or if something is given.

    Raises:
        DataError: if there is no such prior, the model has no mixture, or something is given as well.
    """
    given, names = tuple(given), typing.get_args(Prior)
    if prior is not None and prior not in names:
        raise DataError(f"unknown prior '{clip(prior)}'.{did_you_mean(prior, names)} Known: {listing(names)}")
    if prior is not None and given:
        raise DataError(f"prior cannot be combined with given values ({listing(given)}); leave one of them out")
    if prior == "mixture" and model.mixture is None:
        raise DataError("this model has no mixture prior; train it with prior: mixture")
    return None if given or prior == "normal" else model.mixture


def _drawn_from(mixture: Mixture, model: MultimodalVAE, rows: Batch, noise: bool, seed: int) -> dict[str, Tensor]:
    """Rows decoded from samples of a mixture, in chunks like those of `impute`."""
    size, parts = rows_at_a_time(model, 1), []
    with serving(model, seed):
        for number, part in enumerate(_cut(rows.to(model.device), size)):
            reseed(part_seed(seed, number))
            z = mixture.sample(1, len(part))
            decoders = {name: model.decoder_of(name, part) for name in model.names}
            parts.append({name: decode(model, name, z, decoder=one, noise=noise)[0].cpu() for name, one in decoders.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in model.names}


def embed(model: MultimodalVAE, batch: Batch, *, samples: int = 1, seed: int = 0) -> Independent:
    r"""The posterior :math:`q(z \mid x_S)` of each row, batch shape (B,) over D.

    For a stochastic model, it has the mean and the variance of the mixture of ``samples`` posteriors.
    """
    batch = own_covariates(model, batch)
    _check(model, batch, samples)
    check_size(model, "samples", samples)
    with serving(model, seed):
        parts = [model.moments(part.to(model.device), samples) for part in chunks(batch, samples)]
        return diagonal_normal(torch.cat([q.mean for q in parts]), torch.cat([q.stddev for q in parts]))


def chunks(batch: Batch, elements: int) -> Iterator[Batch]:
    """Cuts a batch into chunks that fit in memory, for a given number of values per row; one chunk if there are no rows."""
    return _cut(batch, _size(elements))


def _size(elements: int) -> int:
    return max(1, min(ROWS, ELEMENTS // elements))


def _cut(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, max(1, len(batch)), size):
        yield batch.slice(start, start + size)


def _check(model: MultimodalVAE, batch: Batch, samples: int | None) -> None:
    if samples is not None:
        require_positive(samples=samples)
    model.check(batch)


def _impute_rows(
    model: MultimodalVAE, batch: Batch, samples: int | None, noise: bool, one_hot: Mapping[str, Sequence[tuple[int, int]]],
    covariates: Mapping[str, Tensor],
) -> Imputed[Tensor]:  # fmt: skip
    device = batch.device
    rows = batch.to(model.device)
    decoded = rows.with_covariates(covariates) if covariates else rows
    if samples is None:
        points, fixed = fixed_points(model)
        z = point_draws(model.fixed_posterior(rows, fixed.to(model.device)), points)
    else:
        z = model.posterior(rows, samples).sample()
    values, imputed = {}, {}
    for name, likelihood in model.likelihoods.items():
        observed, others = which_observed(batch, name), model.given(name, rows)
        imputed[name] = ~observed
        given = batch.values.get(name)
        if given is not None and observed.all():
            values[name] = given if samples is None else given.expand(samples, *given.shape)
            continue
        decoder = model.decoder_of(name, decoded)
        if samples is None:
            guess = _estimate(model, name, z, observed, others, decoder)
        else:
            guess = decode(model, name, z, others, decoder=decoder, noise=noise)
        if samples is not None and noise and one_hot.get(name):
            guess = _drawn_classes(guess, likelihood.expectation(decoder.served(z, others)), one_hot[name])
        guess = guess.to(device)
        if given is not None:
            guess = likelihood.restore(guess, given)
            guess = torch.where(observed.reshape(*observed.shape, *(1 for _ in given.shape[observed.ndim :])), given, guess)
        values[name] = guess
    return Imputed(values, imputed, samples)


def _drawn_classes(draws: Tensor, expectation: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """Samples of a modality, (K, B, ...), with one-hot groups sampled jointly, so that each of them is exactly one class."""
    flat, means = draws.flatten(2).clone(), expectation.flatten(2)
    for start, stop in groups:
        # Clamped, because the expectations of a density may all be 0.
        weights = means[..., start:stop].clamp(1e-12, 1.0)
        drawn = torch.multinomial(weights.flatten(0, 1), 1).reshape(weights.shape[:2])
        flat[..., start:stop] = torch.nn.functional.one_hot(drawn, stop - start).to(flat)
    return flat.reshape(draws.shape)


def which_observed(batch: Batch, name: str) -> Tensor:
    """The mask of observed rows, or cells, of a modality."""
    if name not in batch.values:
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    present = batch.present[name]
    if name in batch.cells:
        return batch.cells[name] & present.reshape(-1, *(1 for _ in batch.cells[name].shape[1:]))
    return present


def _estimate(model: MultimodalVAE, name: str, z: Tensor, observed: Tensor, others: Tensor, decoder: Decoder | RowDecoder) -> Tensor:
    r"""The point estimate, shape (B, \*shape); arbitrary for fully observed rows."""
    absent = ~observed.flatten(1).all(1).to(z.device) if observed.ndim > 1 else ~observed.to(z.device)
    if absent.all():
        return decode(model, name, z, others, decoder=decoder, point=True)
    likelihood = model.likelihoods[name]
    distribution = decoder.index(absent).served(z[:, absent], others[absent])
    if not likelihood.averaged:
        return likelihood.blank(len(absent)).to(z.device).index_copy(0, absent.nonzero()[:, 0], likelihood.estimate(distribution))
    some = likelihood.expectation(distribution)
    # Scattered before averaging, since the order of summation, and so the last bit, depends on the position of a row.
    expectation = some.new_zeros(len(z), len(absent), *some.shape[2:])
    expectation[:, absent] = some
    return likelihood.point(expectation.mean(0))


def decode(
    model: MultimodalVAE, name: str, z: Tensor, given: Tensor | None = None,
    *, decoder: Decoder | RowDecoder | None = None, point: bool = False, noise: bool = False,
) -> Tensor:  # fmt: skip
    r"""Decodes samples of z, shape (K, B, D), to canonical values of a modality, shape (K, B, \*shape).

    The number of other modalities that z was inferred from is ``given``, shape (B,) (`nbridge.MultimodalVAE.given`). The ``decoder`` is
    that of the rows (`nbridge.MultimodalVAE.decoder_of`), by default for rows of size 1. With ``point``, the result is the point estimate
    over K, shape (B, \*shape); with ``noise``, values are sampled from :math:`p(x_j \mid z_k)` instead of its expectation.
    """
    likelihood, distribution = model.likelihoods[name], (decoder or model.decoder(name)).served(z, given)
    if noise and not point:
        return distribution.sample()
    return likelihood.estimate(distribution) if point else likelihood.point(likelihood.expectation(distribution))


@contextmanager
def serving(model: MultimodalVAE, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, and a separate seed; the previous state is restored on exit."""
    with _in_eval_mode(model), torch.no_grad(), own_draws(seed):
        yield


_MODES: WeakKeyDictionary[MultimodalVAE, tuple[int, dict[Module, bool]]] = WeakKeyDictionary()
"""For each model in use: the number of active calls in all threads, and the modes of its modules before the first of them."""
_MODES_LOCK = threading.Lock()


@contextmanager
def _in_eval_mode(model: MultimodalVAE) -> Iterator[None]:
    """Eval mode; the last of several overlapping calls restores the modes from before the first."""
    with _MODES_LOCK:
        calls, modes = _MODES.get(model) or (0, {module: module.training for module in model.modules()})
        _MODES[model] = calls + 1, modes
        if not calls:
            model.eval()
    try:
        yield
    finally:
        with _MODES_LOCK:
            calls, modes = _MODES.pop(model)
            if calls > 1:
                _MODES[model] = calls - 1, modes
            else:
                for module, mode in modes.items():
                    module.training = mode


def fixed_points(model: MultimodalVAE) -> tuple[Tensor, Tensor]:
    """The fixed standard normal numbers of point estimates, the same for every row and call.

    Returns:
        Quasi-random points for z, shape (K, D), and the noise of a stochastic model's posterior, shape (K, `noise_width`), which is
        pseudo-random because its dimension is too high for K quasi-random points.
    """
    number = number_of_points(model)
    noise = torch.randn(number, model.noise_width, dtype=model.dtype, generator=torch.Generator().manual_seed(0))
    if number == POINT_DRAWS:
        return _points(model.latent_dim, number, model.dtype), noise
    # In pairs around the mean, whose error of a linear decoder is 0.
    half = _points(model.latent_dim, number // 2, model.dtype)
    return torch.cat([half, -half]), noise


def number_of_points(model: MultimodalVAE) -> int:
    """The number K of samples of z that a point estimate averages over."""
    return TABLE_DRAWS if all(likelihood.partly for likelihood in model.likelihoods.values()) else POINT_DRAWS


def point_draws(q: Independent, points: Tensor) -> Tensor:
    """The values of z that a point estimate averages over, shape (K, B, D), for a posterior of batch shape (K, B) or (B,) over D.

    Points are standard normal, shape (K, D).
    """
    return q.mean + q.stddev * points.to(q.mean)[:, None]


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def _points(dimension: int, number: int, dtype: torch.dtype) -> Tensor:
    uniform = SobolEngine(dimension, scramble=True, seed=0).draw(number, dtype=dtype)
    return torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))


def _repeated(x: Tensor, num: int, axes: int) -> Tensor:
    """One value per row; a single value, with the given number of axes, is repeated."""
    return x if x.ndim > axes else x.expand(num, *x.shape)
