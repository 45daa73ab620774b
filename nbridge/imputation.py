r"""Filling in what is absent, from any pattern of presence.

Each draw takes one :math:`z_k \sim q(z \mid x_S)` for a row and decodes *every* absent modality from it: separate draws would destroy
their agreement. Draws include the spread of :math:`p(x_j \mid z_k)`, so that their variance is the predictive one.

Axes: K samples, B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Independent
from torch.quasirandom import SobolEngine

from nbridge.batch import Batch
from nbridge.distributions import diagonal_normal
from nbridge.models.base import MultimodalVAE
from nbridge.support import check_support

POINT_DRAWS = 64
"""Draws of z that a point estimate averages over."""
ELEMENTS = 2**21
"""Numbers decoded at a time, at most: bounds the memory of an imputation, and keeps convolutions in the processor's cache."""


@dataclass(frozen=True)
class Completed:
    r"""Rows in which nothing is absent.

    Arguments:
        values: By modality, shape (B, \*shape), or (K, B, \*shape) for K draws; observed values are bit-identical to what was given,
            in the form (class index or one-hot) and type in which it was given.
        imputed: By modality, which rows, shape (B,), or which cells, shape (B, \*shape), are imputed.
    """

    values: dict[str, Tensor]
    imputed: dict[str, Tensor]


def impute(model: MultimodalVAE, batch: Batch, *, samples: int | None = None, noise: bool = True, seed: int = 0) -> Completed:
    r"""Fills in every absent modality of every row, and every absent cell.

    Without ``samples`` it gives a point estimate: the mean (the most probable class, a whole count) of
    :math:`p(x_j \mid x_S) = \mathbb{E}_{q(z \mid x_S)} [p(x_j \mid z)]`, over a fixed set of points z so that a row's result depends on
    that row alone. With ``samples=K`` it gives K draws; each draw decodes all absent modalities of a row from one z.

    Arguments:
        model: A trained model.
        batch: Rows with any pattern of presence; rows with nothing observed are served from the prior.
        samples: The number K of draws, or None for the point estimate.
        noise: Whether draws include the spread of the likelihood; without it they are the expectations of :math:`p(x_j \mid z_k)`.
        seed: Seed of the draws.

    Raises:
        DataError: when observed values lie outside their likelihood's support or the model lacks a modality of the batch.

    Example:
        >>> import nbridge
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
        ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> rows = nbridge.Batch.complete({"top": torch.randn(5, 4), "label": torch.tensor([0, 1, 2, 0, 1])})
        >>> nbridge.impute(model, rows.hide("label"), samples=7).values["label"].shape
        torch.Size([7, 5])
    """
    model.check_names(batch)
    check_support(model.likelihoods, batch)
    rows = max(1, ELEMENTS // ((samples or POINT_DRAWS) * sum(math.prod(x.shape) for x in model.likelihoods.values())))
    with serving(model, seed):
        parts = [_impute_rows(model, batch.slice(start, start + rows), samples, noise) for start in range(0, max(1, len(batch)), rows)]
    axis = 0 if samples is None else 1
    return Completed(
        {name: torch.cat([part.values[name] for part in parts], axis) for name in model.names},
        {name: torch.cat([part.imputed[name] for part in parts]) for name in model.names},
    )


def generate(
    model: MultimodalVAE, num: int, given: Mapping[str, Tensor] | None = None, *, noise: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    r"""New rows, :math:`z \sim p(z)` or :math:`z \sim q(z \mid \mathrm{given})`, then :math:`x_j \sim p(x_j \mid z)`.

    Arguments:
        model: A trained model.
        num: The number B of rows.
        given: Values of some modalities: one, shape ``shape`` (a class index: a scalar), which all rows share, or one for each row.
        noise: Whether to draw from the likelihood; else its expectation is given.
        seed: Seed of the draws.

    Returns:
        Values of all modalities, the given ones among them, shape (B, \*shape).
    """
    rows = {name: _repeated(x, num, model.likelihoods[name].blank(0).ndim - 1) for name, x in (given or {}).items()}
    anchor = model.names[0]
    blank = model.likelihoods[anchor].blank(num)
    batch = Batch.complete(rows) if rows else Batch({anchor: blank}, {anchor: torch.zeros(num, dtype=torch.bool)})
    return {name: x[0] for name, x in impute(model, batch, samples=1, noise=noise, seed=seed).values.items()}


def embed(model: MultimodalVAE, batch: Batch, *, samples: int = 1, seed: int = 0) -> Independent:
    r"""The posterior :math:`q(z \mid x_S)` of each row, batch shape (B,) over D.

    For a stochastic model it has the mean and the variance of the mixture over ``samples`` posteriors.
    """
    model.check_names(batch)
    check_support(model.likelihoods, batch)
    with serving(model, seed):
        q = model.posterior(batch.to(model.device), samples)
        variance = q.variance.mean(0) + q.mean.var(0, correction=0)
        return diagonal_normal(q.mean.mean(0), variance.sqrt())


def _impute_rows(model: MultimodalVAE, batch: Batch, samples: int | None, noise: bool) -> Completed:
    device = batch.device
    q = model.posterior(batch.to(model.device), samples or POINT_DRAWS)
    z = q.mean + q.stddev * _fixed_points(model.latent_dim).to(q.mean)[:, None] if samples is None else q.sample()
    values, imputed = {}, {}
    for name, likelihood in model.likelihoods.items():
        observed = _observed(batch, name)
        imputed[name] = ~observed
        given = batch.values.get(name)
        if given is not None and observed.all():
            values[name] = given if samples is None else given.expand(samples, *given.shape)
            continue
        guess = _decode(model, name, z, point=samples is None, noise=noise).to(device)
        if given is not None:
            guess = likelihood.restore(guess, given)
            guess = torch.where(observed.reshape(*observed.shape, *(1 for _ in given.shape[observed.ndim :])), given, guess)
        values[name] = guess
    return Completed(values, imputed)


def _observed(batch: Batch, name: str) -> Tensor:
    """Which rows of a modality, or which of its cells, are observed."""
    if name not in batch.values:
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    present = batch.present[name]
    if name in batch.cells:
        return batch.cells[name] & present.reshape(-1, *(1 for _ in batch.cells[name].shape[1:]))
    return present


def _decode(model: MultimodalVAE, name: str, z: Tensor, *, point: bool, noise: bool) -> Tensor:
    likelihood, distribution = model.likelihoods[name], model.decoder(name)(z)
    if noise and not point:
        return distribution.sample()
    expectation = likelihood.expectation(distribution)
    return likelihood.point(expectation.mean(0) if point else expectation)


@contextmanager
def serving(model: MultimodalVAE, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, and a seed of its own; all put back afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _fixed_points(dimension: int) -> Tensor:
    """Quasi-random standard normal points, shape (K, D): the same for every row and every call."""
    uniform = SobolEngine(dimension, scramble=True, seed=0).draw(POINT_DRAWS)
    return torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))


def _repeated(x: Tensor, num: int, axes: int) -> Tensor:
    """One value for each of so many rows; a single value, of so many axes, is shared by all."""
    return x if x.ndim > axes and len(x) == num else x.expand(num, *x.shape)
