"""Single cells of mixed tables: baselines never see what they predict, and who is ahead is known where theory says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nbridge.data.split import Splits
from nbridge.evaluation import versus_baseline
from nbridge.evaluation.advice import advise, summarise_training
from nbridge.evaluation.baseline_inputs import blocks_of
from nbridge.evaluation.single_cells import (
    MAX_COLUMNS,
    CellInputs,
    hidden_scores,
    hide_cells,
    mixed,
    mixed_modalities,
    predicted_cells,
    sampled_columns,
    usable_rows,
)
from nbridge.evaluation.targets import ClassificationTarget, RegressionTarget, Target, targets_of, values_of
from nbridge.evaluation.verdict import BaselineComparison, Verdict
from nbridge.evaluation.versus_baseline import compare_with_baselines, predicted_values
from nbridge.models.base import MultimodalVAE
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model

COLUMNS: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "bili": "lognormal", "visits": "poisson",
}  # fmt: skip
OTHER: dict[str, Any] = {"shape": 2, "likelihood": "normal", "features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
Rows = dict[str, np.ndarray]


def table(rows: int, seed: int = 0) -> np.ndarray:
    """Rows of all columns, which follow from one number but for noise."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=rows)
    stage = np.digitize(z, (-0.5, 0.5))
    columns = [50 + 10 * (z + 0.2 * draw.normal(size=rows)), z > 0, *np.eye(3)[stage].T, np.exp(z), draw.poisson(np.exp(1 + z))]
    return np.stack(columns, 1).astype(float)


def subject(rows: Mapping[str, np.ndarray], columns: Mapping[str, Any] = COLUMNS) -> tuple[MultimodalVAE, Spec, Splits]:
    """A model with fresh weights, and its rows."""
    parts = {name: {"columns": columns, "encoder": {"type": "table", "hidden": [8]}} if name == "t" else OTHER for name in rows}
    spec = spec_from_dict({"latent_dim": 2, "modalities": parts})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_model(spec).eval()
    splits = build_data(spec, built, dict(rows))
    built.fit_statistics(splits.train.sample(None))
    return built, spec, splits


def cells_of(verdict: Verdict) -> list[BaselineComparison]:
    return [one for one in verdict.modalities if one.cells]


# Columns by kind


def test_columns_are_scored_by_kind_counts_on_a_log_scale_and_classes_as_one_question():
    model, spec, splits = subject({"t": table(300)})
    train = values_of(model, splits.train.sample(300), "t")
    numbers, questions = targets_of(model, spec, "t", train)
    assert isinstance(numbers, RegressionTarget)
    assert isinstance(questions, ClassificationTarget)
    assert (numbers.names, questions.names) == (("age", "bili", "visits"), ("sex", "stage"))
    assert (questions.spans, questions.classes) == (((1, 2), (2, 5)), (2, 3))
    expected = np.stack([train[:, 0], train[:, 5], np.log1p(train[:, 6])], 1)
    assert np.allclose(numbers.scaled(train), (expected - expected.mean(0)) / expected.std(0))
    # Predictions of counts are on the log scale already.
    logs = train.copy()
    logs[:, 6] = np.log1p(train[:, 6])
    assert np.allclose(numbers.scaled(logs, logged=True), numbers.scaled(train))
    assert np.array_equal(questions.scaled(train), np.stack([train[:, 1], train[:, 2:5].argmax(1)], 1))


def test_inputs_of_baselines_are_on_the_scale_of_each_column():
    model, _, splits = subject({"t": table(300)})
    train = {"t": values_of(model, splits.train.sample(300), "t")}
    inputs = blocks_of(model, train)["t"].of(train["t"])
    x = train["t"]
    for element, plain in ((0, x[:, 0]), (5, np.log(x[:, 5])), (6, np.log1p(x[:, 6]))):
        assert np.allclose(inputs[:, element], (plain - plain.mean()) / plain.std())
    # The elements of a class share one unit, so that a rare class is not far from all others.
    assert np.allclose(np.ptp(inputs[:, 2:5], axis=0), np.ptp(inputs[:, 2:5], axis=0)[0])


@pytest.mark.parametrize("other", [False, True])
def test_point_predictions_of_counts_are_means_of_logarithms_and_all_others_estimates_in_the_support(other: bool):
    rows = {"t": table(200)} | ({"x": np.random.default_rng(1).normal(size=(200, 2))} if other else {})
    model, _, splits = subject(rows)
    held = splits.train.sample(60)
    found = predicted_values(model, held, "t") if other else predicted_cells(model, hide_cells(model, held, "t", most=60), "t")
    assert np.isin(found[:, 1], (0, 1)).all()
    assert np.array_equal(found[:, 2:5].sum(1), np.ones(len(found)))
    assert (found[:, 5] > 0).all()
    assert not np.allclose(found[:, 6], found[:, 6].round())


