r"""Scores binary attributes predicted from other modalities.

The probability of an attribute is the mean over draws,

.. math:: p(a \mid x_S) \approx \frac{1}{K} \sum_k p(a \mid z_k), \qquad z_k \sim q(z \mid x_S)

and the prediction is yes when it is at least one half. Attributes are rarely balanced, so each accuracy comes with the accuracy of always
predicting the more frequent value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.calibration import (
    Bin,
    calibration_error,
    observed_cells,
    predictive,
    reliability,
    require_cells,
    row_chunks,
    unsupported,
)
from nbridge.evaluation.rows import rows_to_score, rows_with_all
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Bernoulli


@dataclass(frozen=True)
class Attribute:
    """Scores of one attribute; None where no row has it.

    Arguments:
        name: Its name, or its index when no names were given.
        cells: The number of rows in which it is observed.
        base_rate: Share of rows with yes.
        accuracy: Share of correct predictions.
        majority_rate: Accuracy of always predicting the more frequent value.
        balanced_accuracy: Mean of the accuracies among yes and among no; None unless both occur.
    """

    name: str
    cells: int
    base_rate: float | None
    accuracy: float | None
    majority_rate: float | None
    balanced_accuracy: float | None


@dataclass(frozen=True)
class AttributeErrors:
    r"""Scores of predicted attributes.

    Arguments:
        accuracy: Mean accuracy over the attributes that are observed in some row.
        majority_rate: Mean accuracy of always predicting each attribute's more frequent value, for comparison.
        balanced_accuracy: Mean balanced accuracy over the attributes that have one; None when none has.
        brier: Mean :math:`(p - a)^2` over all observed cells, from 0 to 1.
        ece: Expected calibration error of the probability of yes, over all observed cells.
        reliability: The non-empty bins of that probability, in ascending order.
    """

    given: tuple[str, ...]
    target: str
    rows: int
    accuracy: float
    majority_rate: float
    balanced_accuracy: float | None
    brier: float
    ece: float
    reliability: tuple[Bin, ...]
    attributes: tuple[Attribute, ...]


def attribute_errors(
    model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str,
    *, reference: Batch | None = None, names: Sequence[str] | None = None, samples: int = 200, bins: int = 15, seed: int = 0,
) -> AttributeErrors:  # fmt: skip
    """Scores predicted attributes over the rows in which the target and all given modalities are present.

    Rows must not be used in training, and the target has a Bernoulli likelihood and ``attributes: true``. With nothing given, z comes from
    the prior. Each attribute's more frequent value is that of ``reference``, the training rows, or by default that of the scored rows.

    Raises:
        DataError: when no row has all of these modalities, the target has no attributes, an observed cell is neither 0 nor 1, or the number
            of names is wrong.
    """
    given = tuple(given)
    rows = rows_to_score(model, batch, given, target)
    likelihood = model.likelihoods[target]
    if not isinstance(likelihood, Bernoulli) or not likelihood.discrete:
        raise unsupported("attribute_errors", target, likelihood, "a bernoulli one with attributes: true")
    require_positive(samples=samples, bins=bins)
    names = _named(names, target, math.prod(likelihood.shape))
    _check_answers(batch, target)
    labels = _answers(rows, target)
    require_cells(labels.observed, target)
    counted = labels if reference is None else _reference_answers(model, reference, target)
    majority = 2 * counted.yes.sum(0) >= counted.observed.sum(0)
    with serving(model, seed):
        parts = [
            predictive(model, part, given, target, samples).mean.double().mean(0).flatten(1).cpu()
            for part in row_chunks(model, rows, target, samples)
        ]
    return _summary(given, target, names, torch.cat(parts), labels, majority, bins)


@dataclass(frozen=True)
class _Labels:
    """Attribute values and their observed mask, both boolean, shape (B, A)."""

    yes: Tensor
    observed: Tensor


def _answers(batch: Batch, target: str) -> _Labels:
    observed = observed_cells(batch, target).flatten(1).cpu()
    return _Labels((batch.values[target].flatten(1).cpu() == 1) & observed, observed)


def _reference_answers(model: MultimodalVAE, reference: Batch, target: str) -> _Labels:
    rows = rows_with_all(model, reference, [target])
    model.check(reference)
    _check_answers(reference, target)
    return _answers(rows, target)


def _check_answers(batch: Batch, target: str) -> None:
    x = batch.values[target].flatten(1)
    counts = observed_cells(batch, target).flatten(1) & batch.present[target][:, None]
    wrong = counts & (x != 0) & (x != 1)
    if wrong.any():
        row, index = wrong.nonzero()[0].tolist()
        raise DataError(f"modality {target!r}, row {row}: attribute {index} is {x[row, index].item():g}, expected 0 or 1")


def _named(names: Sequence[str] | None, target: str, number: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(number)))
    if len(names) != number:
        raise DataError(f"names: got {len(names)} for the {number} attributes of {target!r}, expected one each")
    return tuple(names)


def _attribute(name: str, p: Tensor, yes: Tensor, majority: Tensor) -> Attribute:
    """Scores one attribute over the rows in which it is observed."""
    right = (p >= 0.5) == yes
    balanced = _average([_share(right[yes]), _share(right[~yes])]) if yes.any() and not yes.all() else None
    return Attribute(name, len(p), _share(yes), _share(right), _share(yes == majority), balanced)


def _summary(
    given: tuple[str, ...], target: str, names: tuple[str, ...], p: Tensor, labels: _Labels, majority: Tensor, bins: int
) -> AttributeErrors:
    yes, observed = labels.yes, labels.observed
    columns = enumerate(zip(names, observed.T, strict=True))
    attributes = tuple(_attribute(name, p[rows, i], yes[rows, i], majority[i]) for i, (name, rows) in columns)
    balanced = [line.balanced_accuracy for line in attributes if line.balanced_accuracy is not None]
    p, yes = p[observed], yes[observed]
    table = reliability(p, yes, bins)
    return AttributeErrors(
        given=given, target=target, rows=len(observed), accuracy=_average(line.accuracy for line in attributes),
        majority_rate=_average(line.majority_rate for line in attributes), balanced_accuracy=_average(balanced) if balanced else None,
        brier=(p - yes.double()).square().mean().item(), ece=calibration_error(table), reliability=table, attributes=attributes,
    )  # fmt: skip


def _share(true: Tensor) -> float | None:
    return true.double().mean().item() if len(true) else None


def _average(shares: Iterable[float | None]) -> float:
    """The mean of the shares that are not None; at least one must not be."""
    return statistics.fmean(share for share in shares if share is not None)
