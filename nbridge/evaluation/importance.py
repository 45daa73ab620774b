r"""Log-likelihoods by importance sampling.

For modalities T and a proposal that observes modalities P,

.. math::
    \log p(x_T) \approx \log \frac{1}{K} \sum_k w_k, \qquad w_k = \frac{p(x_T \mid z_k) \, p(z_k)}{q(z_k \mid x_P)}, \qquad
    z_k \sim q(z \mid x_P)

The expectation of the estimate is a lower bound that rises to :math:`\log p(x_T)` with K for any P: the paper's :math:`q(z \mid x, y)` and
:math:`q(z \mid x)` are two proposals for the same quantity. To judge the estimate, look at the Monte-Carlo error, the effective sample size
:math:`(\sum_k w_k)^2 / \sum_k w_k^2` and the curve over K.

References:
    | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519
    | Bridged Variational Autoencoders for Joint Modeling of Images and Attributes (Yadav et al., WACV 2020), tables 1 to 4

Axes: K draws, B rows, D latent dimensions, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributions

from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.rows import check_names, rows_with, rows_with_all
from nbridge.evaluation.weights import importance_estimates
from nbridge.inference.impute import check_size
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical

Names = str | Iterable[str]
"""One modality or several."""


@dataclass(frozen=True)
class LogLikelihood:
    """Estimate of log p(x_T), averaged over rows.

    Arguments:
        target: The modalities T.
        proposal: The modalities P that the proposal observes; empty for the prior.
        rows: The number of rows, those in which all of T and P are present.
        log_likelihood: Mean over rows, in nats.
        standard_error: The Monte-Carlo error of that mean, by the delta method; NaN for a single draw. It is too small when the effective
            sample size is near 1.
        row_error: The standard deviation over rows divided by the root of their number: how much the mean would change with other rows of
            the same distribution; NaN for a single row.
        effective_sample_size: Median over rows, from 1 to K; K for an exact proposal.
        curve: The mean estimate from the first 1, 10, 100, ... and K draws, by their number. It rises on average; trust the estimate once
            the curve is flat.
    """

    target: tuple[str, ...]
    proposal: tuple[str, ...]
    rows: int
    samples: int
    log_likelihood: float
    standard_error: float
    row_error: float
    effective_sample_size: float
    curve: dict[int, float]


@dataclass(frozen=True)
class RowLogLikelihoods:
    """Estimates of log p(x_T) for each of N rows, in nats; float64.

    Arguments:
        rows: Mask of the batch's rows that were used, boolean, of the batch's length.
        log_likelihood: Estimates, shape (N,).
        standard_error: Their Monte-Carlo errors, shape (N,).
        effective_sample_size: Shape (N,).
        curve: Estimates from the first draws, each of shape (N,), by the number of draws.
    """

    target: tuple[str, ...]
    proposal: tuple[str, ...]
    samples: int
    rows: Tensor
    log_likelihood: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    curve: dict[int, Tensor]

    def mean(self) -> LogLikelihood:
        """The mean estimate over all rows."""
        return LogLikelihood(
            self.target, self.proposal, len(self.log_likelihood), self.samples, self.log_likelihood.mean().item(),
            _error_of_mean(self.standard_error), _row_error(self.log_likelihood), self.effective_sample_size.quantile(0.5).item(),
            {number: estimate.mean().item() for number, estimate in self.curve.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class ConditionalLogLikelihood:
    r"""Estimate of :math:`\log p(x_A \mid x_S) = \log p(x_A, x_S) - \log p(x_S)`, averaged over rows.

    Arguments:
        target: The modalities A.
        given: The modalities S.
        rows: The number of rows, those in which all of A and S are present.
        log_likelihood: Mean over rows, in nats. Both terms are lower bounds, so their difference is *neither a lower nor an upper bound*;
            trust it only once both curves are flat.
        standard_error: The Monte-Carlo error of that mean.
        row_error: The standard deviation over rows divided by the root of their number.
        joint: The first term, of A and S together.
        marginal: The second term, of S alone, over the same rows.
    """

    target: tuple[str, ...]
    given: tuple[str, ...]
    rows: int
    log_likelihood: float
    standard_error: float
    row_error: float
    joint: LogLikelihood
    marginal: LogLikelihood


@dataclass(frozen=True)
class LabelPosterior:
    r"""Class probabilities of a label, :math:`p(y = c \mid x_S)`, for N rows, by enumerating its C classes; float64.

    Arguments:
        label: The categorical modality y.
        rows: Mask of the batch's rows that were used, boolean, of the batch's length.
        log_joint: :math:`\log p(y = c, x_S)`, shape (N, C), in nats.
        probabilities: :math:`p(y = c \mid x_S)`, shape (N, C): `log_joint`, normalised.
        direct: :math:`\log p(x_S)` from the same draws without the label, shape (N,). It equals `enumerated` up to rounding.
        effective_sample_size: Effective sample size of the draws without the label, shape (N,).
        accuracy: Share of the labelled rows whose most probable class is the true one; None when no row has a label.
        log_probability: Mean log-probability of the true label over the labelled rows, in nats; None when no row has a label.
    """

    label: str
    given: tuple[str, ...]
    samples: int
    rows: Tensor
    log_joint: Tensor
    probabilities: Tensor
    direct: Tensor
    effective_sample_size: Tensor
    accuracy: float | None
    log_probability: float | None

    @property
    def enumerated(self) -> Tensor:
        r""":math:`\log \sum_c p(y = c, x_S)`, shape (N,): :math:`\log p(x_S)` by enumeration."""
        return self.log_joint.logsumexp(-1)


def log_likelihood(
    model: MultimodalVAE, batch: Batch, target: Names, proposal: Names | None = None, *, samples: int = 5000, seed: int = 0
) -> LogLikelihood:
    r"""The log-likelihood of modalities, :math:`\log p(x_T)`, averaged over the rows in which all of T and P are present.

    For a partly observed modality it is the density of the observed cells. P, the modalities that the proposal :math:`q(z \mid x_P)`
    observes, need not overlap T; it is T when omitted, and empty for the prior.

    Raises:
        DataError: when a name is unknown, no row has all of these modalities, an observed value is outside its likelihood's support, or
            ``samples`` is below 1.

    Example:
        >>> import nbridge
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
        ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> rows = nbridge.Batch.complete({"top": torch.randn(5, 4), "label": torch.tensor([0, 1, 2, 0, 1])})
        >>> estimate = log_likelihood(model, rows, target="top", proposal=("top", "label"), samples=200)
        >>> estimate.rows, list(estimate.curve)
        (5, [1, 10, 100, 200])
    """
    return log_likelihood_rows(model, batch, target, proposal, samples=samples, seed=seed).mean()


def log_likelihood_rows(
    model: MultimodalVAE, batch: Batch, target: Names, proposal: Names | None = None, *, samples: int = 5000, seed: int = 0
) -> RowLogLikelihoods:
    """The log-likelihood of each row; arguments and errors as in `log_likelihood`."""
    target = _named("target", target)
    proposal = target if proposal is None else _names(proposal)
    needed = (*target, *proposal)
    rows = _checked(model, batch, needed, samples)

    def terms(z: Tensor, part: Batch) -> Tensor:
        return _log_density(model, target, z, part)

    found = importance_estimates(model, rows, proposal, terms, samples=samples, seed=seed, numbers=_numbers(model, target))
    mask = rows_with(batch, needed).cpu()
    return RowLogLikelihoods(target, proposal, samples, mask, found.log_mean, found.error, found.effective_sample_size, found.curve)


def conditional_log_likelihood(
    model: MultimodalVAE, batch: Batch, target: Names, given: Names,
    *, joint_proposal: Names | None = None, marginal_proposal: Names | None = None, samples: int = 5000, seed: int = 0,
) -> ConditionalLogLikelihood:  # fmt: skip
    r"""The log-likelihood of modalities given others, :math:`\log p(x_A \mid x_S) = \log p(x_A, x_S) - \log p(x_S)`.

    Both terms are lower bounds, so the difference is neither a lower nor an upper bound: check the curves of both. Their draws are
    independent. For a categorical label, use `label_posterior`, which is more accurate. Both terms use the rows with all of A, S and the
    proposals' modalities. The proposal of the first term observes A and S when omitted, that of the second term S. The second term uses
    ``seed + 1``.

    Raises:
        DataError: as for `log_likelihood`, and when a modality is both target and given.
    """
    target, given = _named("target", target), _named("given", given)
    if both := [name for name in target if name in given]:
        raise DataError(f"modality {both[0]!r} is both target and given")
    everything = (*target, *given)
    proposals = [everything if joint_proposal is None else _names(joint_proposal)]
    proposals.append(given if marginal_proposal is None else _names(marginal_proposal))
    batch = rows_with_all(model, batch, (*everything, *proposals[0], *proposals[1]))
    joint = log_likelihood_rows(model, batch, everything, proposals[0], samples=samples, seed=seed)
    marginal = log_likelihood_rows(model, batch, given, proposals[1], samples=samples, seed=seed + 1)
    return conditional_of(joint, marginal)


def conditional_of(joint: RowLogLikelihoods, marginal: RowLogLikelihoods) -> ConditionalLogLikelihood:
    """Combines the two terms of a conditional log-likelihood, estimated over the same rows with independent draws."""
    difference = joint.log_likelihood - marginal.log_likelihood
    error = (joint.standard_error.square() + marginal.standard_error.square()).sqrt()
    return ConditionalLogLikelihood(
        tuple(name for name in joint.target if name not in marginal.target), marginal.target, len(difference), difference.mean().item(),
        _error_of_mean(error), _row_error(difference), joint.mean(), marginal.mean(),
    )  # fmt: skip


def label_posterior(model: MultimodalVAE, batch: Batch, label: str, given: Names, *, samples: int = 5000, seed: int = 0) -> LabelPosterior:
    r"""The class probabilities of a label given other modalities; all classes share the same draws from :math:`q(z \mid x_S)`.

    .. math::
        p(y = c, x_S) \approx \frac{1}{K} \sum_k w_k \, p(y = c \mid z_k), \qquad
        w_k = \frac{p(x_S \mid z_k) \, p(z_k)}{q(z_k \mid x_S)}

    Normalised over c, this is self-normalised importance sampling of :math:`p(y \mid x_S)`: unlike a difference of two bounds, it is a
    probability distribution. As a check, the sum over c equals the direct estimate of :math:`p(x_S)`, which is also returned.

    Rows with all of S are used; their labels are used only for scoring. S is without the label, and empty for the prior.

    Raises:
        DataError: as for `log_likelihood`, and when the label is among ``given`` or is not categorical.
    """
    given = _names(given)
    check_names(model, [label])
    if not isinstance(likelihood := model.likelihoods[label], Categorical):
        raise DataError(f"modality {label!r} is {type(likelihood).__name__}, not categorical: its values cannot be enumerated")
    classes = likelihood.shape[0]
    if label in given:
        raise DataError(f"modality {label!r} is both label and given")
    rows = _checked(model, batch, given, samples)

    def terms(z: Tensor, part: Batch) -> Tensor:
        evidence = _log_density(model, given, z, part)[..., None]
        return torch.cat([evidence, evidence + _log_classes(model, label, z, part)], -1)

    # Each class needs a logit, its log-probability and its weight, in float64.
    numbers = _numbers(model, given) + 6 * classes
    found = importance_estimates(model, rows, given, terms, samples=samples, seed=seed, numbers=numbers, functions=1 + classes)
    log_joint = found.log_mean[:, 1:]
    log_probability = log_joint.log_softmax(-1)
    return LabelPosterior(
        label, given, samples, rows_with(batch, given).cpu(), log_joint, log_probability.exp(), found.log_mean[:, 0],
        found.effective_sample_size[:, 0], *_label_scores(model, rows, label, log_probability),
    )  # fmt: skip


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _named(role: str, names: Names) -> tuple[str, ...]:
    """One or more modalities as a tuple."""
    if not (found := _names(names)):
        raise DataError(f"{role} names no modality, expected one or more")
    return found


def _checked(model: MultimodalVAE, batch: Batch, names: Sequence[str], samples: int) -> Batch:
    """The rows that have all of these modalities, restricted to the model's modalities."""
    require_positive(samples=samples)
    check_size(model, "samples", samples)
    rows = rows_with_all(model, batch, names)
    rows = rows.select(*(name for name in batch.names if name in model.names))
    model.check(rows)
    return rows


