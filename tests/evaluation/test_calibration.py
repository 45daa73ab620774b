"""Scores of draws and of probabilities against brute force, closed forms and an exact model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model
from scipy import stats
from sklearn.metrics import brier_score_loss
from torch import Tensor, nn

import nbridge
from nbridge.errors import DataError
from nbridge.evaluation import calibration
from nbridge.evaluation.calibration import (
    Bin,
    brier,
    coverage,
    crps,
    expected_calibration_error,
    interval_scores,
    label_calibration,
    reliability,
)
from nbridge.nn.decoders import Decoder
from nbridge.nn.likelihoods import Categorical, Normal

NUMBERS = st.floats(-100, 100, width=32)
TIED = st.integers(-3, 3).map(float)


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draws of shape (m, 3) and what came true, ties among them."""
    numbers = hnp.arrays(np.float64, (draw(st.integers(3, 9)), 3), elements=draw(st.sampled_from([NUMBERS, TIED])))
    values = torch.as_tensor(draw(numbers))
    return values[1:], values[0]


def model_of(likelihood: Any) -> nbridge.MultimodalVAE:
    """An untrained model of x, with the likelihood asked for, and y, one of four classes."""
    torch.manual_seed(0)
    modalities = {
        "x": {"shape": 2, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": likelihood},
        "y": {"shape": 4, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "categorical"},
    }
    return nbridge.build_model(nbridge.Spec.model_validate({"latent_dim": 3, "modalities": modalities})).eval()


def rows(number: int = 30) -> nbridge.Batch:
    generator = torch.Generator().manual_seed(1)
    return nbridge.Batch.complete(
        {"x": torch.randn(number, 2, generator=generator), "y": torch.randint(0, 4, (number,), generator=generator)}
    )


def blind(model: nbridge.MultimodalVAE, *raw: float) -> nbridge.MultimodalVAE:
    """The model with a decoder of x that gives the same raw numbers whatever z is."""
    last = layers_of(model, "x")[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(raw)
    return model


def layers_of(model: nbridge.MultimodalVAE, name: str) -> list[nn.Linear]:
    return [layer for layer in model.decoder(name).modules() if isinstance(layer, nn.Linear)]


def crps_of_normal(mean: np.ndarray, scale: np.ndarray | float, x: np.ndarray) -> np.ndarray:
    """Gneiting and Raftery (2007), equation 21."""
    w = (x - mean) / scale
    return scale * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / math.sqrt(math.pi))


@given(drawn())
def test_crps_equals_the_sum_over_all_pairs(example: tuple[Tensor, Tensor]):
    draws, x = example
    m = len(draws)
    error, spread = (draws - x).abs().mean(0), (draws[:, None] - draws).abs().sum((0, 1))
    torch.testing.assert_close(crps(draws, x), error - spread / (2 * m * (m - 1)))
    torch.testing.assert_close(crps(draws, x, fair=False), error - spread / (2 * m**2))


@given(drawn(), st.floats(-1e3, 1e3), st.floats(-9, 9))
def test_crps_moves_with_the_data_and_is_in_its_units(example: tuple[Tensor, Tensor], shift: float, scale: float):
    draws, x = example
    for fair in (True, False):
        expected = abs(scale) * crps(draws, x, fair=fair)
        torch.testing.assert_close(crps(scale * draws + shift, scale * x + shift, fair=fair), expected, rtol=1e-7, atol=1e-8)


@given(drawn())
def test_crps_of_a_distribution_is_never_negative_and_zero_for_the_certain_truth(example: tuple[Tensor, Tensor]):
    draws, x = example
    assert (crps(draws, x, fair=False) >= -1e-10).all()
    assert (crps(x.expand(5, 3), x) == 0).all()
    torch.testing.assert_close(crps((x + 2).expand(5, 3), x), torch.full((3,), 2.0, dtype=torch.float64))


def test_crps_of_many_draws_is_that_of_a_normal():
    rng = np.random.default_rng(0)
    x = np.array([-3.0, 0.0, 1.7, 5.0])
    draws = 1.0 + 2.0 * rng.normal(size=(200_000, 4))
    np.testing.assert_allclose(crps(torch.as_tensor(draws), torch.as_tensor(x)), crps_of_normal(np.ones(4), 2.0, x), atol=0.03)


def test_crps_of_few_draws_is_unbiased():
    rng = np.random.default_rng(0)
    draws, x = torch.as_tensor(rng.normal(size=(3, 40_000))), torch.as_tensor(np.full(40_000, 0.5))
    expected = crps_of_normal(np.zeros(1), 1.0, np.array([0.5])).item()
    error = crps(draws, x).std().item() / 200
    assert abs(crps(draws, x).mean().item() - expected) < 4 * error
    assert crps(draws, x, fair=False).mean().item() > expected + 10 * error


@given(hnp.arrays(np.float64, st.integers(2, 12), elements=TIED), st.sampled_from([0.3, 0.5, 0.9, 0.95]))
def test_values_from_one_distribution_cover_each_other_nominally(values: np.ndarray, level: float):
    """Each value in turn among the others as draws: exactly the level, for any number of draws and any ties."""
    shares = [coverage(torch.as_tensor(np.delete(values, i)), torch.as_tensor(values[i]), level).item() for i in range(len(values))]
    assert all(0 <= share <= 1 + 1e-12 for share in shares)
    assert np.mean(shares) == pytest.approx(level)


@pytest.mark.parametrize("level", calibration.LEVELS)
def test_intervals_end_at_quantiles_of_the_draws(level: float):
    rng = np.random.default_rng(0)
    draws, x = rng.normal(size=(calibration.MIN_DRAWS, 500)), 1.5 * rng.normal(size=500)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    np.testing.assert_allclose(coverage(torch.as_tensor(draws), torch.as_tensor(x), level), (low < x) & (x < high), atol=1e-12)


def test_draws_that_are_too_narrow_cover_too_little_and_wide_ones_too_much():
    rng = np.random.default_rng(0)
    draws, x = torch.as_tensor(rng.normal(size=(99, 4000))), torch.as_tensor(rng.normal(size=4000))
    for level in calibration.LEVELS:
        assert coverage(draws, x, level).mean().item() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 4000))
        for scale in (0.5, 2.0):
            exact = 2 * stats.norm.cdf(scale * stats.norm.ppf((1 + level) / 2)) - 1
            assert coverage(scale * draws, x, level).mean().item() == pytest.approx(exact, abs=0.04)


