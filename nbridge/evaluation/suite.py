r"""Evaluates a trained model on its rows with all metrics that apply.

================ ====================================================================================================================
``likelihood``   :math:`\log p(x_i)` and :math:`\log p(x_M)` by importance sampling, from q(z|x_M) and from q(z|x_i)
``conditional``  :math:`\log p(x_A \mid x_S)`, a difference of two bounds
``labels``       posteriors of classes by enumeration
``predictive``   :math:`\log \frac{1}{K} \sum_k p(x_j \mid z_k)`, :math:`z_k \sim q(z \mid x_S)`; accuracy and RMSE of the point estimate
``coherence``    whether a classifier recognises the label in values generated from S
``diversity``    variance ratio and Fréchet distance of values generated from the label
``agreement``    whether several absent modalities, decoded from one draw, have the same label
``attributes``   error of each attribute, next to that of the majority class
``imputation``   RMSE, CRPS and coverage of intervals
``calibration``  ECE and Brier score of classes
``cells``        single cells of mixed modalities, imputed from the rest of the row, by column: RMSE, CRPS, coverage, accuracy, log score
================ ====================================================================================================================

An evaluation always includes warnings (`nbridge.evaluation.findings`), from a small sample of the rows, and a comparison of each modality
with a baseline (`nbridge.evaluation.versus_baseline`).

The default conditioning sets S are every single modality and every set with one modality left out. A metric asks a list of questions, each
a target and a conditioning set; a question that cannot be answered does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from nbridge.common.autograd import gradients
from nbridge.common.messages import listing
from nbridge.data.batch import Batch
from nbridge.data.split import Splits
from nbridge.errors import DataError
from nbridge.evaluation.attributes import attribute_errors
from nbridge.evaluation.calibration import MIN_DRAWS, interval_scores, label_calibration
from nbridge.evaluation.cell_scores import cell_scores, figures_by_column, mean_figures
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.classifiers import ScoredClassifier, check_label, train_classifiers
from nbridge.evaluation.coherence import coherence, joint_agreement
from nbridge.evaluation.crossmodal import predict
from nbridge.evaluation.diversity import diversity
from nbridge.evaluation.findings import evaluation_findings
from nbridge.evaluation.importance import RowLogLikelihoods, conditional_of, label_posterior, log_likelihood_rows
from nbridge.evaluation.results import CELLS, METRICS, Evaluation, Measurement, Names, OptionError, Settings, Split, read_evaluation, title
from nbridge.evaluation.rows import fingerprint, rows_with, rows_with_all
from nbridge.evaluation.single_cells import mixed, mixed_modalities, usable_rows
from nbridge.evaluation.versus_baseline import compare_with_baselines
from nbridge.inference.impute import check_size
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import has_intervals
from nbridge.nn.likelihoods import Bernoulli, Categorical
from nbridge.spec.spec import Spec
from nbridge.training.records import EpochRecord
from nbridge.visual.mixed_columns import column_views

__all__ = ["Evaluation", "Measurement", "OptionError", "Settings", "Split", "check_supported", "evaluate", "read_evaluation"]

Figures = tuple[int, Mapping[str, float | None], Mapping[str, Mapping[str, float]]]
"""The number of rows, the scores, and series of scores by K, by attribute, by level or by column."""


@gradients()
def evaluate(
    model: MultimodalVAE, spec: Spec, splits: Splits, settings: Settings | None = None, *, classifiers: ClassifierCache | None = None,
    lenient: bool = False, records: Iterable[EpochRecord] = (), announce: Callable[[str, int, int], None] = lambda _title, _done, _of: None,
) -> Evaluation:  # fmt: skip
    """Evaluates a model with all requested metrics.

    Arguments:
        model: A trained model.
        spec: Its spec, for the classifiers' encoders.
        splits: Its rows; classifiers are trained on the training rows only, on a random sample of 65,536 if the rows are stored on disk.
        settings: What to evaluate.
        classifiers: Classifiers of earlier evaluations, reused when retraining would give the same result; new ones are added.
        lenient: Whether to skip requested metrics and conditioning sets that this model does not support, as in a comparison of models;
            otherwise they are errors.
        records: The records of the model's training, for the verdict's advice.
        announce: Progress callback before each measurement: (title, done, total).

    Raises:
        OptionError: when a setting is invalid: a name is unknown, there are no rows, or a requested metric is not supported.
        DataError: when rows do not match the model.

    Example:
        >>> import nbridge
        >>> import numpy as np
        >>> spec = {
        ...     "modalities": {"x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        ...                    "y": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"}},
        ...     "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
        >>> run = nbridge.train(spec, {"x": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40) % 2})
        >>> done = evaluate(run.model.network, run.spec, run.splits, Settings(metrics=("predictive",)))
        >>> [measurement.title for measurement in done.measurements]
        ['predictive of x given y', 'predictive of y given x']
    """
    settings = settings or Settings()
    settings.check(spec.modalities if lenient else model.names)
    for option in ("samples", "draws", "generated"):
        check_size(model, option, getattr(settings, option), kind=OptionError)
    rows, of_rows = _rows(splits, settings)
    cache = ClassifierCache() if classifiers is None else classifiers
    context = _Context(model, settings, spec, rows, splits.train.representative(), cache)
    if not lenient:
        check_supported([model], settings)
    _check_present(context)
    strict = settings.metrics is not None and not lenient
    measurements, skipped = _measured(context, strict, announce)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fingerprints = {name: fingerprint(rows, name) for name in model.names if name in rows.names}
    warnings = evaluation_findings(model, rows, splits.train, seed=settings.seed)
    verdict = None
    if not lenient:
        # A comparison measures models against each other instead.
        verdict = compare_with_baselines(model, spec, splits, rows=rows, split=settings.split, records=records, seed=settings.seed)
    return Evaluation(
        settings=settings, modalities=model.names, label=context.label, parameters=parameters, rows=len(rows), of_rows=of_rows,
        fingerprints=fingerprints, measurements=measurements, skipped=skipped, warnings=warnings, verdict=verdict,
    )  # fmt: skip


def check_supported(models: Sequence[MultimodalVAE], settings: Settings) -> None:
    """Checks that models support the requested label and metrics, before any rows are read.

    It is enough if one of the models, all of one spec, supports a metric.

    Raises:
        OptionError: when the label is neither categorical nor of attributes, or no model supports a metric.
    """
    for model in models:
        if settings.label in model.names:
            try:
                check_label(model, settings.label)
            except DataError as error:
                raise OptionError(str(error)) from error
    likelihoods = {name: likelihood for model in models for name, likelihood in model.likelihoods.items()}
    for metric in settings.metrics or ():
        if not any(list(_METRICS[metric].questions(_Plan(model, settings))) for model in models):
            described = listing(f"{name} ({type(likelihood).__name__})" for name, likelihood in likelihoods.items())
            raise OptionError(f"metrics {metric}: it needs {_METRICS[metric].needs}; modalities: {described}")


@dataclass(frozen=True)
class _Plan:
    """The questions for a model, independent of its rows."""

    model: MultimodalVAE
    settings: Settings

    @property
    def names(self) -> Names:
        return self.model.names

    @cached_property
    def given(self) -> tuple[Names, ...]:
        """The conditioning sets."""
        n = len(self.names)
        default = [given for size in dict.fromkeys((1, n - 1)) if 0 < size < n for given in combinations(self.names, size)]
        return self.ordered(default if self.settings.given is None else self.settings.given)

    def ordered(self, sets: Iterable[Iterable[str]]) -> tuple[Names, ...]:
        """The sets without duplicates, in the model's order of modalities; sets with unknown modalities are left out."""
        kept = (set(names) for names in sets if set(names) <= set(self.names))
        return tuple(dict.fromkeys(tuple(name for name in self.names if name in names) for names in kept))

    def targets(self, serves: Callable[[Any], bool]) -> list[str]:
        """The modalities whose likelihood satisfies a condition."""
        return [name for name, likelihood in self.model.likelihoods.items() if serves(likelihood)]

    @cached_property
    def label(self) -> str | None:
        """The modality that classifiers predict; None when the model has none."""
        if self.settings.label is not None:
            return self.settings.label if self.settings.label in self.names else None
        return next(iter(self.targets(_has_classes) + self.targets(_has_attributes)), None)


