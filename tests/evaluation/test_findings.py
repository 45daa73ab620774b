"""Warnings about a model: flagged where theory says so, over seeds, and nowhere else; that they reach the log and the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles import LinearGaussian, exact_model
from scipy import stats
from torch import nn

import nbridge
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.evaluation.findings import MIN_ROWS, condition_test, evaluation_findings, inactive_units, model_findings, untested
from nbridge.evaluation.results import Settings
from nbridge.inference.impute import ELEMENTS
from nbridge.models.base import MultimodalVAE
from nbridge.nn.decoders import Decoder
from nbridge.nn.likelihoods import (
    LOG_RATE,
    LOG_SCALE,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear(columns: dict[str, list[int]], latent_dim: int, noise: float = 0.7) -> LinearGaussian:
    """Modalities of three numbers, each of which depends on some columns of z."""
    rng = np.random.default_rng(0)
    loadings = {}
    for name, loaded in columns.items():
        W = np.zeros((3, latent_dim))
        W[:, loaded] = np.linalg.qr(rng.normal(size=(3, 3)))[0][:, : len(loaded)] * 1.2
        loadings[name] = W
    return LinearGaussian(loadings, {name: rng.normal(size=3) for name in columns}, dict.fromkeys(columns, noise))


def batch_of(oracle: LinearGaussian, rows: int, seed: int) -> Batch:
    return Batch.complete({name: torch.as_tensor(x) for name, x in oracle.sample(rows, seed).items()})


# A modality at chance

ONE_APART = linear({"a": [0], "b": [0], "c": [1]}, 2)


@pytest.mark.usefixtures("double")
def test_a_modality_that_is_independent_of_the_others_is_at_chance_and_no_other_is():
    model = exact_model(ONE_APART, "mvae")
    flagged = []
    for seed in range(40):
        rows = batch_of(ONE_APART, 200, seed)
        tests = {name: condition_test(model, rows, name, seed=seed) for name in "abc"}
        assert not tests["a"].at_chance
        assert not tests["b"].at_chance
        flagged.append(tests["c"].at_chance)
    # By chance a gain of two standard errors, or as many wins, is there in a few per cent of all samples.
    assert np.mean(flagged) >= 0.9


@pytest.mark.usefixtures("double")
def test_a_model_that_listens_to_what_tells_nothing_is_at_chance_too():
    oracle = linear({"a": [0], "b": [0]}, 1)
    model, flagged = exact_model(oracle, "mvae"), []
    for seed in range(40):
        rows = batch_of(oracle, 200, seed)
        shuffled = rows.values["b"][torch.randperm(200, generator=torch.Generator().manual_seed(seed))]
        flagged.append(condition_test(model, Batch.complete({**rows.values, "b": shuffled}), "a", seed=seed).at_chance)
    assert np.mean(flagged) >= 0.9


@pytest.mark.usefixtures("double")
def test_the_gain_is_that_of_the_closed_form():
    oracle, rows, draws = linear({"a": [0], "b": [0]}, 1), 40, 4000
    x = oracle.sample(rows, 3)
    done = condition_test(exact_model(oracle, "mvae"), Batch.complete({k: torch.as_tensor(v) for k, v in x.items()}), "a", samples=draws)

    def log_prob(row: int, given: int) -> float:
        mean, covariance = oracle.conditional(["a"], {"b": x["b"][given]})
        return float(stats.multivariate_normal(mean, covariance).logpdf(x["a"][row]))

    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    gains = []
    for part in order.split(ELEMENTS // (draws * 128) // 2 * 2):
        for b, c in part.reshape(2, -1).T.tolist():
            gains.append((log_prob(b, b) + log_prob(c, c) - log_prob(b, c) - log_prob(c, b)) / 2)
    assert done.pairs == len(gains) == rows // 2
    assert done.gain == pytest.approx(np.mean(gains), rel=0.05)
    assert done.standard_error == pytest.approx(np.std(gains, ddof=1) / math.sqrt(len(gains)), rel=0.1)
    # A pair whose gain is near zero may fall on either side.
    assert done.wins == pytest.approx(np.mean(np.array(gains) > 0), abs=0.06)


@pytest.mark.usefixtures("double")
def test_whatever_else_a_row_has_is_the_condition_and_rows_that_have_nothing_else_do_not_count():
    model, rows = exact_model(ONE_APART, "mvae"), batch_of(ONE_APART, 200, 0)
    nothing_else = torch.arange(200) < 60
    masks = {name: rows.present[name] & (~nothing_else | (name == "a")) for name in "abc"}
    assert condition_test(model, Batch(rows.values, masks), "a").pairs == 70
    junk = {name: torch.where(masks[name][:, None], x, torch.nan) for name, x in rows.values.items()}
    assert condition_test(model, Batch(junk, masks), "a") == condition_test(model, Batch(rows.values, masks), "a")
    few = rows.slice(0, MIN_ROWS - 2)
    assert condition_test(model, few, "a") is None
    same = Batch.complete({**rows.values, "a": torch.ones_like(rows.values["a"])})
    assert condition_test(model, same, "a") is None


def test_a_decoder_that_does_not_look_at_z_is_at_chance_with_no_gain_at_all():
    spec = {"modalities": {name: {"shape": 3, "encoder": "mlp", "likelihood": "categorical"} for name in ("x", "y")}}
    model = nbridge.build_model(nbridge.Spec.model_validate(spec)).eval()
    for parameter in model.decoder("x").network.parameters():
        nn.init.zeros_(parameter)
    rows = Batch.complete({"x": torch.arange(60) % 3, "y": torch.arange(60) % 3})
    done = condition_test(model, rows, "x")
    assert (done.gain, done.differing, done.at_chance) == (0.0, 0, True)


# Latent units


@pytest.mark.usefixtures("double")
def test_units_that_no_modality_depends_on_are_inactive():
    oracle = linear({"a": [0], "b": [0, 3]}, 5)
    model, rows = exact_model(oracle, "mvae"), batch_of(oracle, 100, 1)
    assert inactive_units(model, rows) == [1, 2, 4]
    (finding,) = [one for one in model_findings(model, rows) if one.kind == "inactive"]
    assert finding.text == (
        "3 of 5 latent units are inactive (their posterior mean varies by less than 0.01 over 100 rows); latent_dim: 2 would be enough"
    )
    assert finding.details == {"inactive": [1, 2, 4], "of": 5, "rows": 100}
    assert not [one for one in model_findings(model, rows.slice(0, MIN_ROWS - 1)) if one.kind == "inactive"]
    few = linear({"a": [0], "b": [0, 1]}, 3)
    assert inactive_units(exact_model(few, "mvae"), batch_of(few, 100, 1)) == [2]
    assert not [one for one in model_findings(exact_model(few, "mvae"), batch_of(few, 100, 1)) if one.kind == "inactive"]


@pytest.mark.usefixtures("double")
def test_a_unit_is_inactive_by_the_variance_of_its_posterior_mean():
    # For x = w z + noise of unit variance, that variance is w^2 / (1 + w^2).
    for w, inactive in ((0.09, [0]), (0.12, [])):
        oracle = LinearGaussian({"a": np.array([[w]])}, {"a": np.zeros(1)}, {"a": 1.0})
        assert inactive_units(exact_model(oracle, "mvae"), batch_of(oracle, 4000, 0)) == inactive


# Likelihoods at an edge


def edges(likelihood: Likelihood, raw: torch.Tensor, x: torch.Tensor) -> list[str]:
    return [edge.text for edge in likelihood.bound_warnings(raw, x, torch.ones_like(x, dtype=torch.bool))]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [Normal, Laplace])
def test_zeros_and_ones_under_a_density_are_told(kind: type[Normal] | type[Laplace]):
    x = (drawn(50, 4) > 0).float()
    (text,) = edges(kind((4,)), drawn(50, 4), x)
    assert text == "100% of its values are exactly 0 or 1, where a narrowing density grows without bound; use bernoulli"
    assert edges(kind((4,)), drawn(50, 4), x + 0.1 * drawn(50, 4, seed=1)) == []
    assert edges(kind((4,)), drawn(50, 4), torch.zeros(50, 4)) == []


def test_a_learned_spread_at_its_floor_is_told():
    for likelihood in (Normal((4,)), Laplace((4,))):
        assert edges(likelihood, drawn(50, 4), drawn(50, 4)) == []
        with torch.no_grad():
            likelihood.log_scale[:3] = LOG_SCALE[0] - 1
        assert edges(likelihood, drawn(50, 4), drawn(50, 4)) == [
            "the learned scale of 3 of 4 elements is at its lower bound, 0.00091; remove constant elements, or set scale to a number"
        ]
    image = DiscretizedLogistic((3, 2, 2))
    with torch.no_grad():
        image.log_scale[1] = -9.0
    x = torch.rand(50, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert edges(image, drawn(50, 3, 2, 2), x) == [
        "the learned scale of 1 of 3 channels is at its lower bound, 0.00091; remove constant channels"
    ]


def test_predicted_spreads_at_a_bound_are_told():
    likelihood, raw = Normal((4,), scale="predicted"), drawn(50, 8)
    assert edges(likelihood, raw, drawn(50, 4)) == []
    raw[:, 4] = -20.0
    assert edges(likelihood, raw, drawn(50, 4)) == [
        "25% of its predicted scales are at their bounds, 0.00091 and 1.1e+03 units; use scale: learned, or a number"
    ]


def test_counts_at_their_clamps_are_told():
    x = torch.poisson(torch.ones(50, 4), generator=torch.Generator().manual_seed(0))
    for likelihood in (Poisson((4,)), NegativeBinomial((4,))):
        assert edges(likelihood, drawn(50, 4), x) == []
        assert edges(likelihood, torch.full((50, 4), LOG_RATE[1] + 3), x) == [
            "100% of its predicted rates are at their bounds, 3.1e-07 and 3.3e+06 units; "
            "check for extreme counts and for elements that are always 0"
        ]
    with torch.no_grad():
        likelihood.log_dispersion[0] = LOG_RATE[1]
    assert edges(likelihood, drawn(50, 4), x) == [
        "the dispersion of 1 of 4 elements is at its upper bound, 3.3e+06; if it is the upper bound, use poisson"
    ]


def test_certain_and_wrong_probabilities_are_told_and_certain_and_right_ones_are_not():
    likelihood, x = Bernoulli((4,)), (drawn(50, 4) > 0).float()
    certain = 100 * (2 * x - 1)
    assert edges(likelihood, certain, x) == []
    certain[:5] *= -1
    assert edges(likelihood, certain, x) == [
        "10.0% of its values are predicted wrongly with a probability within 3e-07 of 0 or 1, costing 15 nats or more each; "
        "lower training.learning_rate, or set training.gradient_clip"
    ]


def test_values_at_the_ends_of_a_support_are_told_but_not_where_they_belong():
    x = (drawn(50, 1, 4, 4) > 0).float()
    assert edges(DiscretizedLogistic((1, 4, 4)), drawn(50, 1, 4, 4), x) == [
        "100% of its values are exactly 0 or 1, at an end of the support; if they are binary, use bernoulli"
    ]
    assert edges(DiscretizedLogistic((1, 4, 4)), drawn(50, 1, 4, 4), x.clamp(0.2, 1)) == []
    assert edges(Bernoulli((1, 4, 4)), drawn(50, 1, 4, 4), x) == []
    assert edges(Poisson((4,)), drawn(50, 4), torch.zeros(50, 4)) == []
    assert edges(Categorical((4,)), drawn(50, 4), torch.zeros(50, dtype=torch.long)) == []


def test_cells_that_are_not_observed_do_not_count():
    x, observed = drawn(50, 4), torch.zeros(50, 4, dtype=torch.bool)
    observed[:, 0] = True
    x[:, 0] = (x[:, 0] > 0).float()
    assert len(list(Normal((4,)).bound_warnings(drawn(50, 4), x, observed))) == 1
    assert list(Normal((4,)).bound_warnings(drawn(50, 4), x, torch.zeros_like(observed))) == []


# All of them


def trap() -> tuple[MultimodalVAE, Batch]:
    """A model with a modality apart, with zeros and ones under a normal likelihood in it."""
    oracle = linear({"a": [0], "b": [0], "c": [1]}, 2)
    rows = batch_of(oracle, 200, 0)
    model = exact_model(oracle, "mvae")
    binary = Batch.complete({**rows.values, "c": (rows.values["c"] > 0).double()})
    return model, binary


@pytest.mark.usefixtures("double")
def test_findings_are_lines_with_the_figures_behind_them():
    model, rows = trap()
    present = {**rows.present, "a": torch.arange(200) >= 12}
    train = Batch(rows.values, {**rows.present, "a": torch.arange(200) < 10, "b": torch.arange(200) >= 10})
    found = evaluation_findings(model, Batch(rows.values, present), train)
    assert [(one.kind, one.where) for one in found] == [("apart", "a,b"), ("pattern", ""), ("chance", "c"), ("edge", "c")]
    apart, pattern, chance, edge = found
    assert apart.text.endswith("c, observed with each of them, serves instead")
    assert pattern.text == (
        "rows with everything observed: 188 rows; no training row had this pattern (nor these modalities together with others)"
    )
    figures = chance.details
    assert chance.text == (
        f"modality 'c': imputation from the others is at chance, {figures['gain']:.2g} ± {figures['standard error']:.2g} nats better than "
        "from the others of another row (100 pairs of rows); raise its weight in the spec, unless they carry no information about it"
    )
    assert edge.text.startswith("modality 'c': 100% of its values are exactly 0 or 1, ")
    assert all("\n" not in one.text for one in found)
    assert [Finding.from_dict(one.as_dict()) for one in found] == list(found)
    assert evaluation_findings(model, Batch(rows.values, present), train) == found


@pytest.mark.usefixtures("double")
def test_looking_for_them_leaves_no_trace():
    model, rows = trap()
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model_findings(model, rows)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Proud(Normal):
    """A likelihood of somebody else, with something to say."""

    def bound_warnings(self, raw: torch.Tensor, x: torch.Tensor, observed: torch.Tensor) -> Any:
        from nbridge.nn.likelihoods import BoundWarning

        yield from super().bound_warnings(raw, x, observed)
        yield BoundWarning("it is proud of itself", {"pride": 1.0})


@pytest.mark.usefixtures("double")
def test_a_likelihood_of_ones_own_takes_part():
    model, rows = trap()
    model.decoders["a"] = Decoder(model.decoder("a").network, Proud((3,), scale=0.7, standardize=False))
    (finding,) = [one for one in model_findings(model, rows) if one.where == "a"]
    assert (finding.kind, finding.text, finding.details) == ("edge", "modality 'a': it is proud of itself", {"pride": 1.0})


def test_a_trained_model_tells_which_of_its_modalities_is_apart():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 1))
    part = {"encoder": {"type": "mlp", "hidden": [16]}, "features": 8}
    spec = {
        "latent_dim": 4,
        "modalities": {
            "x": {"shape": 3, "likelihood": "normal", **part},
            "y": {"shape": 2, "likelihood": "normal", **part},
            "label": {"shape": 3, "likelihood": "categorical", **part},
        },
        "fusion": {"hidden": [16]},
        "bridges": {"hidden": [16]},
        "training": {"batch_size": 64, "learning_rate": 0.01, "stages": {"joint": {"epochs": 15}, "bridges": {"epochs": 10}}},
    }
    rows = {
        "x": z + 0.3 * rng.normal(size=(600, 3)),
        "y": -z + 0.3 * rng.normal(size=(600, 2)),
        "label": rng.integers(0, 3, 600),
    }
    run = nbridge.train(spec, rows)
    done = run.model.evaluate(run.splits, Settings(metrics=("predictive",), draws=20))
    assert [one.where for one in done.warnings if one.kind == "chance"] == ["label"]
    assert run.model.patterns == Patterns(("x", "y", "label"), {"111": len(run.splits.train)})


# What is not tested


@pytest.mark.usefixtures("double")
def test_what_too_few_rows_leave_open_is_said_and_nothing_else_is():
    model, rows = exact_model(ONE_APART, "mvae"), batch_of(ONE_APART, 200, 0)
    assert untested(model, rows) == ()
    assert untested(model, rows.slice(0, MIN_ROWS)) == ()
    few = rows.slice(0, MIN_ROWS - 1)
    (finding,) = untested(model, few)
    assert finding.line == (
        "note: not tested, fewer than 30 rows: whether it is at chance given the others (a, b, c: 29 rows); inactive latent units "
        "(29 rows); values at the edge of a likelihood (a, b, c: 29 rows)"
    )
    assert model_findings(model, few) == (finding,)
    masks = {**rows.present, "a": torch.arange(200) < 12, "b": torch.arange(200) >= 199}
    (finding,) = [one for one in evaluation_findings(model, Batch(rows.values, masks), rows) if one.kind == "untested"]
    assert finding.text == (
        "not tested, fewer than 30 rows: whether it is at chance given the others (a: 12 rows; b: 1 row; c: 13 rows); "
        "values at the edge of a likelihood (a: 12 rows; b: 1 row)"
    )
    assert finding.details["values at the edge of a likelihood"] == {"a": 12, "b": 1}
    unnamed = rows.select("a", "b")
    assert untested(model, unnamed)[0].details == {
        "whether it is at chance given the others": {"c": 0}, "values at the edge of a likelihood": {"c": 0}
    }  # fmt: skip
