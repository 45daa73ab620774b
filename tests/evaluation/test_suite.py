"""All metrics in one pass: what is asked of which model, that each figure is its metric's own, and what is left out or refused, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import LinearGaussian, exact_model

import nbridge
from nbridge.common.atomic_files import write_json
from nbridge.data.batch import Batch
from nbridge.data.split import Splits
from nbridge.errors import DataError
from nbridge.evaluation import suite
from nbridge.evaluation.attributes import attribute_errors
from nbridge.evaluation.calibration import interval_scores, label_calibration
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.classifiers import train_classifiers
from nbridge.evaluation.coherence import coherence, joint_agreement
from nbridge.evaluation.crossmodal import predict
from nbridge.evaluation.diversity import diversity
from nbridge.evaluation.importance import conditional_log_likelihood, label_posterior, log_likelihood
from nbridge.evaluation.results import METRICS, Evaluation, Measurement, OptionError, Settings, describe_settings, read_evaluation
from nbridge.evaluation.rows import fingerprint
from nbridge.evaluation.suite import evaluate
from nbridge.models.base import MultimodalVAE
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
PARTS: dict[str, dict[str, Any]] = {
    "x": {"shape": 3, "likelihood": "normal", **PART},
    "image": {"shape": 4, "likelihood": "bernoulli", **PART},
    "flags": {"shape": 3, "likelihood": {"type": "bernoulli", "attributes": True}, **PART},
    "label": {"shape": 3, "likelihood": "categorical", **PART},
}
ROWS = 60
QUICK = Settings(samples=3, draws=39, generated=2, rows=12)
Subject = tuple[MultimodalVAE, Spec, Splits]


def data(*names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(ROWS) % 3
    arrays = {
        "x": rng.normal(size=(ROWS, 3)) + label[:, None],
        "image": rng.random((ROWS, 4)),
        "flags": rng.integers(0, 2, (ROWS, 3)).astype(float),
        "label": label,
    }
    return {name: arrays[name] for name in names}


def subject(*names: str, model: str = "bridged", rows: Mapping[str, np.ndarray] | None = None, **keys: Any) -> Subject:
    """A model with fresh weights and its rows."""
    spec = spec_from_dict({"model": model, "latent_dim": 2, "modalities": {name: PARTS[name] for name in names}, **keys})
    torch.manual_seed(0)
    built = build_model(spec).eval()
    splits = build_data(spec, built, data(*names) if rows is None else rows)
    built.fit_statistics(splits.train)
    return built, spec, splits


FOUR = subject("x", "image", "flags", "label")
THREE = subject("x", "image", "label")


def titles(evaluation: Evaluation) -> list[str]:
    return [measurement.title for measurement in evaluation.measurements]


def asked(metric: str, evaluation: Evaluation) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.target, one.given) for one in evaluation.measurements if one.metric == metric]


# What is asked


def test_every_metric_is_asked_of_all_that_it_serves():
    evaluation = evaluate(*THREE, QUICK)
    single, pairs = [("x",), ("image",), ("label",)], [("x", "image"), ("x", "label"), ("image", "label")]
    names = ("x", "image", "label")
    assert asked("likelihood", evaluation) == [pair for name in names for pair in (((name,), names), ((name,), (name,)))] + [(names, names)]
    complements = {given: tuple(name for name in names if name not in given) for given in [*single, *pairs]}
    assert asked("conditional", evaluation) == [(target, given) for given, target in complements.items()]
    assert asked("predictive", evaluation) == [((name,), given) for name in names for given in [*single, *pairs] if name not in given]
    of_label = [(("label",), given) for given in [("x",), ("image",), ("x", "image")]]
    assert asked("labels", evaluation) == asked("calibration", evaluation) == of_label
    assert asked("coherence", evaluation) == [
        ((name,), given) for name in ("x", "image") for given in [*single, *pairs] if name not in given
    ]
    assert asked("diversity", evaluation) == [(("x",), ("label",)), (("image",), ("label",))]
    assert asked("agreement", evaluation) == [(complements[given], given) for given in single]
    assert asked("imputation", evaluation) == [(("x",), given) for given in [("image",), ("label",), ("image", "label")]]
    assert evaluation.skipped == {
        "attributes": "it needs a bernoulli modality with attributes: true and at least one other",
        "cells": "it needs a mixed modality",
    }
    assert list(dict.fromkeys(one.metric for one in evaluation.measurements)) == [
        metric for metric in METRICS if metric not in evaluation.skipped
    ]
    assert (evaluation.modalities, evaluation.label, evaluation.rows, evaluation.of_rows) == (names, "label", 12, 12)
    assert evaluation.parameters == sum(parameter.numel() for parameter in THREE[0].parameters())


@pytest.mark.parametrize("number", [2, 3, 4])
def test_conditioning_sets_are_every_modality_alone_and_all_but_one(number: int):
    names = tuple(PARTS)[:number]
    evaluation = evaluate(*subject(*names), replace(QUICK, metrics=("predictive",)))
    expected = {given for size in (1, number - 1) for given in combinations(names, size)}
    assert {given for _, given in asked("predictive", evaluation)} == expected
    for target in names:
        assert {given for (one,), given in asked("predictive", evaluation) if one == target} == {
            given for given in expected if target not in given
        }


def test_sets_that_were_asked_for_are_taken_once_and_in_the_models_order():
    given = (("label", "x"), ("x", "label"), ("x", "x"), ())
    evaluation = evaluate(*THREE, replace(QUICK, metrics=("likelihood", "conditional", "predictive", "agreement"), given=given))
    names = ("x", "image", "label")
    assert asked("likelihood", evaluation) == [
        (("x", "label"), names), (("x", "label"), ("x", "label")), (("x",), names), (("x",), ("x",)),
    ]  # fmt: skip
    assert asked("conditional", evaluation) == [(("image",), ("x", "label")), (("image", "label"), ("x",))]
    assert asked("predictive", evaluation) == [
        (("x",), ()), (("image",), ("x", "label")), (("image",), ("x",)), (("image",), ()), (("label",), ("x",)), (("label",), ()),
    ]  # fmt: skip
    assert asked("agreement", evaluation) == [(("image", "label"), ("x",)), (names, ())]
    assert "predictive of x given nothing" in titles(evaluation)


def test_densities_are_those_asked_for_whatever_the_conditioning_sets():
    settings = replace(QUICK, metrics=("likelihood", "predictive"), given=(("label",),), densities=(("image",), ("label", "x")))
    evaluation = evaluate(*THREE, settings)
    assert [target for target, _ in asked("likelihood", evaluation)] == [("image",)] * 2 + [("x", "label")] * 2
    assert asked("predictive", evaluation) == [(("x",), ("label",)), (("image",), ("label",))]


def test_attributes_are_the_label_where_there_are_no_classes():
    evaluation = evaluate(*subject("image", "flags"), replace(QUICK, metrics=("coherence", "attributes")))
    assert titles(evaluation) == ["coherence of image given flags", "attributes of flags given image"]
    assert evaluation.label == "flags"
    assert evaluate(*FOUR, replace(QUICK, metrics=("coherence",), label="flags")).label == "flags"


# What is measured


def test_each_figure_is_that_of_its_metric_alone():
    model, spec, splits = FOUR
    settings = replace(QUICK, seed=7, given=(("label",), ("image",), ("x",)))
    done = {one.title: one for one in evaluate(model, spec, splits, settings).measurements}
    rows, one = splits.test.slice(0, 12), {"samples": 3, "seed": 7}
    draws, few = {"samples": 39, "seed": 7}, {"samples": 2, "seed": 7}
    jury = train_classifiers(spec, model, splits.train, rows, "label", seed=7)
    density = log_likelihood(model, rows, "x", **one)
    curve = {str(number): value for number, value in density.curve.items()}
    expected: dict[str, Mapping[str, Any]] = {
        "log p(x) by q(z|x)": {
            "log-likelihood": density.log_likelihood,
            "standard error": density.standard_error,
            "error over rows": density.row_error,
            "effective sample size": density.effective_sample_size,
        }
    }
    assert done["log p(x) by q(z|x)"].series == {"K": curve}
    rest = conditional_log_likelihood(model, rows, ("x", "image", "flags"), "label", **one)
    expected["conditional of x,image,flags given label"] = {
        "log-likelihood": rest.log_likelihood,
        "standard error": rest.standard_error,
        "error over rows": rest.row_error,
    }
    conditional = done["conditional of x,image,flags given label"].series["K"]
    assert conditional == pytest.approx({key: rest.joint.curve[int(key)] - rest.marginal.curve[int(key)] for key in ("1", "3")})
    posterior = label_posterior(model, rows, "label", "x", **one)
    expected["labels of label given x"] = {
        "accuracy": posterior.accuracy,
        "log-probability": posterior.log_probability,
        "effective sample size": posterior.effective_sample_size.median().item(),
    }
    image, label = predict(model, rows, ["label"], "image", **draws), predict(model, rows, ["x"], "label", **draws)
    expected["predictive of image given label"] = {"log-likelihood": image.log_likelihood, "RMSE": image.rmse}
    expected["predictive of label given x"] = {"log-likelihood": label.log_likelihood, "accuracy": label.accuracy}
    coherent = coherence(model, rows, ["x"], "image", "label", jury["image"].classifier, **few)
    expected["coherence of image given x"] = {"coherence": coherent.coherence, "classifier's accuracy": jury["image"].accuracy}
    varied = diversity(model, rows, ["label"], "x", "label", jury["x"].classifier, **few)
    expected["diversity of x given label"] = {
        "variance ratio": varied.variance_ratio,
        "Fréchet distance": varied.frechet,
        "its floor": varied.floor,
    }
    agreed = joint_agreement(model, rows, ["x"], jury, "label", **few)
    expected["agreement of image,flags,label given x"] = {
        "agreement": agreed.agreement,
        "independent draws": agreed.control,
        "coherence": agreed.coherence,
    }
    flags = attribute_errors(model, rows, ["image"], "flags", reference=splits.train, **draws)
    expected["attributes of flags given image"] = {
        "accuracy": flags.accuracy,
        "majority rate": flags.majority_rate,
        "Brier": flags.brier,
        "ECE": flags.ece,
    }
    errors = {line.name: 1 - (line.accuracy or 0) for line in flags.attributes}
    assert done["attributes of flags given image"].series == {"error": errors}
    intervals = interval_scores(model, rows, ["label"], "x", **draws)
    expected["imputation of x given label"] = {
        "RMSE": intervals.rmse,
        "CRPS": intervals.crps,
        "RMSE of the column mean": intervals.marginal_rmse,
    }
    assert done["imputation of x given label"].series == {
        "coverage": {f"{100 * level:.0f}%": share for level, share in intervals.coverage.items()}
    }
    calibration = label_calibration(model, rows, ["image"], "label", **draws)
    expected["calibration of label given image"] = {
        "ECE": calibration.ece,
        "Brier": calibration.brier,
        "accuracy": calibration.accuracy,
        "majority rate": calibration.majority_rate,
    }
    for title, figures in expected.items():
        assert done[title].figures == pytest.approx(dict(figures)), title
        assert done[title].rows == 12
    assert {done[title].metric for title in expected} == set(METRICS) - {"cells"}


def test_log_likelihoods_are_those_of_the_closed_form():
    oracle = LinearGaussian.random({"a": 2, "b": 3}, 2, seed=1)
    x = oracle.sample(5, seed=2)
    batch = Batch.complete({name: torch.as_tensor(value) for name, value in x.items()})
    spec = spec_from_dict({"modalities": {name: {"shape": len(x[name][0]), "likelihood": "normal", **PART} for name in x}})
    torch.set_default_dtype(torch.float64)
    try:
        settings = Settings(metrics=("likelihood", "conditional"), samples=20)
        done = evaluate(exact_model(oracle, "mvae"), spec, Splits(batch, None, batch), settings)
    finally:
        torch.set_default_dtype(torch.float32)
    found = {one.title: one.figures["log-likelihood"] for one in done.measurements}

    def mean(*names: str) -> float:
        return float(np.mean([oracle.log_prob({name: x[name][row] for name in names}) for row in range(5)]))

    # Of a posterior that is exact every weight is the same: there is no Monte-Carlo error.
    assert found["log p(a) by q(z|a)"] == pytest.approx(mean("a"))
    assert found["log p(a,b) by q(z|a,b)"] == pytest.approx(mean("a", "b"))
    assert found["conditional of b given a"] == pytest.approx(mean("a", "b") - mean("a"))
    assert found["conditional of a given b"] == pytest.approx(mean("a", "b") - mean("b"))


def test_the_first_rows_are_taken_and_fewer_of_them_for_densities():
    settings = replace(QUICK, split="train", rows=30, density_rows=5)
    evaluation = evaluate(*THREE, settings)
    dense = {one.rows for one in evaluation.measurements if one.metric in ("likelihood", "conditional", "labels")}
    assert dense == {5}
    assert {one.rows for one in evaluation.measurements if one.metric not in ("likelihood", "conditional", "labels")} == {30}
    assert (evaluation.rows, evaluation.of_rows) == (30, 42)
    found = {one.title: one.figures for one in evaluation.measurements}
    first = THREE[2].train.slice(0, 5)
    assert found["log p(x) by q(z|x)"]["log-likelihood"] == log_likelihood(THREE[0], first, "x", samples=3).log_likelihood
    assert evaluate(*THREE, replace(QUICK, rows=None, metrics=("predictive",))).rows == 12


def test_the_same_seed_gives_the_same_figures_and_leaves_no_trace():
    model = THREE[0]
    model.train()
    before = torch.random.get_rng_state()
    first = evaluate(*THREE, QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    model.eval()
    assert evaluate(*THREE, QUICK) == first
    assert evaluate(*THREE, replace(QUICK, seed=1)).measurements != first.measurements


def test_measurements_are_announced_before_they_are_taken():
    heard: list[tuple[str, int, int]] = []
    done = evaluate(*THREE, replace(QUICK, metrics=("likelihood", "predictive")), announce=lambda *what: heard.append(what))
    assert heard == [(title, number, len(titles(done))) for number, title in enumerate(titles(done))]


# What is left out


def test_of_one_modality_nothing_but_its_likelihood_is_measured():
    vae = subject("x", "image", "label", model="vae")
    evaluation = evaluate(*vae, QUICK)
    assert titles(evaluation) == ["log p(x) by q(z|x)"]
    assert set(evaluation.skipped) == set(METRICS) - {"likelihood"}
    assert evaluation.skipped["predictive"] == "it needs two or more modalities"


def test_a_lenient_evaluation_leaves_out_what_other_models_have():
    vae = subject("x", "image", "label", model="vae")
    settings = replace(
        QUICK,
        metrics=("predictive", "likelihood", "coherence"),
        given=(("image",), ("x",)),
        densities=(("x",), ("x", "label")),
        label="label",
    )
    evaluation = evaluate(*vae, settings, lenient=True)
    assert titles(evaluation) == ["log p(x) by q(z|x)"]
    assert set(evaluation.skipped) == {"predictive", "coherence"}
    assert evaluation.settings == settings
    nothing = evaluate(*vae, replace(settings, densities=(("image",),)), lenient=True)
    assert titles(nothing) == []
    with pytest.raises(OptionError, match=r"^given image: no modality 'image'"):
        evaluate(*vae, settings)


def test_what_the_rows_do_not_have_is_left_out_with_the_reason():
    arrays = data("x", "image", "label")
    arrays["x__present"] = np.arange(ROWS) % 2 == 0
    arrays["image__present"] = np.arange(ROWS) % 2 == 1
    evaluation = evaluate(*subject("x", "image", "label", rows=arrays), QUICK)
    apart = "none of the 12 test rows has image, x together"
    assert evaluation.skipped["predictive of x given image"] == apart
    assert evaluation.skipped["conditional"] == "none of the 12 test rows has x, image, label together"
    assert evaluation.skipped["predictive of label given x,image"] == "none of the 12 test rows has x, image, label together"
    assert "predictive of x given label" in titles(evaluation)
    counts = {one.title: one.rows for one in evaluation.measurements}
    assert counts["predictive of x given label"] + counts["predictive of image given label"] == 12
    assert counts["coherence of x given image,label"] == counts["predictive of image given label"]


def test_a_modality_that_never_stands_beside_the_label_has_no_judge():
    arrays = data("x", "image", "label")
    arrays["label__present"] = np.arange(ROWS) % 2 == 0
    arrays["image__present"] = np.arange(ROWS) % 2 == 1
    evaluation = evaluate(*subject("x", "image", "label", rows=arrays), QUICK)
    reason = "a classifier needs rows with both image and label: 2 or more training rows and 1 or more evaluated rows"
    assert evaluation.skipped["coherence of image given x"] == reason
    assert evaluation.skipped["diversity of image given label"] == reason
    assert evaluation.skipped["agreement"] == reason
    assert "coherence of x given label" in titles(evaluation)


def test_what_one_question_lacks_costs_no_other():
    evaluation = evaluate(*THREE, replace(QUICK, rows=3))
    reason = "diversity needs 4 or more complete rows of label, x, got 3"
    assert evaluation.skipped["diversity of x given label"] == reason
    assert {one.metric for one in evaluation.measurements} == {*METRICS} - {"diversity", "attributes", "cells"}
    with pytest.raises(DataError) as caught:
        evaluate(*THREE, replace(QUICK, rows=3, metrics=("diversity",)))
    assert str(caught.value) == reason


def test_few_draws_leave_out_the_intervals():
    evaluation = evaluate(*THREE, replace(QUICK, draws=38))
    assert evaluation.skipped["imputation"] == "it needs 39 draws or more"
    assert "predictive of x given label" in titles(evaluation)


# What is refused

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no samples": ({"samples": 0}, "samples 0: expected 1 or more"),
    "no draws": ({"draws": 0}, "draws 0: expected 1 or more"),
    "nothing generated": ({"generated": -2}, "generated -2: expected 1 or more"),
    "negative rows": ({"rows": -5}, "rows -5: expected 1 or more"),
    "no rows for densities": ({"density_rows": 0}, "density_rows 0: expected 1 or more"),
    "negative seed": ({"seed": -1}, "seed -1: expected 0 or more"),
    "unknown metric": (
        {"metrics": ("predictive", "likelyhood")},
        "metrics likelyhood: no such metric. Did you mean 'likelihood'? Known: " + ", ".join(METRICS),
    ),
    "no metric": ({"metrics": ()}, "metrics: expected one or more. Known: " + ", ".join(METRICS)),
    "unknown split": ({"split": "tests"}, "split tests: no such split. Did you mean 'test'? Known: test, validation, train"),
    "unknown modality": (
        {"given": (("x",), ("x", "lable"))},
        "given x,lable: no modality 'lable'. Did you mean 'label'? Modalities: x, image, label",
    ),
    "unknown density": ({"densities": (("z",),)}, "densities z: no modality 'z'. Modalities: x, image, label"),
    "density of nothing": ({"densities": ((),)}, "densities: an empty set of modalities has no density"),
    "unknown label": ({"label": "lable"}, "label lable: no modality 'lable'. Did you mean 'label'? Modalities: x, image, label"),
    "no label": (
        {"label": "image"},
        "label 'image': Bernoulli values are neither classes nor attributes; "
        "use a modality with likelihood categorical, or bernoulli with attributes: true",
    ),
    "metric that no likelihood serves": (
        {"metrics": ("likelihood", "attributes")},
        "metrics attributes: it needs a bernoulli modality with attributes: true and at least one other; "
        "modalities: x (Normal), image (Bernoulli), label (Categorical)",
    ),
    "draws for intervals": ({"metrics": ("imputation",), "draws": 10}, "draws 10: metric imputation needs 39 or more"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_settings_that_cannot_serve_are_told_before_any_work(mistake: str, monkeypatch: pytest.MonkeyPatch):
    changes, message = REFUSED[mistake]
    monkeypatch.setattr(suite, "_METRICS", {name: replace(metric, measure=None) for name, metric in suite._METRICS.items()})
    with pytest.raises(OptionError) as caught:
        evaluate(*THREE, replace(QUICK, **changes))
    assert str(caught.value) == message


def test_a_split_without_rows_is_told_with_those_that_have_some():
    model, spec, splits = subject("x", "label", data={"test": 0.0, "validation": 0.2})
    with pytest.raises(OptionError) as caught:
        evaluate(model, spec, splits, QUICK)
    assert str(caught.value) == "split test: no rows, data.test of the spec is 0; use validation or train"
    assert evaluate(model, spec, splits, replace(QUICK, split="validation")).rows == 12


def test_a_set_that_no_row_has_is_told():
    model, spec, splits = THREE
    assert splits.test is not None
    hidden = replace(splits, test=splits.test.hide("label"))
    for lenient in (False, True):
        with pytest.raises(OptionError) as caught:
            evaluate(model, spec, hidden, replace(QUICK, given=(("x", "label"),)), lenient=lenient)
        assert str(caught.value) == "given x,label: none of the 12 test rows has x, label together; use other modalities, or more rows"
    with pytest.raises(OptionError) as caught:
        evaluate(model, spec, hidden, replace(QUICK, metrics=("labels",)))
    assert str(caught.value) == "metrics labels: none of the 12 test rows has x, label together"


# Classifiers


def _with_values(splits: Splits, part: str, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Splits:
    batch = getattr(splits, part)
    return replace(splits, **{part: Batch({**batch.values, name: change(batch.values[name])}, batch.present, batch.cells)})


def _flip_first(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[0] = (x[0] + 1) % 3
    return x


def test_classifiers_serve_again_where_they_would_come_out_the_same(trainings: list[str]):
    model, spec, splits = THREE
    cache = ClassifierCache()
    settings = replace(QUICK, metrics=("coherence",))
    first = evaluate(model, spec, splits, settings, classifiers=cache)
    again = evaluate(model, spec, splits, replace(settings, generated=3, draws=50), classifiers=cache)
    other = build_model(spec, seed=1).eval()
    other.fit_statistics(splits.train)
    evaluate(other, spec, splits, settings, classifiers=cache)
    assert trainings == ["x", "image"]
    accuracy = "classifier's accuracy"
    assert [one.figures[accuracy] for one in first.measurements] == [one.figures[accuracy] for one in again.measurements]


RETRAINED = {
    "rows": (),
    "fewer rows": (),
    "presence": (),
    "training rows": ("x",),
    "labels": ("x", "flags"),
    "seed": ("x", "flags"),
    "encoder": ("x",),
    "statistics": ("x",),
    "label": ("x", "label"),
}
"""By what differs from the evaluation before, the modalities whose classifiers are trained again."""


@pytest.mark.parametrize(("change", "expected"), RETRAINED.items(), ids=RETRAINED)
def test_classifiers_are_trained_again_exactly_where_they_would_not(change: str, expected: tuple[str, ...], trainings: list[str]):
    model, spec, splits = subject("x", "flags", "label")
    settings = replace(QUICK, metrics=("coherence",))
    cache = ClassifierCache()
    evaluate(model, spec, splits, settings, classifiers=cache)
    assert splits.test is not None
    if change == "rows":
        splits = _with_values(splits, "test", "x", _flip_first)
    elif change == "fewer rows":
        settings = replace(settings, rows=11)
    elif change == "training rows":
        splits = _with_values(splits, "train", "x", _flip_first)
    elif change == "labels":
        splits = _with_values(splits, "train", "label", _flip_first)
    elif change == "presence":
        splits = replace(splits, test=Batch(splits.test.values, {**splits.test.present, "x": torch.arange(12) > 0}))
    elif change == "seed":
        settings = replace(settings, seed=1)
    elif change == "encoder":
        spec = spec_from_dict({"modalities": {**{name: PARTS[name] for name in model.names}, "x": {**PARTS["x"], "features": 5}}})
    elif change == "statistics":
        model.fit_statistics(splits.test)
    else:
        settings = replace(settings, label="flags")
    reused = evaluate(model, spec, splits, settings, classifiers=cache)
    assert trainings == ["x", "flags", *expected]
    assert reused == evaluate(model, spec, splits, settings)


def test_rows_are_told_from_others_by_modality():
    batch = THREE[2].train
    before = {name: fingerprint(batch, name) for name in batch.names}
    changed = Batch({**batch.values, "x": _flip_first(batch.values["x"])}, batch.present)
    hidden = Batch(batch.values, {**batch.present, "image": torch.arange(len(batch)) > 0})
    assert {name for name in before if fingerprint(changed, name) != before[name]} == {"x"}
    assert {name for name in before if fingerprint(hidden, name) != before[name]} == {"image"}
    assert fingerprint(batch, "none") == ""
    assert before == {name: fingerprint(batch.index(torch.arange(len(batch))), name) for name in batch.names}


# JSON

FIGURES = st.dictionaries(st.text(max_size=5), st.floats(), max_size=4)
NAMES = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3, unique=True).map(tuple)
MEASUREMENTS = st.builds(
    Measurement, st.sampled_from(METRICS), NAMES, NAMES, st.integers(0), FIGURES, st.dictionaries(st.text(max_size=3), FIGURES, max_size=2)
)
SETTINGS = st.builds(
    Settings,
    metrics=st.none() | st.lists(st.sampled_from(METRICS), max_size=3).map(tuple),
    given=st.none() | st.lists(NAMES, max_size=3).map(tuple),
    densities=st.none() | st.lists(NAMES, max_size=3).map(tuple),
    rows=st.none() | st.integers(1),
    density_rows=st.none() | st.integers(1),
    label=st.none() | st.text(),
)


def _refuse(word: str) -> None:
    raise AssertionError(word)


def _without_what_json_lacks(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


@given(settings=SETTINGS, measurements=st.lists(MEASUREMENTS, max_size=3))
def test_what_was_written_is_read_back_but_for_numbers_that_json_lacks(
    settings: Settings, measurements: list[Measurement], tmp_path_factory: pytest.TempPathFactory
):
    done = Evaluation(settings, ("x", "y", "z"), None, 7, 5, 9, {"x": "0"}, tuple(measurements), {"labels": "no classes"})
    path = tmp_path_factory.getbasetemp() / "evaluation.json"
    write_json(path, done.as_dict())
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    assert json.loads(json.dumps(done.as_dict(), allow_nan=False)) == content
    read = read_evaluation(path)
    assert read is not None
    assert replace(read, measurements=()) == replace(done, measurements=())
    for one, other in zip(read.measurements, measurements, strict=True):
        assert one.title == other.title
        assert one.rows == other.rows
        assert _without_what_json_lacks(one.figures) == _without_what_json_lacks(other.figures)
        assert all(math.isnan(value) for name, value in one.figures.items() if not math.isfinite(other.figures[name]))
        assert {name: _without_what_json_lacks(series) for name, series in one.series.items()} == {
            name: _without_what_json_lacks(series) for name, series in other.series.items()
        }


def _broken() -> Iterable[str]:
    whole = Evaluation(QUICK, ("x",), None, 7, 5, 9, {}, (Measurement("likelihood", ("x",), ("x",), 5, {"a": 1.0}),), {}).as_dict()
    yield "{"
    yield "[]"
    yield "null"
    yield json.dumps({key: value for key, value in whole.items() if key != "settings"})
    yield json.dumps({**whole, "settings": {**whole["settings"], "temperature": 3}})
    yield json.dumps({**whole, "measurements": [{"metric": "likelihood"}]})
    yield json.dumps({**whole, "measurements": ["likelihood"]})
    yield json.dumps({**whole, "measurements": [{**whole["measurements"][0], "figures": [1.0]}]})
    yield json.dumps({**whole, "more": 1})


@pytest.mark.parametrize("content", [*_broken()])
def test_what_is_no_evaluation_is_none(content: str, tmp_path: Path):
    (tmp_path / "evaluation.json").write_text(content)
    assert read_evaluation(tmp_path / "evaluation.json") is None
    assert read_evaluation(tmp_path / "none.json") is None


def test_how_figures_were_taken_is_told_in_a_line():
    assert describe_settings(Settings(), 1000, 10000) == (
        "the first 1,000 of 10,000 test rows; K = 5,000 importance samples, 200 draws, 10 generated; seed 0"
    )
    assert describe_settings(replace(QUICK, split="train", density_rows=5, seed=3), 12, 12) == (
        "all 12 train rows (5 of them for log-likelihoods); K = 3 importance samples, 39 draws, 2 generated; seed 3"
    )


def test_a_trained_run_is_evaluated_through_the_public_name():
    run = nbridge.train(
        {
            "modalities": {name: PARTS[name] for name in ("x", "label")},
            "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
        },
        data("x", "label"),
    )
    done = run.model.evaluate(run.splits, replace(QUICK, metrics=("predictive",)))
    assert titles(done) == ["predictive of x given label", "predictive of label given x"]