def probabilities_and_labels(number: int = 400) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    return torch.as_tensor(rng.dirichlet([0.5, 1.0, 2.0], number)), torch.as_tensor(rng.integers(0, 3, number))


def test_the_brier_score_is_that_of_scikit_learn():
    p, labels = probabilities_and_labels()
    each = [brier_score_loss(labels == c, p[:, c]) for c in range(3)]
    assert brier(p, labels) == pytest.approx(sum(each))
    assert brier(torch.eye(3), torch.arange(3)) == 0
    assert brier(torch.eye(3), torch.tensor([1, 2, 0])) == 2


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_summed_over_bins_of_confidence(bins: int):
    p, labels = probabilities_and_labels()
    confidence, right = p.max(1).values.numpy(), (p.argmax(1) == labels).numpy()
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(p, labels, bins) == pytest.approx(expected)


def test_a_bin_holds_its_upper_edge_and_the_first_bin_both():
    confidence = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0], dtype=torch.float64)
    right = torch.tensor([False, True, True, True, False])
    assert reliability(confidence, right, 4) == (
        Bin(0.0, 0.25, confidence=0.125, accuracy=0.5, count=2),
        Bin(0.25, 0.5, confidence=0.5, accuracy=1.0, count=1),
        Bin(0.75, 1.0, confidence=1.0, accuracy=0.5, count=2),
    )


ORACLE = LinearGaussian.random({"a": 3, "b": 2}, 2, seed=3)


