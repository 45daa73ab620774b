"""Advice for modalities that a model imputes worse than a baseline: the first cause supported by its scores, training or values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbridge.evaluation.targets import Values
from nbridge.evaluation.verdict import BY_COLUMN, BaselineComparison, outcome_of
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.spec.spec import Spec
from nbridge.training.records import EpochRecord

MIN_ROWS_PER_DIMENSION = 50
"""Training rows per latent dimension below which the data count as small."""
EARLY, LONG = 0.25, 100
"""Overfitting: the best weights come within the first `EARLY` share of a stage's updates, in a stage of at least `LONG` updates."""
CLASSES, REPEATED = 200, 5
"""A column of whole numbers may hold classes when it has at most `CLASSES` distinct values, each in `REPEATED` rows or more on average."""


@dataclass(frozen=True)
class TrainingSummary:
    """How a model was trained; ``best`` has the update of the best weights and the number of updates of each stage with validation rows."""

    spec: Spec
    rows: int
    best: Mapping[str, tuple[int, int]]


def summarise_training(spec: Spec, rows: int, records: Iterable[EpochRecord]) -> TrainingSummary:
    """Summarises training records; stages without validation rows are left out."""
    best: dict[str, tuple[int, int]] = {}
    for record in records:
        if record.validation_loss is not None:
            best[record.stage] = (record.update if record.best else best.get(record.stage, (0, 0))[0], record.update)
    return TrainingSummary(spec, rows, best)


def advise(comparison: BaselineComparison, likelihood: Likelihood, values: Values, trained: TrainingSummary) -> str:
    """Advice for a modality, or single cells of one, imputed worse than the baseline: one line, without the modality's name.

    Values are those of the training rows, shape (N, E), NaN where missing.
    """
    causes: Sequence[Callable[[], str]] = (
        lambda: _mismatched(likelihood, values),
        lambda: _unfinished(trained),
        lambda: _overfitted(trained),
        lambda: _ignored(comparison, trained),
        lambda: _few_rows(trained),
    )
    return next((text for cause in causes if (text := cause())), None) or _another_model(comparison, trained)


def format_advice(advice: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Formats (modality, advice) pairs as lines; modalities with the same advice share a line.

    Example:
        >>> format_advice([("x", "train longer"), ("y", "train longer"), ("z", "use more rows")])
        ('x, y: train longer', 'z: use more rows')
    """
    names: dict[str, list[str]] = {}
    for name, text in advice:
        names.setdefault(text, []).append(name)
    return tuple(f"{', '.join(dict.fromkeys(those))}: {text}" for text, those in names.items())


def _mismatched(likelihood: Likelihood, values: Values) -> str:
    """The values call for another likelihood."""
    if isinstance(likelihood, Categorical | Bernoulli | Mixed | Text):
        return ""
    seen = values[~np.isnan(values)]
    distinct = np.unique(seen)
    kind = type(likelihood).__name__
    if len(distinct) == 2 and set(distinct.tolist()) == {0.0, 1.0}:
        return f"its values are 0 and 1 but its likelihood is {kind}: use likelihood: {{type: bernoulli, attributes: true}}"
    if values.shape[1] == 1 and len(distinct) <= CLASSES and len(seen) >= REPEATED * len(distinct) and (distinct == distinct.round()).all():
        return (
            f"its values are {len(distinct)} repeated whole numbers but its likelihood is {kind}: if they are classes, use "
            f"likelihood: categorical with shape: {int(distinct.max()) + 1}"
        )
    return ""


def _unfinished(trained: TrainingSummary) -> str:
    """A stage ended with its best weights."""
    for stage, (best, updates) in trained.best.items():
        if best == updates:
            return f"stage {stage} was still improving when it ended: set training.stages.{stage}.updates to {2 * updates}"
    return ""


def _overfitted(trained: TrainingSummary) -> str:
    """Few rows, and the best weights come early in a stage."""
    for stage, (best, updates) in trained.best.items():
        if _is_small(trained) and updates >= LONG and best <= EARLY * updates:
            return (
                f"stage {stage} overfitted its {trained.rows:,} training rows (best weights at update {best:,} of {updates:,}): "
                f"try latent_dim: {_smaller(trained)}, training.weight_decay: 0.01, or more rows"
            )
    return ""


def _ignored(comparison: BaselineComparison, trained: TrainingSummary) -> str:
    """The score is no better than a constant's: the model does not use the other modalities."""
    ahead = comparison.constant - comparison.model if comparison.figure == "rmse" else comparison.model - comparison.constant
    if outcome_of(ahead, comparison.standard_error) == "better":
        return ""
    what = "the most frequent class" if comparison.figure == "accuracy" else "the column mean"
    if comparison.cells:
        return f"imputed no better than by {what}, so the model does not use the rest of the row for them: {_MORE}"
    found = f"imputed no better than by {what}, so the model does not use the other modalities for it"
    return f"{found}: raise its weight in the spec, or {_other_model(trained)}"


def _is_small(trained: TrainingSummary) -> bool:
    return trained.rows < MIN_ROWS_PER_DIMENSION * trained.spec.latent_dim


def _few_rows(trained: TrainingSummary) -> str:
    if not _is_small(trained):
        return ""
    return (
        f"only {trained.rows:,} training rows for {trained.spec.latent_dim} latent dimensions: try latent_dim: {_smaller(trained)}, "
        "training.weight_decay: 0.01, or more rows"
    )


def _another_model(comparison: BaselineComparison, trained: TrainingSummary) -> str:
    local = comparison.predictor == "neighbours"
    why = "nearest neighbours predict it better" if local else "a linear predictor does better"
    if comparison.cells:
        names = {"neighbours": "nearest neighbours predict", BY_COLUMN: "predictors of each column predict"}
        return f"{names.get(comparison.predictor, 'linear predictors predict')} them better: {_MORE}"
    capacity = "a larger encoder (hidden), " if local else ""
    return f"{why}: try {capacity}a higher weight in the spec, or {_other_model(trained)}"


_MORE = "try a larger latent_dim or encoder (hidden), more updates, or more rows"


def _other_model(trained: TrainingSummary) -> str:
    """Another model to try."""
    if trained.spec.model.type != "bridged":
        return "model: bridged"
    return "model: jmvae (nbridge compare SPEC --models bridged,jmvae measures both)"


def _smaller(trained: TrainingSummary) -> int:
    return max(2, trained.spec.latent_dim // 2)
