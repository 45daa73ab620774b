"""The verdict: who is ahead where theory says so, that figures pool no units, and that nothing is claimed without rows."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model
from rich.console import Console
from sklearn.linear_model import LogisticRegression, RidgeCV

import nbridge
from nbridge.cli.verdicts import print_verdict
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.numpy.npy import NPYFolder
from nbridge.data.split import Splits
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.evaluation import versus_baseline
from nbridge.evaluation.advice import advise, format_advice, summarise_training
from nbridge.evaluation.baseline_inputs import COMPONENTS, WIDE, blocks_of, inputs_of
from nbridge.evaluation.baselines import Examples, candidates, select_baseline
from nbridge.evaluation.paired import paired
from nbridge.evaluation.results import Settings
from nbridge.evaluation.targets import ClassificationTarget, RegressionTarget, targets_of, values_of
from nbridge.evaluation.verdict import MIN_ROWS, BaselineComparison, Verdict, read_verdict
from nbridge.evaluation.versus_baseline import compare_with_baselines, predicted_values
from nbridge.inference.impute import impute
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import Run
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import VERDICT

PART: dict[str, Any] = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
LIKELIHOODS: dict[str, Any] = {
    "x": {"shape": 4, "likelihood": "normal"},
    "y": {"shape": 3, "likelihood": "normal"},
    "counts": {"shape": 2, "likelihood": "poisson"},
    "flags": {"shape": 3, "likelihood": {"type": "bernoulli", "attributes": True}},
    "image": {"shape": [1, 4, 4], "likelihood": "bernoulli"},
    "label": {"shape": 3, "likelihood": "categorical"},
}
Rows = dict[str, np.ndarray]


def linear_rows(rows: int, seed: int = 0, noise: float = 0.2) -> Rows:
    """Modalities that are linear in a common z, but for noise."""
    rng = np.random.default_rng(seed)
    z, load = rng.normal(size=(rows, 2)), np.random.default_rng(1)
    return {
        "x": z @ load.normal(size=(2, 4)) + noise * rng.normal(size=(rows, 4)),
        "y": z @ load.normal(size=(2, 3)) + noise * rng.normal(size=(rows, 3)),
        "counts": rng.poisson(np.exp(z + 1)).astype(float),
        "flags": (z @ load.normal(size=(2, 3)) > 0).astype(float),
        "image": 1 / (1 + np.exp(-(z @ load.normal(size=(2, 16))).reshape(rows, 1, 4, 4))),
        "label": (z[:, 0] > 0) + 1.0 * (z[:, 1] > 0),
    }


def subject(rows: Mapping[str, np.ndarray], model: str = "bridged", **keys: Any) -> tuple[MultimodalVAE, Spec, Splits]:
    """A model with fresh weights, and its rows."""
    spec = spec_from_dict({"model": model, "latent_dim": 2, "modalities": {name: {**LIKELIHOODS[name], **PART} for name in rows}, **keys})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_model(spec).eval()
    splits = build_data(spec, built, dict(rows))
    built.fit_statistics(splits.train)
    return built, spec, splits


def by_target(verdict: Verdict) -> dict[str, BaselineComparison]:
    return {one.target: one for one in verdict.modalities}


# Who is ahead


def test_an_untrained_model_is_worse_where_everything_is_linear():
    model, spec, splits = subject(linear_rows(400))
    verdict = compare_with_baselines(model, spec, splits)
    assert {one.target: one.outcome for one in verdict.modalities} == dict.fromkeys(LIKELIHOODS, "worse")
    done = by_target(verdict)
    assert (done["x"].predictor, done["y"].predictor) == ("ridge", "ridge")
    # What is left of a column is its noise, and what the others do not tell of z.
    assert done["x"].baseline < 0.35
    assert done["x"].model > 0.9
    assert verdict.headline == "worse than a baseline: x, y, counts, flags, image, label"
    assert len(verdict.advice) >= 1
    assert all(any(line.startswith(name) or f", {name}" in line for line in verdict.advice) for name in LIKELIHOODS)


def test_a_perfect_predictor_is_better_where_nothing_is_linear(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    model, spec, splits = subject({"x": x, "y": np.sin(9 * x[:, :3]), "label": ((x > 0).sum(1) % 3).astype(float)})
    monkeypatch.setattr(versus_baseline, "predicted_values", lambda model, batch, name, seed: values_of(model, batch, name))
    verdict = compare_with_baselines(model, spec, splits)
    assert [one.outcome for one in verdict.modalities] == ["better"] * 3
    assert [one.model for one in verdict.modalities] == [0.0, 0.0, 1.0]
    assert verdict.headline == "compared with a baseline, better: x, y, label"
    assert verdict.advice == ()


def test_the_exact_model_is_as_good_as_ridge_on_its_own_rows():
    oracle = LinearGaussian.random({"x": 4, "y": 3}, 2, 0)
    torch.set_default_dtype(torch.float64)
    try:
        model = exact_model(oracle, "mvae")
        parts = [
            Batch.complete({k: torch.as_tensor(v) for k, v in oracle.sample(n, s).items()}) for n, s in ((2000, 0), (300, 1), (400, 2))
        ]
        spec = subject(linear_rows(40), latent_dim=2)[1]
        verdict = compare_with_baselines(model, spec, Splits(*parts))
    finally:
        torch.set_default_dtype(torch.float32)
    assert [(one.outcome, one.predictor) for one in verdict.modalities] == [("as good", "ridge")] * 2
    # The conditional mean of a Gaussian is linear: ridge on many rows finds nearly the same.
    assert all(abs(one.lead) < 0.02 for one in verdict.modalities)
    assert all(0 < one.standard_error < 0.02 for one in verdict.modalities)


def test_what_a_model_predicts_is_what_imputation_gives():
    rows = linear_rows(60)
    rows["y"][::3] = np.nan
    model, _, splits = subject(rows)
    for name in ("x", "y", "flags", "label"):
        completed = impute(model, splits.train.hide(name)).values[name]
        expected = completed.reshape(len(splits.train), -1).double()
        assert np.allclose(predicted_values(model, splits.train, name), expected.numpy(), atol=1e-5)


def test_of_counts_the_mean_on_the_log_scale_is_predicted():
    model, _, splits = subject(linear_rows(60))
    predicted = predicted_values(model, splits.train, "counts")
    draws = impute(model, splits.train.hide("counts"), samples=400, seed=1).values["counts"]
    assert np.allclose(predicted, torch.log1p(draws).mean(0).numpy(), atol=0.35)
    assert np.array_equal(predicted, predicted_values(model, splits.train, "counts"))


# Rows


@pytest.mark.parametrize(("part", "rows"), [("test", 0.04), ("validation", 0.0)])
def test_too_few_rows_are_not_tested(part: str, rows: float):
    model, spec, splits = subject(linear_rows(100), data={"test": rows, "validation": 0.05})
    verdict = compare_with_baselines(model, spec, splits)
    number = {"test": 4, "validation": 5}[part]
    assert {one.description for one in verdict.modalities} == {f"not tested ({number} {part} rows, {MIN_ROWS} needed)"}
    assert {one.rows for one in verdict.modalities} == {number}
    assert math.isnan(verdict.modalities[0].model)
    assert verdict.headline == f"not tested ({number} {part} rows, {MIN_ROWS} needed): {', '.join(LIKELIHOODS)}"


def test_without_rows_nothing_is_tested():
    model, spec, splits = subject(linear_rows(100), data={"test": 0, "validation": 0})
    verdict = compare_with_baselines(model, spec, splits)
    assert verdict.headline == "not tested: no test rows and no validation rows; set data.test or data.validation in the spec"
    assert (verdict.split, verdict.modalities) == ("", ())
    assert compare_with_baselines(model, spec, splits, rows=splits.train, split="train").reason.startswith("training rows flatter")


def test_one_modality_has_no_others():
    model, spec, splits = subject({"x": linear_rows(200)["x"]}, model="vae")
    assert (
        compare_with_baselines(model, spec, splits).headline
        == "not tested: the model has only one modality, so there are no others to impute it from"
    )


def test_validation_rows_serve_where_there_are_no_test_rows_and_say_so():
    model, spec, splits = subject(linear_rows(200), data={"test": 0, "validation": 0.3})
    verdict = compare_with_baselines(model, spec, splits)
    assert verdict.split == "validation"
    assert {one.rows for one in verdict.modalities} == {60}
    assert verdict.note.endswith(
        "There are no test rows: validation rows also chose the best epoch, so the model may look better than it is."
    )
    assert "chosen by cross-validation of the training rows)" in verdict.note


def test_a_modality_is_compared_on_rows_that_have_it_and_another():
    rows = linear_rows(400)
    rows = {name: rows[name] for name in ("x", "y", "label")}
    rows["x"][:200], rows["y"][:200], rows["label"][:100] = np.nan, np.nan, np.nan
    rows["y"][200:390] = np.nan
    model, spec, splits = subject(rows, data={"empty_rows": "keep", "test": 0.3})
    verdict = by_target(compare_with_baselines(model, spec, splits))
    present = {name: mask.numpy() for name, mask in splits.test.present.items()}
    assert verdict["x"].rows == int((present["x"] & (present["y"] | present["label"])).sum())
    assert verdict["label"].rows == int((present["label"] & (present["x"] | present["y"])).sum())
    assert verdict["y"].description == f"not tested ({int(present['y'].sum())} test rows, 20 needed)"


def test_the_same_rows_and_seed_give_the_same_verdict_and_leave_no_trace():
    model, spec, splits = subject(linear_rows(300))
    state, generator = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (it must stay as it was)
    first = compare_with_baselines(model, spec, splits)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], generator)  # noqa: NPY002
    assert compare_with_baselines(model, spec, splits) == first


def test_rows_on_disk_have_the_verdict_of_rows_in_memory(tmp_path: Path):
    rows = {name: x for name, x in linear_rows(200).items() if name in ("x", "y", "label")}
    rows["x"][::4] = np.nan
    for name, x in rows.items():
        np.save(tmp_path / f"{name}.npy", x)
    model, spec, _ = subject(rows)
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    stored, memory = NPYFolder(path=str(tmp_path)).load(shapes).batch, to_batch(rows, shapes)
    assert isinstance(stored, StoredRows)
    cut = torch.arange(200)
    verdicts = [
        compare_with_baselines(model, spec, Splits(one.subset(cut[:120]), one.subset(cut[120:150]), one.subset(cut[150:])))
        for one in (stored, memory)
    ]
    assert verdicts[0] == verdicts[1]
    assert {one.outcome for one in verdicts[0].modalities} == {"worse"}


def test_test_rows_choose_nothing():
    """What is compared on must not decide which baseline it is compared with."""
    model, spec, splits = subject(linear_rows(400))
    first = compare_with_baselines(model, spec, splits)
    shuffled = {name: x.roll(1, 0) for name, x in splits.test.values.items()}
    other = Splits(splits.train, splits.validation, Batch({**splits.test.values, "x": shuffled["x"]}, splits.test.present))
    assert [one.predictor for one in compare_with_baselines(model, spec, other).modalities] == [one.predictor for one in first.modalities]


# Units


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), column=st.integers(0, 3))
def test_the_unit_of_a_column_changes_nothing(scale: float, shift: float, column: int):
    rows, others = linear_rows(120)["x"], linear_rows(120)["y"]
    predicted = rows + np.random.default_rng(3).normal(size=rows.shape) * rows.std(0)
    scaled, guessed = rows.copy(), predicted.copy()
    scaled[:, column], guessed[:, column] = scale * rows[:, column] + shift, scale * predicted[:, column] + shift
    model, spec, _ = subject({"x": rows, "y": others})
    figures = []
    for truth, guess in ((rows, predicted), (scaled, guessed)):
        (target,) = targets_of(model, spec, "x", truth)
        scores = target.scores(target.scaled(truth), target.scaled(guess))
        figures.append(paired(scores, scores * 0.5, root=True))
        name, predict = select_baseline(target, Examples(others, np.ones(3), target.scaled(truth)), None)
        figures.append(paired(target.scores(target.scaled(truth), predict(others)), scores, root=True))
        assert name == "ridge"
    assert figures[0].model == pytest.approx(figures[2].model, rel=1e-6)
    assert figures[0].standard_error == pytest.approx(figures[2].standard_error, rel=1e-6)
    assert figures[1].model == pytest.approx(figures[3].model, rel=1e-6)


def test_the_column_mean_is_about_one_standard_deviation_off_and_constant_columns_are_left_out():
    rows = linear_rows(600)
    rows["x"][:, 1] = 7.3
    verdict = by_target(compare_with_baselines(*subject(rows)))
    assert verdict["x"].columns == (3, 3)
    assert verdict["x"].constant == pytest.approx(1, abs=0.15)
    rows["y"][:] = 3.0
    verdict = compare_with_baselines(*subject(rows))
    assert by_target(verdict)["y"].description == "not tested (all its columns are constant in the training rows)"


def test_each_kind_of_modality_has_its_own_figure():
    model, spec, splits = subject(linear_rows(100))
    kinds = {name: targets_of(model, spec, name, values_of(model, splits.train, name))[0] for name in LIKELIHOODS}
    assert {name: target.figure for name, target in kinds.items()} == {
        "x": "rmse", "y": "rmse", "counts": "rmse", "flags": "accuracy", "image": "rmse", "label": "accuracy"
    }  # fmt: skip
    assert (len(kinds["x"].names), len(kinds["flags"].names), len(kinds["image"].names), len(kinds["label"].names)) == (4, 3, 1, 1)
    counts, image, label = kinds["counts"], kinds["image"], kinds["label"]
    assert isinstance(counts, RegressionTarget)
    assert np.allclose(counts.centre, np.log1p(splits.train.values["counts"].double().numpy()).mean(0))
    assert isinstance(image, RegressionTarget)
    assert len(set(image.unit.tolist())) == 1
    assert isinstance(label, ClassificationTarget)
    assert label.classes == (3,)


def test_a_column_of_classes_is_one_question_however_it_is_stored(tmp_path: Path):
    rng = np.random.default_rng(0)
    kind, size = rng.integers(0, 3, 200), rng.normal(size=200)
    lines = [f"{('a', 'b', 'c')[k]},{s + k:.4f},{('no', 'yes')[int(s > 0)]},{s:.4f}" for k, s in zip(kind, size, strict=True)]
    (tmp_path / "rows.csv").write_text("kind,length,big,size\n" + "\n".join(lines))
    source = {
        "source": "table", "path": str(tmp_path / "rows.csv"), "test": 0.3,
        "columns": {"things": ["kind", "length", "big"], "size": "size"}, "classes": {"kind": ["a", "b", "c"], "big": ["no", "yes"]},
    }  # fmt: skip
    spec = spec_from_dict(
        {
            "data": source,
            "latent_dim": 2,
            "modalities": {"things": {"shape": 5, "likelihood": "normal", **PART}, "size": {"shape": 1, "likelihood": "normal", **PART}},
        }
    )
    model = build_model(spec).eval()
    splits = build_data(spec, model)
    model.fit_statistics(splits.train)
    verdict = compare_with_baselines(model, spec, splits)
    assert [(one.target, one.figure, one.columns) for one in verdict.modalities] == [
        ("things", "rmse", (1, 1)), ("things", "accuracy", (2, 2)), ("size", "rmse", (1, 1))
    ]  # fmt: skip
    assert [one.column for one in verdict.columns] == ["length", "kind", "big"]
    truth = values_of(model, splits.train, "things")
    questions = targets_of(model, spec, "things", truth)[1]
    assert np.array_equal(questions.scaled(truth)[:, 0], truth[:, :3].argmax(1))
    assert np.array_equal(questions.scaled(truth)[:, 1], truth[:, 4])


# The comparison of two predictors

SCORES = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8), elements=st.floats(0, 100))


@given(SCORES, st.booleans())
@settings(deadline=None)
def test_equal_predictors_are_as_good(scores: np.ndarray, root: bool):
    done = paired(scores, scores.copy(), root=root)
    assert (done.model, done.standard_error) == (done.baseline, 0.0)


def test_the_standard_error_is_that_of_other_samples_of_rows():
    rng = np.random.default_rng(0)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        common = rng.gamma(2, size=(rows, 3))
        missing = rng.random((rows, 3)) < 0.3
        first, second = common * rng.gamma(4, 0.25, (rows, 3)), common * rng.gamma(3, 0.5, (rows, 3))
        return np.where(missing, np.nan, first), np.where(missing, np.nan, second)

    for root in (False, True):
        done = [paired(*draw(80), root=root) for _ in range(800)]
        spread = np.std([one.model - one.baseline for one in done])
        # Two per cent of spread remain to chance with 800 samples; the delta method adds a little.
        assert np.mean([one.standard_error for one in done]) == pytest.approx(spread, rel=0.1)


def test_a_figure_is_the_mean_over_columns_of_each_columns_own():
    scores = np.array([[1.0, 9.0], [1.0, np.nan], [4.0, 25.0]])
    assert paired(scores, scores, root=True).model == pytest.approx((math.sqrt(2) + math.sqrt(17)) / 2)
    assert paired(scores, scores, root=False).model == pytest.approx((2 + 17) / 2)
    assert paired(np.full((3, 2), np.nan), np.full((3, 2), np.nan), root=True).rows == 0


# The baselines


def test_ridge_and_logistic_regression_are_scikit_learns():
    rows = linear_rows(300)
    model, spec, _ = subject(rows)
    (numbers,) = targets_of(model, spec, "y", rows["y"])
    known = Examples(rows["x"], np.ones(4), numbers.scaled(rows["y"]))
    ridge = next(one for one in candidates(numbers) if one.name == "ridge").fit(known)
    oracle = RidgeCV(alphas=[10.0**power for power in range(-1, 5)], alpha_per_target=True).fit(rows["x"], known.truth)
    assert np.allclose(ridge(rows["x"]), oracle.predict(rows["x"]))
    (question,) = targets_of(model, spec, "label", rows["label"][:, None])
    known = Examples(rows["x"], np.ones(4), rows["label"][:, None])
    logistic = [one for one in candidates(question) if one.name == "logistic"][1].fit(known)
    assert np.array_equal(logistic(rows["x"])[:, 0], LogisticRegression(max_iter=300).fit(rows["x"], rows["label"]).predict(rows["x"]))


def test_missing_cells_are_left_out_of_a_fit():
    rows = linear_rows(300)
    model, spec, _ = subject(rows)
    y = rows["y"].copy()
    y[rng_mask := np.random.default_rng(0).random(y.shape) < 0.3] = np.nan
    y[:, 2] = rows["y"][:, 2]
    (target,) = targets_of(model, spec, "y", y)
    truth = target.scaled(y)
    ridge = next(one for one in candidates(target) if one.name == "ridge").fit(Examples(rows["x"], np.ones(4), truth))
    own = ~rng_mask[:, 0]
    oracle = RidgeCV(alphas=[10.0**power for power in range(-1, 5)]).fit(rows["x"][own], truth[own, 0])
    assert np.allclose(ridge(rows["x"])[:, 0], oracle.predict(rows["x"]))


def test_the_best_baseline_is_chosen_on_other_rows():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    x, ring = np.stack([np.cos(angle), np.sin(angle)], 1), (np.sin(3 * angle) > 0).astype(float)[:, None]
    question = ClassificationTarget(("ring",), ((0, 1),), (2,), 1)
    train, other = Examples(x[:300], np.ones(2), ring[:300]), Examples(x[300:], np.ones(2), ring[300:])
    for choosing in (None, other):
        name, predict = select_baseline(question, train, choosing)
        assert name == "neighbours"
        assert (predict(x[300:]) == ring[300:]).mean() > 0.9
    noise = rng.permutation(300)
    assert select_baseline(question, Examples(x[noise], np.ones(2), np.ones((300, 1))), None)[0] == "most frequent"


def test_missing_inputs_are_means_with_an_indicator_and_wide_modalities_are_reduced():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(500, 3)) @ rng.normal(size=(3, WIDE + 50)) + 0.1 * rng.normal(size=(500, WIDE + 50))
    narrow, label = rng.normal(5, 3, size=(500, 2)), rng.integers(0, 3, 500).astype(float)
    narrow[::2] = np.nan
    modalities = {name: {**PART, "shape": n, "likelihood": kind} for name, n, kind in
                  (("wide", WIDE + 50, "normal"), ("narrow", 2, "normal"), ("label", 3, "categorical"))}  # fmt: skip
    model = build_model(spec_from_dict({"modalities": modalities}))
    values = {"wide": wide, "narrow": narrow, "label": label[:, None]}
    blocks = blocks_of(model, values)
    inputs, factors = inputs_of(blocks, values, "label")
    kept = inputs.shape[1] - 3
    assert kept <= COMPONENTS
    assert np.isfinite(inputs).all()
    assert np.array_equal(inputs[::2, kept : kept + 2], np.zeros((250, 2)))
    assert np.allclose(inputs[1::2, kept : kept + 2].mean(0), 0)
    assert set(inputs[:, -1].tolist()) == {-0.5, 0.5}
    assert np.allclose(factors[:kept] ** 2 * kept, 1)
    one_hot, _ = inputs_of(blocks, {"wide": wide, "label": label[:, None]}, "wide")
    assert one_hot.shape == (500, 3)


def test_few_rows_and_hard_classes_warn_of_nothing():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60).astype(float)
    label[:59] = label[:59] % 2
    for size in (1, 2, 3, 60):
        known = Examples(1e3 * rng.normal(size=(size, 30)), np.ones(30), label[-size:, None])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, predict = select_baseline(ClassificationTarget(("",), ((0, 1),), (3,), 1), known, None)
            assert np.isfinite(predict(known.inputs)).all()
            numbers = RegressionTarget(("a",), np.array([0]), np.array([0]), np.zeros(1), np.ones(1), False, 1)
            _, predict = select_baseline(numbers, known, None)
            assert np.isfinite(predict(known.inputs)).all()


# Advice

RECORD = {"loss": 1.0, "terms": {}, "validation_terms": {}, "learning_rate": 1e-3, "seconds": 1.0}


def records(stage: str, epochs: int, best: int, *, validation: bool = True) -> list[EpochRecord]:
    loss = 1.0 if validation else None
    return [EpochRecord(stage=stage, epoch=n, update=10 * n, best=n <= best, validation_loss=loss, **RECORD) for n in range(1, epochs + 1)]


def test_advice_follows_from_what_was_found():
    model, spec, _ = subject(linear_rows(50))
    ridge = BaselineComparison("x", "", "rmse", 60, 0.6, 0.4, 1.0, 0.05, "worse", "ridge", 5000)
    likelihood, values = model.likelihoods["x"], np.random.default_rng(0).normal(size=(300, 4))

    def told(
        comparison: BaselineComparison = ridge, x: np.ndarray = values, rows: int = 5000, epochs: list[EpochRecord] | None = None
    ) -> str:
        return advise(comparison, likelihood, x, summarise_training(spec, rows, epochs or []))

    assert told() == (
        "a linear predictor does better: try a higher weight in the spec, or model: jmvae (nbridge compare SPEC --models bridged,jmvae "
        "measures both)"
    )
    assert told(epochs=records("joint", 10, 10)) == (
        "stage joint was still improving when it ended: set training.stages.joint.updates to 200"
    )
    assert told(epochs=records("joint", 10, 10, validation=False)) == told()
    assert told(rows=80, epochs=records("bridges", 40, 3)).startswith(
        "stage bridges overfitted its 80 training rows (best weights at update 30 of 400)"
    )
    assert told(rows=80) == "only 80 training rows for 2 latent dimensions: try latent_dim: 2, training.weight_decay: 0.01, or more rows"
    ignored = BaselineComparison("x", "", "rmse", 60, 1.0, 0.4, 1.0, 0.05, "worse", "ridge", 5000)
    assert told(ignored).startswith(
        "imputed no better than by the column mean, so the model does not use the other modalities for it: raise"
    )
    assert "its values are 0 and 1 but its likelihood is Normal: use likelihood: {type: bernoulli" in told(x=(values > 0).astype(float))
    whole = np.arange(300)[:, None] % 7 + 1.0
    assert told(x=whole).endswith("if they are classes, use likelihood: categorical with shape: 8")
    assert format_advice([("a", "do"), ("b", "do"), ("a", "do")]) == ("a, b: do",)


# Shown and kept


def test_a_verdict_is_read_as_it_was_written(tmp_path: Path):
    model, spec, splits = subject(linear_rows(200))
    verdict = compare_with_baselines(model, spec, splits)
    few = compare_with_baselines(model, spec, splits, rows=splits.test.slice(0, 5), split="test")
    for one in (verdict, few, Verdict("", reason="nothing")):
        (tmp_path / VERDICT).write_text(json.dumps(one.as_dict(), allow_nan=False))
        found = read_verdict(tmp_path / VERDICT)
        assert found is not None
        assert json.dumps(found.as_dict()) == json.dumps(one.as_dict())
    for damage in ("{", "[]", '{"modalities": 3}', json.dumps({**verdict.as_dict(), "modalities": [{"outcome": "superb"}]})):
        (tmp_path / VERDICT).write_text(damage)
        assert read_verdict(tmp_path / VERDICT) is None
    assert read_verdict(tmp_path / "none") is None


def shown(verdict: Verdict, width: int = 80) -> str:
    console = Console(width=width, record=True, markup=False, highlight=False, file=None, quiet=False)
    with console.capture() as captured:
        print_verdict(verdict, console)
    return captured.get()


def test_a_terminal_shows_figures_words_and_advice():
    model, spec, splits = subject(linear_rows(300))
    verdict = compare_with_baselines(model, spec, splits)
    lines = shown(verdict, 250).splitlines()
    assert lines[0] == f"Verdict: {verdict.headline}"
    for one in verdict.modalities:
        (line,) = [line for line in lines if line.startswith(f"│ {one.target} ")]
        assert f"{one.model:.3f}" in line
        assert f"{one.baseline:.3f} {one.predictor}" in line
        assert line.endswith("│ worse   │")
    assert [line for line in lines if line.startswith("advice: ")] == [f"advice: {line}" for line in verdict.advice]
    assert sum(line.startswith("columns worse than the baseline: ") for line in lines) == 1
    few = compare_with_baselines(model, spec, splits, rows=splits.test.slice(0, 5), split="test")
    assert shown(few, 200) == "Verdict: not tested (5 test rows, 20 needed): x, y, counts, flags, image, label\n"
    assert max(len(line) for line in shown(verdict).splitlines()) <= 80


def test_a_run_and_an_evaluation_have_the_same_verdict(tmp_path: Path):
    short = {"training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
    rows = {name: x for name, x in linear_rows(200).items() if name in ("x", "label")}
    spec = {"latent_dim": 2, "modalities": {name: {**LIKELIHOODS[name], **PART} for name in rows}, **short}
    run = nbridge.train(spec, rows)
    done = run.model.evaluate(run.splits, Settings(metrics=("predictive",), draws=3))
    assert done.verdict == run.verdict
    assert {one.outcome for one in run.verdict.modalities} == {"worse"}
    kept = Verdict("test", reason="kept in the folder")
    (tmp_path / VERDICT).write_text(json.dumps(kept.as_dict()))
    assert Run(run.model, run.spec, run.splits, tmp_path).verdict == kept
    lenient = run.model.evaluate(run.splits, Settings(metrics=("predictive",), draws=3), lenient=True)
    assert lenient.verdict is None
