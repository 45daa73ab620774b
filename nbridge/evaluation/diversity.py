r"""How varied the values are that a model generates, against real ones.

**Variance ratio.** The variance of generated values within a class over that of real values of the class, each summed over the D elements
of a value, and the mean of this ratio over the C classes, with :math:`\hat{x}` generated and x real:

.. math:: \frac{1}{C} \sum_{c=1}^{C} \frac{\sum_d \mathrm{Var}(\hat{x}_d \mid y = c)}{\sum_d \mathrm{Var}(x_d \mid y = c)}

Variances have the denominator n - 1, and elements are in the form that an encoder sees, so that their units can be added up (for pixels the
values themselves). A model that answers each class with one image scores 0. Images that are shown are expectations, which real images
scatter around: such a ratio stays below 1 even for a perfect model.

**Fréchet distance** of two sets of features, as Gaussians,

.. math:: \| \mu_a - \mu_b \|^2 + \mathrm{tr} \big( \Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2} \big),

here in the penultimate layer of a classifier. It grows as samples shrink, so it is compared with nothing but its floor, the distance
between real rows and other real rows, *with equal numbers of rows on both sides of both*.

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
from nbridge.evaluation.rows import together
from nbridge.inference.impute import chunks, decode, serving
from nbridge.models.base import MultimodalVAE


@dataclass(frozen=True)
class Diversity:
    """How varied the generated values of a target are.

    Arguments:
        given: The modalities observed.
        target: The modality generated.
        label: The modality that says the class of a row.
        rows: The number of rows; half of them stand on each side of a Fréchet distance.
        classes: The number of classes that the variance ratio is a mean over: those with two rows or more, whose real values vary.
        variance_ratio: Variance within a class of generated values over that of real ones.
        frechet: Distance between generated values and real ones, of other rows.
        floor: Distance between real values and real ones of other rows.
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
    model: MultimodalVAE,
    batch: Batch,
    given: Iterable[str],
    target: str,
    label: str,
    classifier: Classifier,
    *,
    samples: int = 10,
    noise: bool = False,
    seed: int = 0,
) -> Diversity:
    """Variance ratio and Fréchet distance of one modality generated from others, over the rows that have all of these and the label whole.

    Each of the K draws generates one value for each row and cuts the rows in two halves at random. The values generated from one half are
    compared with the real values of the other, never with those of their own rows, as are the real values. Scores are means over draws.

    Arguments:
        model: A trained model.
        batch: Rows that neither the model nor the classifier has seen.
        given: The modalities to observe; of the label alone, a class is all that is known.
        target: The modality to generate.
        label: The modality that says the class; of attributes, each combination is a class.
        classifier: The classifier of the target, whose penultimate layer gives the features.
        samples: The number K of draws.
        noise: Whether draws include the spread of the likelihood, which then counts as variety.
        seed: Seed of the draws and of the halves.

    Raises:
        DataError: when the model lacks a modality, the label is no label, ``samples`` is below 1, values lie outside their likelihood's
            support, fewer than 4 rows have what it takes, or there is no class with two of them.
    """
    given = tuple(given)
    check_label(model, label)
    require_positive(samples=samples)
    model.check(batch)
    batch = _whole(together(model, batch, (*given, target, label)), target, label)
    if len(batch) < 4:
        raise DataError(f"diversity takes 4 rows or more with {', '.join(dict.fromkeys((*given, target, label)))} whole, got {len(batch)}")
    with serving(model, seed):
        real = _described(model, batch, target, label, classifier, None, noise)
        scores = [_scores(real, _described(model, batch, target, label, classifier, given, noise)) for _ in range(samples)]
    ratio, frechet, floor = (sum(column) / samples for column in zip(*scores, strict=True))
    return Diversity(given, target, label, len(batch), int((real.variances > 0).sum()), ratio, frechet, floor)


def class_variances(x: Tensor, classes: Tensor) -> Tensor:
    """The variance within each class, summed over elements, float64, shape (C,); NaN for a class with fewer than 2 rows.

    Arguments:
        x: Values, shape (N, D).
        classes: The class of each row, whole numbers from 0 to C - 1, shape (N,).
    """
    spread = _Spread(int(classes.max()) + 1)
    spread.add(x, classes)
    return spread.variances()


