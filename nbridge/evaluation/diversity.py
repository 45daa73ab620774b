r"""Diversity of generated values, compared with real ones.

**Variance ratio.** The within-class variance of generated values :math:`\hat{x}` divided by that of real values x, each summed over the D
elements, averaged over the C classes:

.. math:: \frac{1}{C} \sum_{c=1}^{C} \frac{\sum_d \mathrm{Var}(\hat{x}_d \mid y = c)}{\sum_d \mathrm{Var}(x_d \mid y = c)}

Variances have the denominator n - 1. Elements are standardised as for the encoder, so that their variances can be summed (for pixels this
is the values themselves). A model that generates one image per class scores 0. By default, generated values are expectations, around which
real values scatter, so the ratio is below 1 even for a perfect model.

**Fréchet distance** of two sets of features, as Gaussians,

.. math:: \| \mu_a - \mu_b \|^2 + \mathrm{tr} \big( \Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2} \big),

here in the penultimate layer of a classifier. It grows as the number of rows shrinks, so compare it only with its floor: the distance
between two halves of the real rows, computed *with the same number of rows on every side*.

References:
    | GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017)
    | Effectively Unbiased FID and Inception Score and Where to Find Them (Chong & Forsyth, 2020)

Axes: N rows, D elements of a value, F features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.classifiers import Classifier, check_label, labels_of
from nbridge.evaluation.rows import rows_with_all
from nbridge.inference.impute import chunks, decode, serving
from nbridge.models.base import MultimodalVAE


@dataclass(frozen=True)
class Diversity:
    """Diversity of the generated values of a target.

    Arguments:
        label: The modality that defines the class of a row.
        rows: The number of rows; each side of a Fréchet distance uses half of them.
        classes: The number of classes that the variance ratio averages over: those with two or more rows whose real values vary.
        variance_ratio: Within-class variance of generated values divided by that of real values.
        frechet: Distance between generated values and the real values of other rows.
        floor: Distance between real values and the real values of other rows.
    """

    given: tuple[str, ...]
    target: str
    label: str
    rows: int
    classes: int
    variance_ratio: float
    frechet: float
    floor: float


def diversity(
    model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, label: str, classifier: Classifier,
    *, samples: int = 10, noise: bool = False, seed: int = 0,
) -> Diversity:  # fmt: skip
    """Variance ratio and Fréchet distance of one modality generated from others.

    Uses the rows in which the given modalities are present and the target and the label are completely observed. Each of the K draws
    generates one value per row and splits the rows into two random halves. The values generated from one half are compared with the real
    values of the other half, never with those of their own rows; so are the real values. Scores are means over draws. Rows must not be used
    to train the model or the classifier, whose penultimate layer gives the features. Give only the label to generate from a class; for
    attributes, each combination is a class. With ``noise``, draws include the spread of the likelihood, which then counts as diversity.

    Raises:
        DataError: when the model lacks a modality, the label is neither categorical nor of attributes, ``samples`` is below 1, a value is
            outside its likelihood's support, fewer than 4 rows can be used, or no class has two of them.
    """
    given = tuple(given)
    check_label(model, label)
    require_positive(samples=samples)
    model.check(batch)
    batch = _whole(rows_with_all(model, batch, (*given, target, label)), target, label)
    if len(batch) < 4:
        raise DataError(f"diversity needs 4 or more complete rows of {', '.join(dict.fromkeys((*given, target, label)))}, got {len(batch)}")
    with serving(model, seed):
        real = _described(model, batch, target, label, classifier, None, noise)
        scores = [_scores(real, _described(model, batch, target, label, classifier, given, noise)) for _ in range(samples)]
    ratio, frechet, floor = (sum(column) / samples for column in zip(*scores, strict=True))
    return Diversity(given, target, label, len(batch), int((real.variances > 0).sum()), ratio, frechet, floor)


def class_variances(x: Tensor, classes: Tensor) -> Tensor:
    """The variance within each class, summed over elements, float64, shape (C,); NaN for a class with fewer than 2 rows.

    Values have the shape (N, D), and classes, integers from 0 to C - 1, the shape (N,).
    """
    spread = _Spread(int(classes.max()) + 1)
    spread.add(x, classes)
    return spread.variances()


def variance_ratio(generated: Tensor, real: Tensor) -> float:
    """The mean over classes of the variance of generated values over that of real ones.

    Both have the shape (C,). Classes whose real values do not vary, or with fewer than two rows, are left out.

    Raises:
        DataError: when all classes are left out.

    Example:
        >>> variance_ratio(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0]))
        0.75
    """
    counts = (real > 0) & generated.isfinite()
    if not counts.any():
        raise DataError(
            "variance ratio: no class has 2 or more rows with different real values; use more rows, or a label with fewer classes"
        )
    return float((generated[counts].double() / real[counts].double()).mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""The (squared) Fréchet distance between two sets of rows as Gaussians, in float64.

    With :math:`A` the centred rows divided by :math:`\sqrt{n_a - 1}`, so that :math:`\Sigma_a = A^\top A`, the last trace is the sum of the
    singular values of :math:`A B^\top`. This forms no covariance and no matrix square root, so it works for any rank.

    Raises:
        DataError: when one side has fewer than 2 rows.

    Example:
        >>> x = torch.randn(100, 3)
        >>> round(frechet_distance(x, x + 2), 6)
        12.0
    """
    if min(len(a), len(b)) < 2:
        raise DataError(f"Fréchet distance: got {len(a)} and {len(b)} rows, expected 2 or more on each side")
    (mean_a, root_a), (mean_b, root_b) = _gaussian(a), _gaussian(b)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * overlap
    return max(0.0, float(distance))


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mean, and a matrix R of at most F rows with :math:`R^\top R` the covariance."""
    x = x.double()
    mean = x.mean(0)
    return mean, torch.linalg.qr((x - mean) / math.sqrt(len(x) - 1), mode="r").R


@dataclass(frozen=True)
class _Described:
    """Summary of a target's values: features, shape (N, F), and the variance within each class, shape (C,)."""

    features: Tensor
    variances: Tensor