def _log_density(model: MultimodalVAE, names: Sequence[str], z: Tensor, batch: Batch) -> Tensor:
    r""":math:`\sum_i \log p(x_i \mid z)`, shape (K, B), float64, for z of shape (K, B, D)."""
    total = torch.zeros(z.shape[:-1], dtype=torch.float64, device=z.device)
    for name in names:
        total += model.log_prob(name, z, batch)
    return total


def _log_classes(model: MultimodalVAE, label: str, z: Tensor, batch: Batch) -> Tensor:
    r""":math:`\log p(y = c \mid z)`, shape (K, B, C), normalised in float64 so that the classes sum to one."""
    distribution = model.decoder_of(label, batch)(z)
    assert isinstance(distribution, distributions.Categorical)
    return distribution.logits.double().log_softmax(-1)


def _numbers(model: MultimodalVAE, names: Sequence[str]) -> int:
    """The number of decoder outputs per z."""
    return sum(math.prod(model.likelihoods[name].raw_shape) for name in names)


def _label_scores(model: MultimodalVAE, batch: Batch, label: str, log_probability: Tensor) -> tuple[float | None, float | None]:
    """Accuracy and mean log-probability of the true label, over the labelled rows."""
    present = rows_with(batch, [label]).cpu()
    if not present.any():
        return None, None
    true = model.likelihoods[label].canonical(batch.values[label]).cpu()[present]
    found = log_probability[present]
    return (found.argmax(-1) == true).double().mean().item(), found.gather(-1, true[:, None]).mean().item()


def _error_of_mean(errors: Tensor) -> float:
    """The standard error of a mean of independent estimates with these errors."""
    return errors.square().sum().sqrt().item() / len(errors)


def _row_error(x: Tensor) -> float:
    return x.std().item() / math.sqrt(len(x)) if len(x) > 1 else math.nan