def oracle_rows(number: int) -> nbridge.Batch:
    return nbridge.Batch.complete({name: torch.as_tensor(x) for name, x in ORACLE.sample(number, seed=4).items()})


def test_scores_of_an_exact_model_are_those_of_the_conditional_gaussian():
    batch = oracle_rows(1500)
    found = interval_scores(exact_model(ORACLE), batch, ["a"], "b")
    conditionals = [ORACLE.conditional(["b"], {"a": row}) for row in batch.values["a"].numpy()]
    x, mean, variance = batch.values["b"].numpy(), np.stack([mean for mean, _ in conditionals]), np.diag(conditionals[0][1])
    assert found.crps == pytest.approx(crps_of_normal(mean, np.sqrt(variance), x).mean(), rel=0.01)
    assert found.rmse == pytest.approx(math.sqrt(((mean - x) ** 2).mean() + variance.mean() / 100), rel=0.01)
    for level, share in found.coverage.items():
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 1500))
    assert found.rmse < 0.9 * found.marginal_rmse
    assert found.crps < 0.9 * found.marginal_crps
    assert (found.given, found.target, found.rows, found.cells) == (("a",), "b", 1500, 3000)


def test_a_model_that_is_too_sure_covers_too_little_and_scores_worse():
    batch, sure = oracle_rows(500), exact_model(ORACLE)
    honest = interval_scores(sure, batch, ["a"], "b")
    likelihood = sure.decoder("b").likelihood
    assert isinstance(likelihood, Normal)
    likelihood.scale = 0.1 * ORACLE.noise["b"]
    scores = interval_scores(sure, batch, ["a"], "b")
    assert all(scores.coverage[level] < honest.coverage[level] - 0.1 for level in calibration.LEVELS)
    assert scores.crps > 1.05 * honest.crps
    assert scores.rmse == pytest.approx(honest.rmse, rel=0.02)


def test_the_draws_are_those_of_imputation():
    model, batch = model_of("normal"), rows()
    found = interval_scores(model, batch, ["y"], "x", samples=40, seed=7)
    draws, x = nbridge.Model(model).impute(batch.hide("x"), samples=40, seed=7).values["x"], batch.values["x"]
    assert found.rmse == pytest.approx((draws.mean(0) - x).square().mean().sqrt().item(), rel=1e-5)
    assert found.crps == pytest.approx(crps(draws, x).mean().item(), rel=1e-5)
    assert found.coverage == pytest.approx({level: coverage(draws, x, level).mean().item() for level in (0.5, 0.9, 0.95)})


def test_only_observed_cells_count():
    model, batch = model_of("normal"), rows()
    cells = torch.arange(60).reshape(30, 2) % 3 > 0
    x = torch.where(cells, batch.values["x"], math.nan)
    found = interval_scores(model, nbridge.Batch({**batch.values, "x": x}, batch.present, {"x": cells}), ["y"], "x", samples=40, seed=7)
    draws = nbridge.Model(model).impute(batch.hide("x"), samples=40, seed=7).values["x"][:, cells]
    assert (found.rows, found.cells) == (30, 40)
    assert found.rmse == pytest.approx((draws.mean(0) - x[cells]).square().mean().sqrt().item(), rel=1e-5)
    assert found.crps == pytest.approx(crps(draws, x[cells]).mean().item(), rel=1e-5)

    columns = [column[kept] for column, kept in zip(x.T, cells.T, strict=True)]
    assert found.marginal_rmse == pytest.approx(math.sqrt(sum(column.var(correction=0) * len(column) for column in columns) / 40))
    others = [crps(torch.cat([column[:i], column[i + 1 :]]), column[i]).item() for column in columns for i in range(len(column))]
    assert found.marginal_crps == pytest.approx(np.mean(others))


def test_rows_in_parts_have_noise_of_their_own(monkeypatch: pytest.MonkeyPatch):
    batch = oracle_rows(400)
    whole = interval_scores(exact_model(ORACLE), batch, ["a"], "b")
    monkeypatch.setattr("nbridge.inference.impute.ELEMENTS", 10**6)
    parts = interval_scores(exact_model(ORACLE), batch, ["a"], "b")
    assert (parts.rows, parts.cells) == (400, 800)
    assert parts.crps == pytest.approx(whole.crps, rel=0.02)
    assert parts != whole
    for level in calibration.LEVELS:
        assert parts.coverage[level] == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 400))