@dataclass(frozen=True)
class _Context(_Plan):
    """A model with its evaluation rows and the training rows of the classifiers."""

    spec: Spec
    rows: Batch
    train: Batch
    cache: ClassifierCache

    @cached_property
    def density_rows(self) -> Batch:
        """The rows for the metrics that draw K samples."""
        most = self.settings.density_rows
        return self.rows if most is None else self.rows.slice(0, most)

    def density(self, rows: Batch, target: Names, proposal: Names, seed: int) -> RowLogLikelihoods:
        """The log-likelihood of each row."""
        return log_likelihood_rows(self.model, rows, target, proposal, samples=self.settings.samples, seed=seed)

    @cached_property
    def joint_density(self) -> RowLogLikelihoods:
        """The log-likelihood of all modalities together, cached because it is the first term of every conditional one."""
        return self.density(self.density_rows, self.names, self.names, self.settings.seed)

    @cached_property
    def classifiers(self) -> dict[str, ScoredClassifier]:
        """A classifier for each modality that is present together with the label."""
        assert self.label is not None
        seed, cache = self.settings.seed, self.cache
        return train_classifiers(self.spec, self.model, self.train, self.rows, self.label, seed=seed, cache=cache)

    def has_classifier(self, name: str) -> bool:
        """Whether a classifier of a modality can be trained and scored."""
        pair = (name, str(self.label))
        return int(rows_with(self.train, pair).sum()) > 1 and bool(rows_with(self.rows, pair).any())


