r"""Classes predicted from all other modalities and from each single one: accuracies, confusion matrices and calibration curves.

.. math:: p(y \mid x_S) = \frac{1}{K} \sum_k p(y \mid z_k), \qquad z_k \sim q(z \mid x_S)

Axes: K samples, B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import Bin, reliability, row_chunks
from nbridge.evaluation.rows import rows_with
from nbridge.inference.impute import serving
from nbridge.nn.likelihoods import Categorical
from nbridge.report.distributions import shares
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, scrolling, table
from nbridge.report.values import BAND_NOTE, CALIBRATION_NOTE, probabilities
from nbridge.visual.modality_kinds import class_names

DRAWS = 64
"""Draws of z per row."""
MATRICES, CLASSES = 12, 25
"""Maximum number of matrices shown, and of classes in a matrix."""
BINS = 10
"""Number of bins of predicted probabilities."""
MAX_CONFUSED = 10
"""Number of most confused pairs of classes listed when there are too many classes for a matrix."""


@dataclass(frozen=True)
class ClassPredictions:
    """Classes of one modality, predicted from others: numbers of rows by true and predicted class, shape (C, C)."""

    name: str
    given: str
    counts: Tensor
    bins: tuple[Bin, ...]
    shares: Tensor | None = None
    """Mean predicted probabilities, shape (C,)."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The share of rows whose most probable class is the true one."""
        return self.counts.diagonal().sum().item() / self.rows

    @property
    def common(self) -> float:
        """The share of rows in the most frequent class."""
        return self.counts.sum(1).max().item() / self.rows


def section(data: RunData) -> Iterator[Element]:
    """Accuracies, confusion matrices and calibration of each categorical modality."""
    loaded = data.model_and_rows
    found = [one for name in loaded.model.names for one in predicted(loaded, name)]
    if not found:
        raise SectionSkipped("no categorical modality with other modalities to predict it from")
    headings = ("predicted", "from", "rows", "accuracy", "most frequent class")
    rows = [(one.name, one.given, f"{one.rows:,}", f"{one.accuracy:.3f}", f"{one.common:.3f}") for one in found]
    yield table(f"Classes predicted on rows of the {loaded.split} split", headings, rows, words=2)
    yield element("h3", "Confusion")
    yield paragraph("Rows are true classes, columns predicted ones, in percent of the row; n is its number of rows.", quiet=True)
    yield element("div", *(matrix(one, class_names(data.spec, one.name)) for one in found[:MATRICES]), class_="matrices")
    if more := found[MATRICES:]:
        yield paragraph(f"and {len(more)} more, with accuracies in the table above", quiet=True)
    first_each = [one for place, one in enumerate(found) if place == 0 or found[place - 1].name != one.name]
    yield element("h3", "Imputed and observed distributions")
    yield element("div", *(_shares(data, one) for one in first_each), class_="matrices")
    yield element("h3", "Calibration")
    yield paragraph(f"{CALIBRATION_NOTE} {BAND_NOTE}", quiet=True)
    charts = (probabilities(f"{one.name} from {one.given}", one.bins, "right, %", "confidence, %") for one in first_each)
    yield element("div", *charts, class_="charts")


def predicted(loaded: ModelAndRows, name: str) -> Iterator[ClassPredictions]:
    """Predictions of one modality from all others, then from each single one; empty if it is not categorical or no row can be used."""
    model, batch = loaded.model, loaded.few
    if not isinstance(model.likelihoods[name], Categorical):
        return
    others = [other for other in model.names if other != name]
    sets = [("all others", others)] if len(others) > 1 else []
    for words, given in [*sets, *((other, [other]) for other in others)]:
        some = torch.stack([rows_with(batch, [other]) for other in given]).any(0)
        rows = rows_with(batch, [name]) & some
        if rows.any():
            yield _predicted(loaded, rows, name, words, given)


def _predicted(loaded: ModelAndRows, rows: Tensor, name: str, words: str, given: Sequence[str]) -> ClassPredictions:
    model, batch = loaded.model, loaded.few.index(rows)
    likelihood = model.likelihoods[name]
    with serving(model, loaded.seed):
        parts = [_probabilities(loaded, name, part.only(*given)) for part in row_chunks(model, batch, name, DRAWS)]
    probability = torch.cat(parts)
    confidence, guess = probability.max(1)
    true, classes = likelihood.canonical(batch.values[name]).long().cpu(), likelihood.shape[0]
    counts = torch.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)
    return ClassPredictions(name, words, counts, reliability(confidence, guess == true, BINS), probability.mean(0))


def _probabilities(loaded: ModelAndRows, name: str, part: Batch) -> Tensor:
    """Class probabilities, shape (b, C)."""
    model = loaded.model
    likelihood, z = model.likelihoods[name], model.posterior(part, DRAWS).sample()
    return likelihood.expectation(model.decoder_of(name, part).served(z, model.given(name, part))).double().mean(0).cpu()


def _shares(data: RunData, one: ClassPredictions) -> Element:
    assert one.shares is not None
    return shares(one.name, class_names(data.spec, one.name), one.counts.sum(1), one.shares)


def matrix(one: ClassPredictions, classes: Sequence[str]) -> Element:
    """A confusion matrix in percent of the true class, with coloured cells."""
    caption = f"{one.name} from {one.given}: accuracy {one.accuracy:.3f}, n = {one.rows:,}"
    if len(classes) > CLASSES:
        return _confused_pairs(one, classes, caption)
    shares_of = (one.counts.double() / one.counts.sum(1, keepdim=True).clamp(min=1)).tolist()
    head = element("tr", element("td"), *(element("th", name, scope="col") for name in classes), element("th", "n", scope="col"))
    numbers = one.counts.sum(1).tolist()
    rows = (
        element("tr", element("th", name, scope="row"), *map(_cell, line), element("td", f"{number:,}", class_="n"))
        for name, line, number in zip(classes, shares_of, numbers, strict=True)
    )
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *rows), class_="matrix")
    return scrolling(whole, caption)


def _cell(share: float) -> Element:
    percent = round(100 * share)
    return element("td", f"{percent}", style=f"--share:{share:.2f}".removesuffix(".00"), class_=None if percent else "zero")


def _confused_pairs(one: ClassPredictions, classes: Sequence[str], caption: str) -> Element:
    """The most frequently confused pairs of classes, when there are too many classes for a matrix."""
    wrong = one.counts - torch.diag(one.counts.diagonal())
    numbers, places = wrong.flatten().sort(descending=True, stable=True)
    pairs = [(number, divmod(place, len(classes))) for number, place in zip(numbers.tolist(), places.tolist(), strict=True) if number]
    rows = [[classes[true], classes[guess], f"{number:,}"] for number, (true, guess) in pairs[:MAX_CONFUSED]]
    return table(f"{caption}; most frequent mistakes", ("true", "predicted", "rows"), rows, words=2)