# What is hidden


def test_a_fifth_of_the_columns_is_hidden_and_each_row_is_used_as_often_as_rows_are_few():
    model, _, splits = subject({"t": table(400)})
    batch = splits.train.sample(None)
    few, many = hide_cells(model, batch.slice(0, 100), "t"), hide_cells(model, batch, "t", most=200)
    assert (few.rounds, few.holes.shape) == (5, (500, 7))
    assert (many.rounds, many.holes.shape) == (1, (200, 7))
    columns = few.holes[:, [0, 1, 2, 5, 6]]
    assert (few.holes[:, 2:5] == few.holes[:, [2]]).all()
    assert 0.17 < columns.mean() < 0.25
    assert np.array_equal(few.holes, hide_cells(model, batch.slice(0, 100), "t").holes)


def test_scores_of_a_row_are_means_over_the_rounds_in_which_its_cell_is_hidden():
    model, spec, splits = subject({"t": table(300)})
    batch = splits.train.sample(100)
    rows, values = hide_cells(model, batch, "t"), values_of(model, batch, "t")
    numbers, _ = targets_of(model, spec, "t", values)
    truth = np.tile(numbers.scaled(values), (rows.rounds, 1))
    guess = np.random.default_rng(0).normal(size=truth.shape)
    found = hidden_scores(numbers, truth, guess, rows)
    for place, element in enumerate((0, 5, 6)):
        for row in range(len(batch)):
            places = [row + len(batch) * turn for turn in range(rows.rounds) if rows.holes[row + len(batch) * turn, element]]
            errors = [(truth[one, place] - guess[one, place]) ** 2 for one in places]
            assert np.isclose(found[row, place], np.mean(errors)) if errors else np.isnan(found[row, place])


def test_neither_model_nor_baselines_see_hidden_cells():
    x = np.random.default_rng(1).normal(size=(200, 2))
    model, spec, splits = subject({"t": table(200), "x": x})
    batch = splits.train.sample(80)
    rows = hide_cells(model, batch, "t")
    values = {name: values_of(model, rows.batch, name) for name in model.names}
    changed = {**values, "t": np.where(rows.holes, np.nan_to_num(values["t"]) + 7, values["t"])}
    inputs = CellInputs(blocks_of(model, values), "t", mixed(model, "t").spans)
    for target in targets_of(model, spec, "t", values["t"]):
        for place, name in enumerate(target.names):
            column: Target = target.only([place])
            first, start = inputs.examples(column, values, rows.holes), mixed(model, "t").spans[list(COLUMNS).index(name)][0]
            assert np.array_equal(first.inputs, inputs.examples(column, changed, rows.holes).inputs)
            # Nor what the column holds in other rows.
            own = np.zeros_like(rows.holes)
            own[:, start : start + mixed(model, "t").kinds[name].width] = True
            shifted = {**values, "t": np.where(own, values["t"] + 7, values["t"])}
            assert np.array_equal(first.inputs, inputs.examples(column, shifted, rows.holes).inputs)
    wrong = {**rows.batch.values, "t": torch.where(torch.from_numpy(rows.holes), 1.0, rows.batch.values["t"])}
    other = replace(rows, batch=replace(rows.batch, values=wrong))
    assert np.array_equal(predicted_cells(model, rows, "t"), predicted_cells(model, other, "t"))


def test_of_many_columns_a_sample_is_compared():
    columns = {f"c{place}": "normal" if place % 3 else "bernoulli" for place in range(60)}
    x = np.random.default_rng(0).normal(size=(60, 60))
    x[:, ::3] = x[:, ::3] > 0
    model, spec, splits = subject({"t": x}, columns)
    targets = targets_of(model, spec, "t", values_of(model, splits.train.sample(None), "t"))
    few = sampled_columns(targets)
    assert sum(len(target.names) for target in few) == MAX_COLUMNS
    assert [target.of_columns for target in few] == [40, 20]
    for whole, some in zip(targets, few, strict=True):
        assert set(some.names) < set(whole.names)
    assert sampled_columns(few) == few


# Who is ahead


def test_an_untrained_model_of_one_table_is_worse_where_columns_follow_from_each_other():
    model, spec, splits = subject({"t": table(400)})
    verdict = compare_with_baselines(model, spec, splits)
    assert [(one.title, one.figure, one.outcome) for one in verdict.modalities] == [
        ("single cells of t", "rmse", "worse"), ("single cells of t", "accuracy", "worse"),
    ]  # fmt: skip
    assert verdict.headline == "worse than a baseline: single cells of t"
    assert {one.column for one in verdict.columns} == set(COLUMNS)
    assert all(one.baseline < 0.6 for one in verdict.columns if one.column == "age")
    assert all(one.baseline < 0.9 * one.constant for one in verdict.columns if one.figure == "rmse")
    assert "a fifth of the observed columns is hidden" in verdict.note
    assert "Each modality is hidden" not in verdict.note
    assert verdict.advice
    assert all(line.startswith("single cells of t: ") for line in verdict.advice)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