class _Spread:
    """Accumulates within-class variances over chunks of rows."""

    def __init__(self, classes: int) -> None:
        self.number = torch.zeros(classes, dtype=torch.float64)
        self.squares = torch.zeros(classes, dtype=torch.float64)
        self.total: Tensor | None = None

    def add(self, x: Tensor, classes: Tensor) -> None:
        """Adds values of shape (N, D) and their classes, shape (N,)."""
        x, classes = x.double().cpu(), classes.cpu()
        total = x.new_zeros(len(self.number), x.shape[1]) if self.total is None else self.total
        self.total = total.index_add_(0, classes, x)
        self.squares.index_add_(0, classes, x.square().sum(1))
        self.number += torch.bincount(classes, minlength=len(self.number))

    def variances(self) -> Tensor:
        """The variance within each class, shape (C,); 0 if no larger than rounding error, NaN for fewer than 2 rows."""
        assert self.total is not None, "no rows yet"
        scatter = self.squares - self.total.square().sum(1) / self.number
        scatter = torch.where(scatter > 1e-12 * self.squares, scatter, 0.0)
        return torch.where(self.number > 1, scatter / (self.number - 1), math.nan)


def _described(
    model: MultimodalVAE, batch: Batch, target: str, label: str, classifier: Classifier, given: tuple[str, ...] | None, noise: bool
) -> _Described:
    """Summarises the real values of rows (``given`` None), or one draw per row from the given modalities."""
    likelihood = model.likelihoods[target]
    # Each distinct label is a class.
    classes = torch.unique(labels_of(model.likelihoods[label], batch, label)[0], dim=0, return_inverse=True)[1]
    spread, features, start = _Spread(int(classes.max()) + 1), [], 0
    for part in chunks(batch, likelihood.numbers):
        here = part.to(model.device)
        if given is None:
            x = likelihood.canonical(here.values[target])
        else:
            rows = here.only(*given)
            z, decoder = model.posterior(rows).sample(), model.decoder_of(target, rows)
            x = decode(model, target, z, model.given(target, rows), decoder=decoder, noise=noise)[0]
        features.append(classifier.features(x).double().cpu())
        spread.add(likelihood.standardize(likelihood.typical(x)).flatten(1), classes[start : start + len(part)])
        start += len(part)
    return _Described(torch.cat(features), spread.variances())


def _scores(real: _Described, generated: _Described) -> tuple[float, float, float]:
    """Variance ratio, Fréchet distance and its floor, over a random split of the rows into halves."""
    half = len(real.features) // 2
    one, other = torch.randperm(len(real.features))[: 2 * half].split(half)
    a, b = real.features[one], real.features[other]
    distances = frechet_distance(generated.features[one], b), frechet_distance(generated.features[other], a)
    return variance_ratio(generated.variances, real.variances), sum(distances) / 2, frechet_distance(a, b)


def _whole(batch: Batch, *names: str) -> Batch:
    """The rows in which every cell of these modalities is observed."""
    for name in names:
        if name in batch.cells:
            batch = batch.index(batch.cells[name].flatten(1).all(1))
    return batch