def _rows(splits: Splits, settings: Settings) -> tuple[Batch, int]:
    """The rows to evaluate, and the number of rows in the split."""
    parts = {"test": splits.test, "validation": splits.validation, "train": splits.train}
    if (rows := parts[settings.split]) is None or not len(rows):
        others = [name for name, part in parts.items() if part is not None and len(part)]
        raise OptionError(f"split {settings.split}: no rows, data.{settings.split} of the spec is 0; use {' or '.join(others)}")
    return rows.sample(settings.rows), len(rows)


def _check_present(context: _Context) -> None:
    """Checks that some row has each requested set; sets with modalities of other models are ignored."""
    for option, sets in (("given", context.settings.given), ("densities", context.settings.densities)):
        for names in sets or ():
            if set(names) <= set(context.names) and (why := _nowhere(context, context.rows, names)):
                raise OptionError(f"{option} {','.join(names)}: {why}; use other modalities, or more rows")


def _measured(context: _Context, strict: bool, announce: Callable[[str, int, int], None]) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    """The measurements, and the reasons for those left out; if strict, leaving one out is an error."""
    measurements: list[Measurement] = []
    skipped: dict[str, str] = {}
    asked = METRICS if context.settings.metrics is None else dict.fromkeys(context.settings.metrics)
    questions = [question for metric in asked for question in _questions(metric, context, strict, skipped)]
    for done, (metric, target, given) in enumerate(questions):
        announce(title(metric, target, given), done, len(questions))
        try:
            rows, figures, series = _METRICS[metric].measure(context, target, given)
        except DataError as error:
            if strict:
                raise
            skipped[title(metric, target, given)] = str(error)
        else:
            known = {name: figure for name, figure in figures.items() if figure is not None}
            kinds = _kinds(context, target[0]) if metric == CELLS else {}
            measurements.append(Measurement(metric, target, given, rows, known, series, kinds))
    return tuple(measurements), skipped


def _questions(metric: str, context: _Context, strict: bool, skipped: dict[str, str]) -> Iterator[tuple[str, Names, Names]]:
    """The questions of a metric for this model and these rows; those that cannot be answered go to ``skipped`` with the reason."""
    asked = dict.fromkeys(_METRICS[metric].questions(context))
    missing = {question: why for question in asked if (why := _METRICS[metric].missing(context, *question))}
    if len(missing) < len(asked):
        skipped |= {title(metric, *question): why for question, why in missing.items()}
        yield from ((metric, *question) for question in asked if question not in missing)
        return
    skipped[metric] = next(iter(missing.values()), f"it needs {_METRICS[metric].needs}")
    if strict:
        raise OptionError(f"metrics {metric}: {skipped[metric]}")


def _nowhere(context: _Context, rows: Batch, names: Iterable[str]) -> str:
    """A message if no row has all of these modalities; otherwise empty."""
    if rows_with(rows, names := tuple(dict.fromkeys(names))).any():
        return ""
    return f"none of the {len(rows):,} {context.settings.split} rows has {listing(names)}{' together' if len(names) > 1 else ''}"


def _has_classes(likelihood: object) -> bool:
    return isinstance(likelihood, Categorical)


def _has_attributes(likelihood: object) -> bool:
    return isinstance(likelihood, Bernoulli) and likelihood.discrete


# The questions of each metric: pairs of a target and a conditioning set