def variance_ratio(generated: Tensor, real: Tensor) -> float:
    """The mean over classes of the variance of generated values over that of real ones.

    Arguments:
        generated: The variance of generated values within each class, shape (C,).
        real: That of real values. A class whose real values do not vary, or without two rows, does not count.

    Raises:
        DataError: when no class counts.

    Example:
        >>> variance_ratio(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0]))
        0.75
    """
    counts = (real > 0) & generated.isfinite()
    if not counts.any():
        raise DataError(
            "variance ratio: no class has 2 rows or more whose real values differ; give more rows, or a label with fewer classes"
        )
    return float((generated[counts].double() / real[counts].double()).mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""The (squared) Fréchet distance between two sets of rows as Gaussians, in float64.

    With centred rows :math:`A` over :math:`\sqrt{n_a - 1}`, so that :math:`\Sigma_a = A^\top A`, the last trace is the sum of the singular
    values of :math:`A B^\top`. No covariance is formed and no root is taken of one, so that covariances may be of any rank.

    Arguments:
        a: Features, shape (N_a, F).
        b: Features, shape (N_b, F).

    Raises:
        DataError: when one side has fewer than 2 rows.

    Example:
        >>> x = torch.randn(100, 3)
        >>> round(frechet_distance(x, x + 2), 6)
        12.0
    """
    if min(len(a), len(b)) < 2:
        raise DataError(f"Fréchet distance between {len(a)} and {len(b)} rows, expected 2 or more on each side")
    (mean_a, root_a), (mean_b, root_b) = _gaussian(a), _gaussian(b)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * overlap
    return max(0.0, float(distance))


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mean and a matrix R with :math:`R^\top R` the covariance, of no more than F rows."""
    x = x.double()
    mean = x.mean(0)
    return mean, torch.linalg.qr((x - mean) / math.sqrt(len(x) - 1), mode="r").R


@dataclass(frozen=True)
class _Described:
    """Values of a target as scores see them: features, shape (N, F), and the variance within each class, shape (C,)."""

    features: Tensor
    variances: Tensor


class _Spread:
    """Sums from which variances within classes follow, of rows that come in parts."""

    def __init__(self, classes: int) -> None:
        self.number = torch.zeros(classes, dtype=torch.float64)
        self.squares = torch.zeros(classes, dtype=torch.float64)
        self.total: Tensor | None = None

    def add(self, x: Tensor, classes: Tensor) -> None:
        """Takes values of shape (N, D) and their classes, shape (N,)."""
        x, classes = x.double().cpu(), classes.cpu()
        total = x.new_zeros(len(self.number), x.shape[1]) if self.total is None else self.total
        self.total = total.index_add_(0, classes, x)
        self.squares.index_add_(0, classes, x.square().sum(1))
        self.number += torch.bincount(classes, minlength=len(self.number))

    def variances(self) -> Tensor:
        """The variance within each class, shape (C,); 0 where it is lost in rounding, NaN for fewer than 2 rows."""
        assert self.total is not None, "no rows yet"
        scatter = self.squares - self.total.square().sum(1) / self.number
        scatter = torch.where(scatter > 1e-12 * self.squares, scatter, 0.0)
        return torch.where(self.number > 1, scatter / (self.number - 1), math.nan)


def _described(
    model: MultimodalVAE, batch: Batch, target: str, label: str, classifier: Classifier, given: tuple[str, ...] | None, noise: bool
) -> _Described:
    """The real values of rows, or one draw for each row given some modalities."""
    likelihood, classes = model.likelihoods[target], _classes(model, batch, label)
    spread, features, start = _Spread(int(classes.max()) + 1), [], 0
    for part in chunks(batch, math.prod(likelihood.shape)):
        here = part.to(model.device)
        if given is None:
            x = likelihood.canonical(here.values[target])
        else:
            rows = here.only(*given)
            x = decode(model, target, model.posterior(rows).sample(), model.given(target, rows), noise=noise)[0]
        features.append(classifier.features(x).double().cpu())
        spread.add(likelihood.standardize(x).flatten(1), classes[start : start + len(part)])
        start += len(part)
    return _Described(torch.cat(features), spread.variances())


def _scores(real: _Described, generated: _Described) -> tuple[float, float, float]:
    """Variance ratio, Fréchet distance and its floor, with the rows cut in two at random."""
    half = len(real.features) // 2
    one, other = torch.randperm(len(real.features))[: 2 * half].split(half)
    a, b = real.features[one], real.features[other]
    distances = frechet_distance(generated.features[one], b), frechet_distance(generated.features[other], a)
    return variance_ratio(generated.variances, real.variances), sum(distances) / 2, frechet_distance(a, b)


def _classes(model: MultimodalVAE, batch: Batch, label: str) -> Tensor:
    """The class of each row, from 0 to C - 1, shape (B,): labels that differ in anything are different classes."""
    truth, _ = labels_of(model.likelihoods[label], batch, label)
    return torch.unique(truth, dim=0, return_inverse=True)[1]


def _whole(batch: Batch, *names: str) -> Batch:
    """The rows in which no cell of these modalities is absent."""
    for name in names:
        if name in batch.cells:
            batch = batch.index(batch.cells[name].flatten(1).all(1))
    return batch
