"""Advice where a model is worse than a free baseline: the first cause that its figures, its training or its values speak for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbridge.evaluation.targets import Values
from nbridge.evaluation.verdict import Comparison, outcome_of
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood
from nbridge.spec.spec import Spec
from nbridge.training.progress import EpochRecord

FEW = 50
"""Training rows for each latent dimension, below which there are few."""
EARLY, LONG = 0.25, 100
"""The share of a stage's updates in which best weights are early, so that the rest was overfitting, and updates of a stage that is long
enough to say so."""
CLASSES, REPEATED = 200, 5
"""Distinct whole numbers up to which a column may be of classes, and the rows that each has on average at least."""


@dataclass(frozen=True)
class Trained:
    """How a model was trained, as far as it is known.

    Arguments:
        spec: Its spec.
        rows: The number of training rows.
        best: By stage that had validation rows, the update of its best weights and the number of updates.
    """

    spec: Spec
    rows: int
    best: Mapping[str, tuple[int, int]]


def trained_as(spec: Spec, rows: int, records: Iterable[EpochRecord]) -> Trained:
    """What is known of a training by its records; of a stage without validation rows nothing is known."""
    best: dict[str, tuple[int, int]] = {}
    for record in records:
        if record.validation_loss is not None:
            best[record.stage] = (record.update if record.best else best.get(record.stage, (0, 0))[0], record.update)
    return Trained(spec, rows, best)


def advise(comparison: Comparison, likelihood: Likelihood, values: Values, trained: Trained) -> str:
    """What to do about a modality that is imputed worse than the baseline, in a line without its name.

    Arguments:
        comparison: The comparison.
        likelihood: The modality's likelihood.
        values: Its values in the training rows, shape (N, E), NaN where they are missing.
        trained: How the model was trained.
    """
    causes: Sequence[Callable[[], str]] = (
        lambda: _mismatched(likelihood, values),
        lambda: _unfinished(trained),
        lambda: _overfitted(trained),
        lambda: _ignored(comparison, trained),
        lambda: _few_rows(trained),
    )
    return next((text for cause in causes if (text := cause())), None) or _another_model(comparison, trained)


def lines_of(advice: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Pairs of a modality and its advice as lines; modalities with the same advice share one.

    Example:
        >>> lines_of([("x", "train longer"), ("y", "train longer"), ("z", "use more rows")])
        ('x, y: train longer', 'z: use more rows')
    """
    names: dict[str, list[str]] = {}
    for name, text in advice:
        names.setdefault(text, []).append(name)
    return tuple(f"{', '.join(dict.fromkeys(those))}: {text}" for text, those in names.items())


def _mismatched(likelihood: Likelihood, values: Values) -> str:
    """Values that another likelihood describes."""
    if isinstance(likelihood, Categorical | Bernoulli):
        return ""
    seen = values[~np.isnan(values)]
    distinct = np.unique(seen)
    kind = type(likelihood).__name__
    if len(distinct) == 2 and set(distinct.tolist()) == {0.0, 1.0}:
        return f"its values are 0 and 1, and its likelihood is {kind}: use likelihood: {{type: bernoulli, attributes: true}}"
    if values.shape[1] == 1 and len(distinct) <= CLASSES and len(seen) >= REPEATED * len(distinct) and (distinct == distinct.round()).all():
        return (
            f"its values are {len(distinct)} whole numbers that repeat, and its likelihood is {kind}: if they stand for classes, use "
            f"likelihood: categorical with shape: {int(distinct.max()) + 1}"
        )
    return ""


def _unfinished(trained: Trained) -> str:
    """A stage whose last weights were its best."""
    for stage, (best, updates) in trained.best.items():
        if best == updates:
            return f"stage {stage} was still improving when it ended: set training.stages.{stage}.updates to {2 * updates}"
    return ""


def _overfitted(trained: Trained) -> str:
    """Few rows, and best weights long before the last."""
    for stage, (best, updates) in trained.best.items():
        if _is_small(trained) and updates >= LONG and best <= EARLY * updates:
            return (
                f"stage {stage} overfitted its {trained.rows:,} training rows (its best weights are of update {best:,} of "
                f"{updates:,}): try latent_dim: {_smaller(trained)}, training.weight_decay: 0.01, or more rows"
            )
    return ""


def _ignored(comparison: Comparison, trained: Trained) -> str:
    """A figure that is no better than that of a constant: the others do not reach it."""
    ahead = comparison.constant - comparison.model if comparison.figure == "rmse" else comparison.model - comparison.constant
    if outcome_of(ahead, comparison.standard_error) == "better":
        return ""
    what = "the most frequent class" if comparison.figure == "accuracy" else "the column mean"
    found = f"imputed no better than by {what}, so the other modalities do not reach it"
    return f"{found}: raise its weight in the spec, or {_other_model(trained)}"


def _is_small(trained: Trained) -> bool:
    return trained.rows < FEW * trained.spec.latent_dim


def _few_rows(trained: Trained) -> str:
    if not _is_small(trained):
        return ""
    return (
        f"{trained.rows:,} training rows are few for {trained.spec.latent_dim} latent dimensions: try latent_dim: {_smaller(trained)}, "
        "training.weight_decay: 0.01, or more rows"
    )


def _another_model(comparison: Comparison, trained: Trained) -> str:
    local = comparison.predictor == "neighbours"
    why = "rows that resemble each other predict it better" if local else "a linear predictor does better"
    capacity = "a larger encoder (hidden), " if local else ""
    return f"{why}: try {capacity}a higher weight in the spec, or {_other_model(trained)}"


def _other_model(trained: Trained) -> str:
    """A model to try in the place of this one."""
    if trained.spec.model.type != "bridged":
        return "model: bridged"
    return "model: jmvae (nbridge compare SPEC --models bridged,jmvae measures both)"


def _smaller(trained: Trained) -> int:
    return max(2, trained.spec.latent_dim // 2)