def _densities(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    everything, settings = plan.names, plan.settings
    default = [*((name,) for name in everything), everything]
    asked = next((sets for sets in (settings.densities, settings.given) if sets is not None), default)
    for names in plan.ordered(asked):
        if names:
            yield names, everything
            yield names, names


def _complements(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    for given in plan.given:
        target = tuple(name for name in plan.names if name not in given)
        if target and given:
            yield target, given


def _each(serves: Callable[[Any], bool] = lambda _: True) -> Callable[[_Plan], Iterator[tuple[Names, Names]]]:
    """Questions of each modality whose likelihood satisfies a condition, given each set without it."""

    def questions(plan: _Plan) -> Iterator[tuple[Names, Names]]:
        if len(plan.names) > 1:
            yield from (((target,), given) for target in plan.targets(serves) for given in plan.given if target not in given)

    return questions


def _mixed(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    yield from (((name,), plan.names) for name in mixed_modalities(plan.model))


def _labelled_targets(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    if plan.label is not None:
        yield from ((target, given) for target, given in _each()(plan) if target != (plan.label,))


def _from_the_label(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    if plan.label is not None and _has_classes(plan.model.likelihoods[plan.label]):
        yield from (((target,), (plan.label,)) for target in plan.names if target != plan.label)


def _several_absent(plan: _Plan) -> Iterator[tuple[Names, Names]]:
    if plan.label is not None:
        for given in plan.given:
            absent = tuple(name for name in plan.names if name not in given)
            if len(absent) > 1:
                yield absent, given


# Why a question cannot be answered: a reason, or empty


def _lacks_rows(context: _Context, target: Names, given: Names) -> str:
    return _nowhere(context, context.rows, (*given, *target))


def _lacks_density_rows(context: _Context, target: Names, given: Names) -> str:
    return _nowhere(context, context.density_rows, (*given, *target))


def _lacks_draws(context: _Context, target: Names, given: Names) -> str:
    return f"it needs {MIN_DRAWS} draws or more" if context.settings.draws < MIN_DRAWS else _lacks_rows(context, target, given)


def _lacks_columns(context: _Context, target: Names, given: Names) -> str:  # noqa: ARG001 (the rest of the row)
    if context.settings.draws < MIN_DRAWS:
        return f"it needs {MIN_DRAWS} draws or more"
    if target[0] in context.rows.names and len(usable_rows(context.model, context.rows, target[0])):
        return ""
    return f"none of the {len(context.rows):,} {context.settings.split} rows has two observed columns of {target[0]}"


def _lacks_classifier(context: _Context, target: Names, given: Names) -> str:
    label = str(context.label)
    for name in target:
        if name != label and not context.has_classifier(name):
            return f"a classifier needs rows with both {name} and {label}: 2 or more training rows and 1 or more evaluated rows"
    return _lacks_rows(context, (label,), given)


# The measurements


def _importance(context: _Context, target: Names, given: Names) -> Figures:
    if target == given == context.names:
        done = context.joint_density.mean()
    else:
        done = context.density(context.density_rows, target, given, context.settings.seed).mean()
    figures = {
        "log-likelihood": done.log_likelihood,
        "standard error": done.standard_error,
        "error over rows": done.row_error,
        "effective sample size": done.effective_sample_size,
    }
    return done.rows, figures, {"K": {str(k): value for k, value in done.curve.items()}}


def _conditional(context: _Context, target: Names, given: Names) -> Figures:  # noqa: ARG001 (the target is everything not given)
    complete = rows_with_all(context.model, context.density_rows, context.names)
    # A different seed: the standard error of the difference assumes independent draws of its terms.
    done = conditional_of(context.joint_density, context.density(complete, given, given, context.settings.seed + 1))
    figures = {"log-likelihood": done.log_likelihood, "standard error": done.standard_error, "error over rows": done.row_error}
    return done.rows, figures, {"K": {str(k): first - done.marginal.curve[k] for k, first in done.joint.curve.items()}}


def _labels(context: _Context, target: Names, given: Names) -> Figures:
    settings = context.settings
    done = label_posterior(context.model, context.density_rows, target[0], given, samples=settings.samples, seed=settings.seed)
    size = done.effective_sample_size.median().item()
    figures = {"accuracy": done.accuracy, "log-probability": done.log_probability, "effective sample size": size}
    return len(done.probabilities), figures, {}


def _predictive(context: _Context, target: Names, given: Names) -> Figures:
    settings = context.settings
    done = predict(context.model, context.rows, given, target[0], samples=settings.draws, seed=settings.seed)
    figures = {"log-likelihood": done.log_likelihood, "accuracy": done.accuracy, "RMSE": done.rmse, "token accuracy": done.token_accuracy}
    return done.rows, figures, {}


def _coherence(context: _Context, target: Names, given: Names) -> Figures:
    settings, label, scored = context.settings, str(context.label), context.classifiers[target[0]]
    arguments = (context.model, context.rows, given, target[0], label, scored.classifier)
    done = coherence(*arguments, samples=settings.generated, seed=settings.seed)
    return done.rows, {"coherence": done.coherence, "classifier's accuracy": scored.accuracy}, {}


def _diversity(context: _Context, target: Names, given: Names) -> Figures:
    settings, label, scored = context.settings, str(context.label), context.classifiers[target[0]]
    arguments = (context.model, context.rows, given, target[0], label, scored.classifier)
    done = diversity(*arguments, samples=settings.generated, seed=settings.seed)
    return done.rows, {"variance ratio": done.variance_ratio, "Fréchet distance": done.frechet, "its floor": done.floor}, {}


def _agreement(context: _Context, target: Names, given: Names) -> Figures:  # noqa: ARG001 (the target is everything not given)
    settings, label = context.settings, str(context.label)
    done = joint_agreement(context.model, context.rows, given, context.classifiers, label, samples=settings.generated, seed=settings.seed)
    return done.rows, {"agreement": done.agreement, "independent draws": done.control, "coherence": done.coherence}, {}


def _attributes(context: _Context, target: Names, given: Names) -> Figures:
    settings = context.settings
    done = attribute_errors(
        context.model, context.rows, given, target[0], reference=context.train, samples=settings.draws, seed=settings.seed
    )
    figures = {"accuracy": done.accuracy, "majority rate": done.majority_rate, "Brier": done.brier, "ECE": done.ece}
    errors = {one.name: 1 - one.accuracy for one in done.attributes if one.accuracy is not None}
    return done.rows, figures, {"error": errors}


def _imputation(context: _Context, target: Names, given: Names) -> Figures:
    settings = context.settings
    done = interval_scores(context.model, context.rows, given, target[0], samples=settings.draws, seed=settings.seed)
    figures = {"RMSE": done.rmse, "CRPS": done.crps, "RMSE of the column mean": done.marginal_rmse}
    return done.rows, figures, {"coverage": {f"{level:.0%}": share for level, share in done.coverage.items()}}


def _calibration(context: _Context, target: Names, given: Names) -> Figures:
    settings = context.settings
    done = label_calibration(context.model, context.rows, given, target[0], samples=settings.draws, seed=settings.seed)
    return done.rows, {"ECE": done.ece, "Brier": done.brier, "accuracy": done.accuracy, "majority rate": done.majority_rate}, {}


def _cells(context: _Context, target: Names, given: Names) -> Figures:  # noqa: ARG001 (the rest of the row)
    settings = context.settings
    rows, scores = cell_scores(
        context.model, context.spec, context.rows, target[0], train=context.train, samples=settings.draws, seed=settings.seed
    )
    return rows, mean_figures(scores), figures_by_column(scores)


def _kinds(context: _Context, name: str) -> dict[str, str]:
    """The kind of each column of a mixed modality, by name."""
    return {view.name: view.described for view in column_views(context.spec, name, mixed(context.model, name))}


@dataclass(frozen=True)
class _Metric:
    """A metric: its questions for a model, its requirements, why a question cannot be answered on the rows, and its measurement."""

    questions: Callable[[_Plan], Iterable[tuple[Names, Names]]]
    needs: str
    missing: Callable[[_Context, Names, Names], str]
    measure: Callable[[_Context, Names, Names], Figures]


_CLASSES = "a categorical modality and at least one other"
_METRICS: Mapping[str, _Metric] = {
    "likelihood": _Metric(_densities, "a set of modalities", _lacks_density_rows, _importance),
    "conditional": _Metric(_complements, "two or more modalities", _lacks_density_rows, _conditional),
    "labels": _Metric(_each(_has_classes), _CLASSES, _lacks_density_rows, _labels),
    "predictive": _Metric(_each(), "two or more modalities", _lacks_rows, _predictive),
    "coherence": _Metric(_labelled_targets, "a modality of classes or attributes, and another one", _lacks_classifier, _coherence),
    "diversity": _Metric(_from_the_label, "a label of classes, and another modality", _lacks_classifier, _diversity),
    "agreement": _Metric(_several_absent, "three or more modalities, one of them of classes or attributes", _lacks_classifier, _agreement),
    "attributes": _Metric(
        _each(_has_attributes), "a bernoulli modality with attributes: true and at least one other", _lacks_rows, _attributes
    ),
    "imputation": _Metric(
        _each(has_intervals), "a modality of real values, levels or counts and at least one other", _lacks_draws, _imputation
    ),
    "calibration": _Metric(_each(_has_classes), _CLASSES, _lacks_rows, _calibration),
    "cells": _Metric(_mixed, "a mixed modality", _lacks_columns, _cells),
}
