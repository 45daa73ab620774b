r"""Prediction targets of a modality, on unit-free scales: numeric columns in standard deviations, and questions that are right or wrong.

A real-valued column is scored in its own standard deviations over the training rows, a count as :math:`\log(1 + x / s)` with the size
factor s of its row, and the pixels of an image as one column, since they share a unit. A class, one-hot or by index, is one question, and
so is a binary column. The columns of a mixed modality are scored by their kinds. Columns that are constant in the training rows are left
out.

Axes: N rows, E elements of a modality, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from nbridge.common.messages import clip
from nbridge.data.batch import Batch
from nbridge.evaluation.paired import Scores
from nbridge.evaluation.verdict import Figure
from nbridge.inference.impute import which_observed
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.spec.columns import COUNTS
from nbridge.spec.spec import Spec
from nbridge.training.build import source_of
from nbridge.visual.mixed_columns import column_views
from nbridge.visual.modality_kinds import element_names, kind_of

Values = NDArray[np.float64]
Logged = bool | NDArray[np.bool_]
"""Whether values are counts, which are scored as log(1 + x): all of them, or by element."""
MAX_COLUMNS, MAX_QUESTIONS = 1000, 200
"""Maximum numbers of numeric columns and of questions scored per modality; if there are more, a random sample is scored."""


@dataclass(frozen=True)
class RegressionTarget:
    """Columns of real values or counts: the scored elements as indices into the flattened modality, and their means over the training rows.

    Means are of log(1 + x) where ``logged``, of all elements or by element; ``of_columns`` is the number of columns before sampling.
    """

    names: tuple[str, ...]
    elements: NDArray[np.int64]
    columns: NDArray[np.int64]
    centre: Values
    unit: Values
    logged: Logged
    of_columns: int
    figure: ClassVar[Figure] = "rmse"

    def scaled(self, values: Values, *, logged: bool = False) -> Values:
        """Standardised values, shape (N, elements); NaN stays NaN. With ``logged``, counts are already log(1 + x)."""
        return (_log1p(values[:, self.elements], False if logged else self.logged) - self.centre) / self.unit

    def scores(self, truth: Values, predicted: Values) -> Scores:
        """The mean squared error of each column in each row, shape (N, C), from standardised values."""
        squares = (truth - predicted) ** 2
        if len(self.names) == len(self.elements):
            return squares
        scores = np.full((len(truth), len(self.names)), np.nan)
        for column in range(len(self.names)):
            own = squares[:, self.columns == column]
            seen = ~np.isnan(own)
            some = seen.any(1)
            scores[some, column] = np.where(seen, own, 0.0).sum(1)[some] / seen.sum(1)[some]
        return scores

    def only(self, places: Sequence[int]) -> RegressionTarget:
        """The target of some of the columns, each of one element."""
        logged = self.logged if isinstance(self.logged, bool) else self.logged[places]
        some = np.asarray(places)
        names = tuple(self.names[place] for place in places)
        return replace(
            self, names=names, elements=self.elements[some], columns=np.arange(len(some)), centre=self.centre[some], unit=self.unit[some],
            logged=logged,
        )  # fmt: skip


class TextAnswers:
    """Texts as the numbers of answers: equal numbers for texts that are the same but for blanks around them.

    Arguments:
        likelihood: Their likelihood.
        train: The token numbers of the training rows, shape (N, L); NaN where missing.
    """

    def __init__(self, likelihood: Text, train: Values) -> None:
        self.likelihood, self._numbers = likelihood, dict[bytes, int]()
        self.of(train)
        self.count = len(self._numbers)

    def of(self, values: Values) -> Values:
        """The answers, shape (N, 1), for token numbers of shape (N, L); NaN where missing. A text that is new gets a new number."""
        missing: NDArray[np.bool_] = np.array(np.isnan(values).any(1))
        tokens = self.likelihood.stripped(torch.from_numpy(np.where(missing[:, None], 0, values)).long()).numpy()
        numbers = [
            self._numbers.setdefault(row.tobytes(), len(self._numbers)) if there else -1
            for row, there in zip(tokens, ~missing, strict=True)
        ]
        found = np.where(missing, math.nan, numbers)
        return found.astype(np.float64)[:, None]


@dataclass(frozen=True)
class ClassificationTarget:
    """Questions with one right answer each: classes, binary columns, and texts as a whole.

    Each has the start and stop index of its elements, and a number of possible answers; ``of_columns`` is their number before sampling.
    The answers to a question of texts are ``texts``.
    """

    names: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    classes: tuple[int, ...]
    of_columns: int
    texts: TextAnswers | None = None
    figure: ClassVar[Figure] = "accuracy"

    def scaled(self, values: Values, *, logged: bool = False) -> Values:  # noqa: ARG002 (of counts)
        """The answers, shape (N, C), from values or their expectations, shape (N, E); NaN where an element is missing."""
        if self.texts is not None:
            return self.texts.of(values)
        answers = np.empty((len(values), len(self.names)))
        for place, ((start, stop), classes) in enumerate(zip(self.spans, self.classes, strict=True)):
            part = values[:, start:stop]
            one_hot = stop - start > 1
            answer = part.argmax(1) if one_hot else part[:, 0] if classes > 2 else part[:, 0] >= 0.5
            answers[:, place] = np.where(np.isnan(part).any(1), np.nan, answer)
        return answers

    def scores(self, truth: Values, predicted: Values) -> Scores:
        """Whether each answer is right, 1 or 0, shape (N, C); NaN where the truth is missing."""
        return np.where(np.isnan(truth), np.nan, (truth == predicted).astype(float))

    def only(self, places: Sequence[int]) -> ClassificationTarget:
        """The target of some of the questions."""
        names, spans, classes = (tuple(part[place] for place in places) for part in (self.names, self.spans, self.classes))
        return replace(self, names=names, spans=spans, classes=classes)


Target = RegressionTarget | ClassificationTarget


def values_of(model: MultimodalVAE, batch: Batch, name: str) -> Values:
    """The canonical values of a modality, flattened, shape (N, E), float64; NaN where not observed.

    Classes are indices, and counts with a size factor are divided by it.
    """
    x, size = model.prepare(batch).values[name], model.log_size(name, batch)
    x = x if size is None else x * (-size).exp()
    values = x.reshape(len(x), -1).double().cpu().numpy()
    observed = which_observed(batch, name).cpu().reshape(len(x), -1).expand(values.shape).numpy()
    return np.where(observed, values, np.nan)


def targets_of(model: MultimodalVAE, spec: Spec, name: str, train: Values, seed: int = 0) -> tuple[Target, ...]:
    """The prediction targets of a modality: numeric columns, questions, or both; empty when no column varies.

    ``train`` has the shape (N, E).
    """
    likelihood = model.likelihoods[name]
    if isinstance(likelihood, Categorical):
        return _questions([("", 0, 1, likelihood.shape[0])], train, seed)
    if isinstance(likelihood, Text):
        texts = TextAnswers(likelihood, train)
        question = ClassificationTarget(("",), ((0, train.shape[1]),), (texts.count,), 1, texts)
        return (question,) if texts.count > 1 else ()
    logged = counts_of(likelihood)
    if kind_of(likelihood) == "image":
        return _pixels(train, logged, seed)
    numbers, questions = [], []
    for label, start, stop, classes in _fields(model, spec, name):
        if classes or _is_binary(likelihood, train[:, start]):
            questions.append((label, start, stop, classes or 2))
        else:
            numbers.append((label, start))
    return (*_numbers(numbers, train, logged, seed), *_questions(questions, train, seed))


def _fields(model: MultimodalVAE, spec: Spec, name: str) -> Iterator[tuple[str, int, int, int]]:
    """Name, start, stop and number of classes (0 for numbers) of each field of a modality."""
    likelihood = model.likelihoods[name]
    if isinstance(likelihood, Mixed):
        yield from ((view.name, view.start, view.stop, len(view.classes)) for view in column_views(spec, name, likelihood))
        return
    shape = likelihood.shape
    fields = source_of(spec).fields({known: modality.shape for known, modality in spec.modalities.items()})
    if name not in fields:
        yield from ((label, place, place + 1, 0) for place, label in enumerate(element_names(spec, name, shape)))
        return
    for field in fields[name]:
        label = clip(field.column, 60)
        if field.classes or field.stop - field.start == 1:
            yield label, field.start, field.stop, len(field.classes)
        else:
            yield from ((f"{label}[{place - field.start}]", place, place + 1, 0) for place in range(field.start, field.stop))


def counts_of(likelihood: Likelihood) -> Logged:
    """Which elements of a likelihood are counts: all or none, or by element, shape (E,)."""
    if isinstance(likelihood, Mixed):
        return np.array([kind.type in COUNTS for kind in likelihood.kinds.values() for _ in range(kind.width)])
    return likelihood.counts


def _is_binary(likelihood: Likelihood, values: Values) -> bool:
    """Whether an element is a yes-or-no question: an attribute, or an element that is 0 or 1 in all training rows."""
    if not isinstance(likelihood, Bernoulli):
        return False
    seen = values[~np.isnan(values)]
    return likelihood.discrete or bool(np.isin(seen, (0.0, 1.0)).all())


def _pixels(train: Values, logged: Logged, seed: int) -> tuple[RegressionTarget, ...]:
    """An image as one column: its pixels, or a sample of them, with a pooled standard deviation."""
    elements = _sampled(train.shape[1], MAX_COLUMNS, seed)
    centre, unit, _ = _statistics(_log1p(train[:, elements], logged))
    pooled = math.sqrt(float((unit**2).mean()))
    if not pooled:
        return ()
    return (RegressionTarget(("",), elements, np.zeros(len(elements), np.int64), centre, np.full(len(elements), pooled), logged, 1),)


def _numbers(fields: Sequence[tuple[str, int]], train: Values, logged: Logged, seed: int) -> tuple[RegressionTarget, ...]:
    if not fields:
        return ()
    places = np.array([place for _, place in fields])
    logged = logged if isinstance(logged, bool) else logged[places]
    centre, unit, varies = _statistics(_log1p(train[:, places], logged))
    kept = np.flatnonzero(varies)
    if not len(kept):
        return ()
    kept, of_columns = kept[_sampled(len(kept), MAX_COLUMNS, seed)], len(kept)
    names = tuple(fields[place][0] for place in kept)
    logged = logged if isinstance(logged, bool) else logged[kept]
    return (RegressionTarget(names, places[kept], np.arange(len(kept)), centre[kept], unit[kept], logged, of_columns),)


def _questions(fields: Sequence[tuple[str, int, int, int]], train: Values, seed: int) -> tuple[ClassificationTarget, ...]:
    if not fields:
        return ()
    answers = _classification(fields, len(fields)).scaled(train)
    varies = [column for column in range(len(fields)) if len(np.unique(answers[~np.isnan(answers[:, column]), column])) > 1]
    if not varies:
        return ()
    kept = [fields[varies[place]] for place in _sampled(len(varies), MAX_QUESTIONS, seed)]
    return (_classification(kept, len(varies)),)


def _classification(fields: Sequence[tuple[str, int, int, int]], of_columns: int) -> ClassificationTarget:
    names, spans, classes = zip(*((name, (start, stop), number) for name, start, stop, number in fields), strict=True)
    return ClassificationTarget(names, spans, classes, of_columns)


def column_moments(values: Values) -> tuple[Values, Values]:
    """Mean and standard deviation of each column over the rows in which it is not NaN; 0 where there are none."""
    seen = ~np.isnan(values)
    number = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, values, 0.0).sum(0) / number
    return mean, np.sqrt(np.where(seen, (values - mean) ** 2, 0.0).sum(0) / number)


def _statistics(values: Values) -> tuple[Values, Values, NDArray[np.bool_]]:
    """Mean and standard deviation of each column, and whether it varies."""
    centre, unit = column_moments(values)
    # Rounding can leave a small nonzero deviation for a constant column.
    varies = unit > 1e-6 * np.abs(centre)
    return centre, np.where(varies, unit, 0.0), varies


def _log1p(values: Values, logged: Logged) -> Values:
    if isinstance(logged, bool):
        return np.log1p(np.maximum(values, 0.0)) if logged else values
    return np.where(logged, np.log1p(np.maximum(values, 0.0)), values)


def _sampled(number: int, most: int, seed: int) -> NDArray[np.int64]:
    """The indices below ``number``, or a sorted random sample of ``most`` of them."""
    if number <= most:
        return np.arange(number)
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed))[:most].sort().values.numpy()