def test_intervals_of_counts_cover_nominally_despite_ties():
    """A closed interval between quantiles of these counts would hold eight in ten where five are meant."""
    model = blind(model_of("poisson"), math.log(1.5), math.log(0.7))
    counts = np.random.default_rng(0).poisson([1.5, 0.7], (1500, 2))
    batch = nbridge.Batch.complete({"x": torch.as_tensor(counts), "y": torch.zeros(1500, dtype=torch.long)})
    found = interval_scores(model, batch, ["y"], "x", samples=50)
    for level, share in found.coverage.items():
        assert share == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 3000))
    assert found.rmse == pytest.approx(math.sqrt(found.marginal_rmse**2 + 2.2 / 2 / 50), rel=0.01)
    assert found.crps == pytest.approx(found.marginal_crps, rel=0.01)


def test_levels_that_differ_in_the_last_digit_are_ties():
    model = blind(model_of({"type": "discretized_logistic", "levels": 4}), 0.3, -0.8)
    batch = nbridge.Batch.complete({"y": torch.zeros(1500, dtype=torch.long)})
    drawn = nbridge.Model(model).impute(batch, samples=1, seed=1).values["x"][0]
    for nudge in (-1e-7, 1e-7):
        nudged = nbridge.Batch.complete({**batch.values, "x": (drawn + nudge).clamp(0, 1)})
        for level, share in interval_scores(model, nudged, ["y"], "x", samples=50).coverage.items():
            assert share == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 3000))


@torch.no_grad()
def test_label_scores_equal_their_definition():
    model, batch = model_of("normal"), rows(50)
    torch.manual_seed(7)
    p = torch.softmax(model.decoder("y").network(model.posterior(batch.only("x"), 60).sample()), -1).mean(0)
    labels = batch.values["y"]
    found = label_calibration(model, batch, ["x"], "y", samples=60, bins=10, seed=7)
    assert found.accuracy == pytest.approx((p.argmax(1) == labels).double().mean().item())
    assert found.brier == pytest.approx(brier(p, labels), rel=1e-5)
    assert found.ece == pytest.approx(expected_calibration_error(p, labels, 10), rel=1e-4)
    assert found.negative_log_likelihood == pytest.approx(-p[torch.arange(50), labels].log().mean().item(), rel=1e-5)
    assert found.majority_rate == max((labels == c).double().mean().item() for c in range(4))
    assert found.reliability == label_calibration(model, batch, ["x"], "y", samples=60, bins=10, seed=7).reliability
    assert sum(line.count for line in found.reliability) == found.rows == 50


def test_labels_may_be_one_hot():
    model, batch = model_of("normal"), rows()
    one_hot = nbridge.Batch.complete({**batch.values, "y": torch.eye(4)[batch.values["y"]]})
    assert label_calibration(model, one_hot, ["x"], "y", samples=5) == label_calibration(model, batch, ["x"], "y", samples=5)


def test_labels_drawn_from_the_predicted_probabilities_are_calibrated():
    oracle = LinearGaussian.random({"x": 3, "y": 4}, 2, seed=3)
    model, network = exact_model(oracle), nn.Linear(2, 4, dtype=torch.float64)
    network.weight.data = 3 * torch.as_tensor(oracle.loadings["y"])
    model.decoders["y"] = Decoder(network, Categorical((4,)))
    batch = nbridge.Batch.complete({"x": torch.as_tensor(oracle.sample(1500, seed=4)["x"])})
    labelled = nbridge.Batch.complete({**batch.values, "y": nbridge.Model(model).impute(batch, samples=1, seed=3).values["y"][0]})
    honest = label_calibration(model, labelled, ["x"], "y", bins=10)
    assert len(honest.reliability) > 5
    assert honest.ece < 0.04
    network.weight.data *= 4
    sure = label_calibration(model, labelled, ["x"], "y", bins=10)
    assert sure.ece > honest.ece + 0.05
    assert sure.brier > honest.brier
    assert sure.negative_log_likelihood > honest.negative_log_likelihood