def test_a_model_that_knows_the_cells_is_better_and_one_that_guesses_the_mean_is_not(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    noise = np.stack([draw.normal(size=400), draw.random(400) < 0.5, *np.eye(3)[draw.integers(3, size=400)].T,
                      draw.lognormal(size=400), draw.poisson(3, size=400)], 1)  # fmt: skip
    model, spec, splits = subject({"t": noise})

    def known(model: MultimodalVAE, rows: Any, name: str, *, seed: int) -> np.ndarray:
        x = values_of(model, rows.batch, name)
        x[:, 6] = np.log1p(x[:, 6])
        return x

    monkeypatch.setattr(versus_baseline, "predicted_cells", known)
    best = compare_with_baselines(model, spec, splits)
    assert [one.outcome for one in cells_of(best)] == ["better", "better"]
    assert [one.model for one in cells_of(best)] == [0, 1]

    def mean(model: MultimodalVAE, rows: Any, name: str, *, seed: int) -> np.ndarray:
        x = known(model, rows, name, seed=seed)
        return np.broadcast_to(x.mean(0), x.shape)

    monkeypatch.setattr(versus_baseline, "predicted_cells", mean)
    numbers, _ = cells_of(compare_with_baselines(model, spec, splits))
    assert numbers.outcome == "as good"


def test_single_cells_are_one_more_comparison_beside_whole_modalities_and_named_as_such():
    x = np.random.default_rng(1).normal(size=(400, 2))
    model, spec, splits = subject({"t": table(400), "x": x})
    verdict = compare_with_baselines(model, spec, splits)
    assert [(one.title, one.figure) for one in verdict.modalities] == [
        ("t", "rmse"), ("t", "accuracy"), ("x", "rmse"), ("single cells of t", "rmse"), ("single cells of t", "accuracy"),
    ]  # fmt: skip
    assert mixed_modalities(model) == ("t",)
    assert verdict.note.startswith("Each modality is hidden in turn")
    assert "Single cells: " in verdict.note
    assert {one.label for one in verdict.columns if one.cells} == {f"single cells of t.{name}" for name in COLUMNS}


def test_where_numbers_and_classes_differ_the_headline_says_which():
    parts = (BaselineComparison("t", "", "rmse", 60, 0.4, 0.5, 1, 0.01, "better", cells=True),
             BaselineComparison("t", "", "accuracy", 60, 0.4, 0.4, 1, 0.01, "as good", cells=True))  # fmt: skip
    expected = "compared with a baseline, as good: single cells of t (accuracy); better: single cells of t (RMSE/sd)"
    assert Verdict("test", parts).headline == expected


def test_too_few_rows_or_columns_are_not_tested():
    model, spec, splits = subject({"t": table(40)})
    verdict = compare_with_baselines(model, spec, splits)
    assert verdict.headline == "not tested (8 test rows, 20 needed): single cells of t"
    x = table(400)
    x[:, [1, 2, 3, 4, 5, 6]] = np.nan
    model, spec, splits = subject({"t": x})
    assert len(usable_rows(model, splits.train.sample(None), "t")) == 0
    verdict = compare_with_baselines(model, spec, splits)
    assert verdict.headline == "not tested (0 test rows, 20 needed with two observed columns): single cells of t"


def test_rows_without_other_cells_or_constant_columns_do_not_stop_it():
    x = table(400)
    x[:, 0] = 3.0
    x[::2, 5] = np.nan
    x[::3, [1, 2, 3, 4]] = np.nan
    model, spec, splits = subject({"t": x})
    verdict = compare_with_baselines(model, spec, splits)
    assert {one.column for one in verdict.columns} == set(COLUMNS) - {"age"}


def test_advice_for_single_cells_is_about_the_rest_of_the_row_and_never_about_a_likelihood():
    model, spec, splits = subject({"t": table(400)})
    likelihood, values = model.likelihoods["t"], values_of(model, splits.train.sample(None), "t")
    trained = summarise_training(spec, 400, [])

    def advice(ours: float, predictor: str) -> str:
        comparison = BaselineComparison("t", "", "rmse", 80, ours, 0.3, 1.0, 0.01, "worse", predictor, cells=True)
        return advise(comparison, likelihood, values, trained)

    assert advice(1.0, "ridge").startswith("imputed no better than by the column mean, so the model does not use the rest of the row")
    assert advice(0.5, "ridge").startswith("linear predictors predict them better: try a larger latent_dim")
    assert advice(0.5, "best by column").startswith("predictors of each column predict them better")
    assert all("weight" not in advice(ours, "neighbours") for ours in (0.5, 1.0))