def test_scores_without_anything_given_are_those_of_the_prior():
    model, batch = model_of("normal"), rows()
    found = interval_scores(model, batch.hide("y"), [], "x", samples=40, seed=7)
    draws = nbridge.Model(model).impute(batch.hide("x", "y"), samples=40, seed=7).values["x"]
    assert found.given == ()
    assert found.crps == pytest.approx(crps(draws, batch.values["x"]).mean().item(), rel=1e-5)


def test_results_can_be_written_as_json():
    model, batch = model_of("normal"), rows()
    results = [interval_scores(model, batch, ["y"], "x", samples=40), label_calibration(model, batch, ["x"], "y", samples=5)]
    assert all(json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))["rows"] == 30 for result in results)


SOME = nbridge.Batch({"x": torch.zeros(4, 2), "y": torch.zeros(4, dtype=torch.long)}, {"x": torch.arange(4) < 2, "y": torch.arange(4) >= 2})


@pytest.mark.parametrize(
    ("batch", "given", "target", "message"),
    [
        (rows(), ["y"], "xx", "no modality 'xx' in this model. Did you mean 'x'? Modalities: x, y"),
        (rows(), ["table"], "x", "no modality 'table' in this model. Modalities: x, y"),
        (rows(0), ["y"], "x", "no rows to evaluate"),
        (SOME, ["y"], "x", "no row has y, x together"),
        (rows().hide("y"), ["y"], "x", "no row has y, x together: y is absent from every row"),
        (rows().hide("x", "y"), ["y"], "x", "no row has y, x together: y, x are absent from every row"),
        (rows().hide("x"), [], "x", "no row has x"),
        (rows(), ["x", "y"], "x", "modality 'x' is both target and given"),
        (rows(), ["x"], "y", "metric interval_scores: modality 'y' has a Categorical likelihood, expected one of real values or counts"),
        (
            nbridge.Batch(rows().values, rows().present, {"x": torch.zeros(30, 2, dtype=torch.bool)}),
            ["y"],
            "x",
            "modality 'x': no observed cell in the 30 rows to evaluate",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_clear_line(batch: nbridge.Batch, given: list[str], target: str, message: str):
    with pytest.raises(DataError) as error:
        interval_scores(model_of("normal"), batch, given, target)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, batch: interval_scores(model, batch, ["y"], "x", samples=38),
            "samples is 38, expected 39 or more, which 95% intervals need",
        ),
        (
            lambda model, batch: label_calibration(model, batch, ["y"], "x"),
            "metric label_calibration: modality 'x' has a Normal likelihood, expected a categorical one",
        ),
        (lambda model, batch: label_calibration(model, batch, ["x"], "y", bins=0), "bins is 0, expected 1 or more"),
        (lambda model, batch: label_calibration(model, batch, ["x"], "y", samples=0), "samples is 0, expected 1 or more"),
        (
            lambda _, batch: interval_scores(
                model_of("bernoulli"), nbridge.Batch.complete({**batch.values, "x": torch.rand(30, 2)}), [], "x"
            ),
            "metric interval_scores: modality 'x' has a Bernoulli likelihood, expected one of real values or counts",
        ),
        (
            lambda model, batch: interval_scores(model, nbridge.Batch.complete({"x": batch.values["x"].abs() / 0}), [], "x"),
            "modality 'x', row 0: value inf is outside the support of Normal, finite numbers (30 such rows). "
            "Rescale the values or choose another likelihood.",
        ),
    ],
)
def test_options_and_likelihoods_that_cannot_be_scored_are_named(call: Callable[..., object], message: str):
    with pytest.raises(DataError) as error:
        call(model_of("normal"), rows())
    assert str(error.value) == message
