"""Importance-sampled log-likelihoods against closed forms, quadrature, and sums that are written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import LinearGaussian, exact_model
from scipy import special, stats
from strategies import served
from torch import Tensor, nn
from torch.distributions import Independent

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation import weights
from nbridge.evaluation.importance import conditional_log_likelihood, label_posterior, log_likelihood, log_likelihood_rows
from nbridge.models.base import MultimodalVAE
from nbridge.models.bridged import BridgedVAE
from nbridge.nn.distributions import diagonal_normal

SIZES = {"a": 2, "b": 3, "c": 1}
NAMES = tuple(SIZES)
# Noise so large that no proposal is much narrower than a posterior it stands in for: then weights have a variance.
ORACLE = replace(LinearGaussian.random(SIZES, 2, seed=3), noise=dict.fromkeys(SIZES, 2.0))
SUBSETS = [subset for size in range(len(NAMES) + 1) for subset in combinations(NAMES, size)]
SEEDS = st.integers(0, 2**31)


@contextmanager
def in_float64() -> Iterator[None]:
    """Models, and the canonical form of their values, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class Perturbed(nn.Module):
    """A fusion whose posterior is a little off, and wider than it should be."""

    def __init__(self, fusion: nn.Module, shift: float = 0.3, stretch: float = 1.4) -> None:
        super().__init__()
        self.fusion, self.shift, self.stretch = fusion, shift, stretch
        self.latent_dim = fusion.latent_dim

    def forward(self, features: dict[str, Tensor]) -> Independent:
        q = self.fusion(features)
        return diagonal_normal(q.mean + self.shift * q.stddev, q.stddev * self.stretch)


def imperfect() -> BridgedVAE:
    model = exact_model(ORACLE)
    model.fusion = Perturbed(model.fusion)
    return model


def rows(number: int, seed: int = 5) -> Batch:
    """Rows of the oracle that float32 holds exactly: canonical values are float32."""
    return Batch.complete({name: torch.as_tensor(x, dtype=torch.float32) for name, x in ORACLE.sample(number, seed).items()})


def exact(batch: Batch, names: Iterable[str]) -> np.ndarray:
    """The closed form of log p(x_S) of each row."""
    names = list(names)
    return np.array([ORACLE.log_prob({name: batch.values[name][row].double().numpy() for name in names}) for row in range(len(batch))])


def labelled(seed: int = 0) -> tuple[MultimodalVAE, Batch]:
    """A model of one latent dimension, in which integrals are sums over a grid, and rows for it."""
    modality = {"encoder": {"type": "mlp", "hidden": [6], "batch_norm": False}}
    spec = {
        "latent_dim": 1,
        "modalities": {
            "x": {"shape": 2, "likelihood": {"type": "normal", "scale": 0.8}, **modality},
            "y": {"shape": 4, "likelihood": "categorical", **modality},
        },
    }
    model = nbridge.build_model(nbridge.Spec.model_validate(spec), seed=seed).double().eval()
    with torch.no_grad():
        for name, parameter in model.decoders.named_parameters():
            # Far from constant in z.
            parameter.mul_(3 if name.endswith("weight") else 0.3)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(seed + 1))
    return model, Batch.complete({"x": x, "y": torch.tensor([0, 1, 2, 3, 0, 1, 2])})


# The estimate


@pytest.mark.parametrize("proposal", SUBSETS, ids=lambda names: "given " + (" ".join(names) or "nothing"))
def test_the_estimate_agrees_with_the_closed_form_whatever_the_proposal_observes(proposal: tuple[str, ...]):
    model, batch = imperfect(), rows(6)
    for target in SUBSETS[1:]:
        found = log_likelihood_rows(model, batch, target, proposal, samples=5000, seed=1)
        expected = exact(batch, target)
        assert (found.target, found.proposal, found.samples) == (target, proposal, 5000)
        # Three errors for the mean, and what 42 rows may show by chance for each.
        assert (np.abs(found.log_likelihood.numpy() - expected) < 4 * found.standard_error.numpy()).all()
        whole = found.mean()
        assert abs(whole.log_likelihood - expected.mean()) < 3 * whole.standard_error
        assert 0 < whole.standard_error < 0.1


@pytest.mark.parametrize("target", SUBSETS[1:], ids=" ".join)
@pytest.mark.parametrize("samples", [1, 2, 37])
def test_the_exact_proposal_leaves_nothing_to_chance(target: tuple[str, ...], samples: int):
    batch = rows(4)
    found = log_likelihood_rows(exact_model(ORACLE), batch, target, samples=samples)
    assert found.proposal == target
    np.testing.assert_allclose(found.log_likelihood, exact(batch, target), rtol=1e-10)
    np.testing.assert_allclose(found.effective_sample_size, samples, rtol=1e-10)
    # The root of the rounding of numbers near one.
    assert found.standard_error.isnan().all() if samples == 1 else (found.standard_error < 1e-6).all()


@settings(max_examples=8)
@given(drawn=served(max_size=3), seed=SEEDS, data=st.data())
def test_the_estimate_is_the_mean_weight_of_its_draws_for_any_model(
    drawn: tuple[object, MultimodalVAE, Batch], seed: int, data: st.DataObject
):
    _, model, batch = drawn
    batch = Batch.complete(batch.values)
    target = data.draw(st.lists(st.sampled_from(model.names), min_size=1, unique=True))
    proposal = data.draw(st.lists(st.sampled_from(model.names), unique=True))
    pieces = []

    def terms(z: Tensor, part: Batch) -> Tensor:
        pieces.append(z)
        return torch.stack([model.log_prob(name, z, part) for name in target]).sum(0)

    with in_float64(), torch.no_grad():
        model.double()
        found = weights.importance_estimates(model, batch, proposal, terms, numbers=1, samples=16, seed=seed)
        z = torch.cat(pieces)
        q = model.posterior(batch.only(*proposal), 16)
        log_weights = (model.log_joint(batch.only(*target), z) - q.log_prob(z)).numpy()
    np.testing.assert_allclose(found.log_mean, special.logsumexp(log_weights, 0) - math.log(16), rtol=1e-9)
    w = np.exp(log_weights - log_weights.max(0))
    np.testing.assert_allclose(found.effective_sample_size, w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-9)
    np.testing.assert_allclose(found.error, stats.sem(w) / w.mean(0), rtol=1e-5, atol=1e-7)
    for number in (1, 10):
        np.testing.assert_allclose(found.curve[number], special.logsumexp(log_weights[:number], 0) - math.log(number), rtol=1e-9)


@settings(max_examples=10)
@given(samples=st.integers(1, 60), elements=st.integers(1, 400), draws=st.integers(1, 4), height=st.integers(1, 5), seed=SEEDS)
def test_the_estimate_does_not_depend_on_how_draws_and_rows_are_cut(samples: int, elements: int, draws: int, height: int, seed: int):
    model, batch = imperfect(), rows(5)
    whole = log_likelihood_rows(model, batch, "a", samples=samples, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "ELEMENTS", elements)
        patch.setattr(weights, "DRAWS", 16 * draws)
        patch.setattr(weights, "ROWS", height)
        cut = log_likelihood_rows(model, batch, "a", samples=samples, seed=seed)
    torch.testing.assert_close(cut.log_likelihood, whole.log_likelihood, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cut.effective_sample_size, whole.effective_sample_size, rtol=1e-10, atol=0)
    assert cut.curve.keys() == whole.curve.keys()
    for number, estimate in whole.curve.items():
        torch.testing.assert_close(cut.curve[number], estimate, rtol=1e-12, atol=1e-12)


class Stochastic(BridgedVAE):
    """A model whose posterior gives each sample its own parameters, at random."""

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        q = super().posterior(batch, samples)
        return diagonal_normal(q.mean + q.stddev * torch.randn_like(q.mean), q.stddev * (0.8 + torch.rand_like(q.mean)))


def test_a_posterior_that_differs_from_draw_to_draw_is_weighed_by_the_density_each_draw_had():
    model, batch = exact_model(ORACLE), rows(6)
    model.__class__ = Stochastic
    for target, proposal in ((NAMES, NAMES), (("a",), ("b", "c")), (("b",), ())):
        found = log_likelihood(model, batch, target, proposal, samples=5000)
        assert abs(found.log_likelihood - exact(batch, target).mean()) < 3 * found.standard_error
        assert found.effective_sample_size < 4000


# What tells how far to trust it


def test_the_curve_rises_on_average_and_ends_at_the_estimate():
    batch = rows(200)
    found = log_likelihood(imperfect(), batch, NAMES, (), samples=100)
    assert list(found.curve) == [1, 10, 100]
    assert list(found.curve.values()) == sorted(found.curve.values())
    assert found.curve[100] == found.log_likelihood
    assert found.curve[1] < found.curve[100] - 1
    assert abs(found.log_likelihood - exact(batch, NAMES).mean()) < abs(found.curve[10] - exact(batch, NAMES).mean())


@pytest.mark.parametrize(("samples", "marks"), [(1, [1]), (9, [1, 9]), (10, [1, 10]), (11, [1, 10, 11]), (100, [1, 10, 100])])
def test_the_curve_is_the_estimate_from_the_first_draws(samples: int, marks: list[int]):
    model, batch = imperfect(), rows(1)
    curve = log_likelihood(model, batch, NAMES, samples=samples).curve
    assert list(curve) == marks
    for number in marks:
        assert curve[number] == pytest.approx(log_likelihood(model, batch, NAMES, samples=number).log_likelihood, rel=1e-12)


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 119), max_size=6))
def test_the_curve_does_not_depend_on_the_blocks_of_draws(seed: int, cuts: list[int]):
    drawn = torch.randn(120, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole, cut = weights._Sums(120), weights._Sums(120)
    whole.add(drawn)
    for block in drawn.tensor_split(sorted(cuts)):
        if len(block):
            cut.add(block)
    assert [*whole.curve] == [*cut.curve] == [1, 10, 100, 120]
    for number, estimate in whole.curve.items():
        torch.testing.assert_close(estimate, drawn[:number].exp().mean(0).log())
        torch.testing.assert_close(cut.curve[number], estimate)


@pytest.mark.parametrize("estimate", [log_likelihood, partial(conditional_log_likelihood, given="b")])
def test_the_standard_error_is_the_spread_of_estimates_of_one_number(estimate: Callable[..., Any]):
    batch = rows(1)
    same = Batch.complete({name: x.expand(800, -1) for name, x in batch.values.items()})
    found = estimate(imperfect(), same, ("a", "c"), samples=100)
    # Rows differ by their draws alone. A standard deviation of 800 numbers is known to three per cent.
    assert found.standard_error == pytest.approx(found.row_error, rel=0.1)


def test_figures_over_rows_are_those_of_the_rows():
    found = log_likelihood_rows(imperfect(), rows(8), "b", "a", samples=50)
    whole = found.mean()
    assert whole.rows == 8
    assert whole.log_likelihood == pytest.approx(mean(found.log_likelihood.tolist()))
    assert whole.standard_error == pytest.approx(math.hypot(*found.standard_error.tolist()) / 8)
    assert whole.row_error == pytest.approx(stdev(found.log_likelihood.tolist()) / math.sqrt(8))
    assert whole.effective_sample_size == pytest.approx(median(found.effective_sample_size.tolist()))
    assert whole.curve == pytest.approx({number: mean(estimates.tolist()) for number, estimates in found.curve.items()})
    assert {x.dtype for x in chain(found.curve.values(), [found.log_likelihood, found.standard_error])} == {torch.float64}
    assert math.isnan(log_likelihood(imperfect(), rows(1), "b", samples=5).row_error)


# Which rows, which state


def test_only_rows_with_target_and_proposal_count_and_nothing_else_of_them_matters():
    model, batch = imperfect(), rows(9)
    present = {"a": torch.arange(9) < 6, "b": torch.arange(9) >= 2, "c": torch.arange(9) % 2 == 0}
    noise = {name: torch.where(present[name][:, None], x, torch.nan) for name, x in batch.values.items()}
    some = Batch(noise, present)
    found = log_likelihood_rows(model, some, "a", "b", samples=20)
    assert found.rows.tolist() == (present["a"] & present["b"]).tolist()
    alone = log_likelihood_rows(model, Batch.complete({name: batch.values[name][2:6] for name in "ab"}), "a", "b", samples=20)
    assert torch.equal(found.log_likelihood, alone.log_likelihood)
    assert log_likelihood(model, some, "a", (), samples=2).rows == 6


def test_draws_come_from_the_seed_alone_and_the_model_is_left_as_it_was():
    model, batch = imperfect(), rows(3)
    model.train()
    state = torch.get_rng_state()
    first = log_likelihood(model, batch, ["a", "b"], samples=30, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    torch.manual_seed(99)
    assert log_likelihood(model, batch, ["a", "b"], samples=30, seed=4) == first
    assert log_likelihood(model, batch, ["a", "b"], samples=30, seed=5).log_likelihood != first.log_likelihood


@pytest.mark.parametrize("samples", [3, 700, 40_000])
def test_what_decoders_and_posteriors_are_asked_for_at_once_does_not_grow_with_draws(samples: int):
    model, batch = exact_model(ORACLE), rows(2)
    asked, decoded = [], []
    posterior, log_prob = model.posterior, model.log_prob
    model.posterior = lambda batch, samples: asked.append(samples * len(batch)) or posterior(batch, samples)
    model.log_prob = lambda name, z, batch: decoded.append(z.shape[0] * z.shape[1]) or log_prob(name, z, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "ELEMENTS", 1000 * weights.MIN_OUTPUTS)
        log_likelihood(model, batch, "a", samples=samples)
        assert max(decoded) <= 1000
        assert max(asked) <= weights.DRAWS
        assert sum(decoded) == 2 * samples
        decoded.clear()
        patch.setattr(weights, "ELEMENTS", 1)
        log_likelihood(model, batch, "a", samples=3)
        assert decoded == [1] * 6


# Conditionals


def test_a_conditional_is_the_closed_form_one_and_keeps_both_of_its_terms():
    model, batch = imperfect(), rows(6)
    found = conditional_log_likelihood(model, batch, "a", ("b", "c"))
    values = [{name: x[row].double().numpy() for name, x in batch.values.items()} for row in range(6)]
    densities = [stats.multivariate_normal(*ORACLE.conditional("a", {name: x[name] for name in "bc"})).logpdf(x["a"]) for x in values]
    assert abs(found.log_likelihood - np.mean(densities)) < 3 * found.standard_error
    assert found.log_likelihood == pytest.approx(found.joint.log_likelihood - found.marginal.log_likelihood)
    assert found.standard_error == pytest.approx(math.hypot(found.joint.standard_error, found.marginal.standard_error))
    assert (found.joint.target, found.joint.proposal) == (NAMES, NAMES)
    assert (found.marginal.target, found.marginal.proposal) == (("b", "c"), ("b", "c"))
    assert found.joint == log_likelihood(model, batch, NAMES)


def test_both_terms_of_a_conditional_are_over_the_same_rows():
    batch = rows(6)
    some = Batch(batch.values, {"a": torch.arange(6) > 1, "b": torch.arange(6) < 5, "c": torch.arange(6) > 2})
    found = conditional_log_likelihood(imperfect(), some, "a", "b", samples=10)
    assert (found.rows, found.joint.rows, found.marginal.rows) == (3, 3, 3)
    found = conditional_log_likelihood(imperfect(), some, "a", "b", joint_proposal="c", marginal_proposal=(), samples=10)
    assert (found.rows, found.joint.rows, found.marginal.rows) == (2, 2, 2)
    assert (found.joint.proposal, found.marginal.proposal) == (("c",), ())


# Labels


@pytest.fixture
def float64() -> Iterator[None]:
    with in_float64():
        yield


@torch.no_grad()
def quadrature(model: MultimodalVAE, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """log p(y = c, x) of every class, shape (B, C), and log p(x), by a sum over a grid of z."""
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    prepared = model.prepare(batch)
    z = grid[:, None, None].expand(-1, len(batch), 1)
    log_x = model.log_prob("x", z, prepared).numpy() + stats.norm.logpdf(grid.numpy())[:, None] + math.log(18 / 4000)
    log_y = np.log(model.decoder("y")(z).probs.numpy())
    return special.logsumexp(log_x[..., None] + log_y, 0), special.logsumexp(log_x, 0)


@pytest.mark.usefixtures("float64")
def test_probabilities_of_classes_agree_with_quadrature():
    model, batch = labelled()
    found = label_posterior(model, batch, "y", "x", samples=20_000)
    log_joint, log_x = quadrature(model, batch)
    error = log_likelihood_rows(model, batch, "x", samples=20_000).standard_error.numpy()
    assert (np.abs(found.direct.numpy() - log_x) < 4 * error).all()
    np.testing.assert_allclose(found.probabilities, special.softmax(log_joint, 1), atol=0.005)
    assert found.probabilities.std(0).max() > 0.05
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("given", [("x",), ()])
def test_the_sum_over_classes_is_the_direct_estimate(given: tuple[str, ...]):
    # In float32, the networks' type: what is added up is normalised in float64.
    model, batch = labelled()
    found = label_posterior(model, batch, "y", given, samples=300)
    np.testing.assert_allclose(found.enumerated, found.direct, rtol=1e-9, atol=1e-9)
    direct = log_likelihood_rows(model, batch, "x", samples=300).log_likelihood if given else torch.zeros(7)
    np.testing.assert_allclose(found.direct, direct, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_enumeration_equals_one_estimate_for_each_class():
    model, batch = labelled()
    found = label_posterior(model, batch, "y", "x", samples=200, seed=3)
    for label in range(4):
        hard = Batch.complete({"x": batch.values["x"], "y": torch.full((7,), label)})
        brute = log_likelihood_rows(model, hard, ("x", "y"), "x", samples=200, seed=3)
        np.testing.assert_allclose(found.log_joint[:, label], brute.log_likelihood, rtol=1e-10)


def test_labels_are_scored_where_they_are_present_and_never_looked_at():
    model, batch = labelled()
    present = torch.tensor([True, False, True, True, False, True, True])
    one_hot = torch.where(present[:, None], nn.functional.one_hot(batch.values["y"], 4).float(), torch.nan)
    some = Batch({"x": batch.values["x"], "y": one_hot}, {"x": torch.arange(7) > 0, "y": present})
    found = label_posterior(model, some, "y", "x", samples=50)
    assert found.rows.tolist() == [False] + [True] * 6
    hidden = label_posterior(model, some.hide("y"), "y", "x", samples=50)
    assert torch.equal(found.probabilities, hidden.probabilities)
    assert hidden.accuracy is None
    assert hidden.log_probability is None
    true, shown = batch.values["y"][1:][present[1:]], found.probabilities[present[1:]]
    assert found.accuracy == pytest.approx((shown.argmax(1) == true).double().mean().item())
    assert found.log_probability == pytest.approx(shown[torch.arange(4), true].log().mean().item())
    unnamed = label_posterior(model, Batch({"x": some.values["x"]}, {"x": some.present["x"]}), "y", "x", samples=50)
    assert torch.equal(found.probabilities, unnamed.probabilities)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"target": ()}, "target names no modality, expected one or more"),
        ({"target": "imagee"}, "no modality 'imagee' in this model. Did you mean 'image'? Modalities: image, label"),
        ({"proposal": ("image", "lable")}, "no modality 'lable' in this model. Did you mean 'label'? Modalities: image, label"),
        ({"target": "label"}, "no row has label"),
        ({"proposal": "label"}, "no row has image, label together: label is absent from every row"),
        ({"batch": Batch.complete({"image": torch.zeros(0, 2)})}, "no rows to evaluate"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: dict, message: str):
    spec = {"modalities": {"image": {"shape": 2, "encoder": "mlp", "likelihood": "bernoulli"}}}
    spec["modalities"]["label"] = {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}
    model = nbridge.build_model(nbridge.Spec.model_validate(spec))
    batch = Batch.complete({"image": torch.zeros(3, 2)})
    with pytest.raises(DataError) as error:
        log_likelihood(**{"model": model, "batch": batch, "target": "image", **arguments})
    assert str(error.value) == message


def test_mistakes_of_conditionals_and_labels_are_told_in_one_line():
    model, batch = labelled()
    outside = Batch.complete({"x": batch.values["x"], "y": batch.values["y"] + 1})
    cases = [
        (lambda: conditional_log_likelihood(model, batch, ("x", "y"), "y"), "modality 'y' is both target and given"),
        (lambda: conditional_log_likelihood(model, batch, "x", ()), "given names no modality, expected one or more"),
        (lambda: conditional_log_likelihood(model, batch, (), "x"), "target names no modality, expected one or more"),
        (lambda: conditional_log_likelihood(model, batch, "x", "y", samples=-1), "samples is -1, expected 1 or more"),
        (lambda: label_posterior(model, batch, "x", "y"), "modality 'x' is Normal, not categorical: its values cannot be enumerated"),
        (lambda: label_posterior(model, batch, "y", ("x", "y")), "modality 'y' is both label and given"),
        (lambda: label_posterior(model, batch, "z", "x"), "no modality 'z' in this model. Modalities: x, y"),
        (lambda: label_posterior(model, batch, "y", "x", samples=0), "samples is 0, expected 1 or more"),
        (lambda: label_posterior(model, batch.hide("x"), "y", "x"), "no row has x"),
    ]
    for call, message in cases:
        with pytest.raises(DataError) as error:
            call()
        assert str(error.value) == message
    with pytest.raises(DataError, match="modality 'y', row 3: value 4 is outside the support"):
        log_likelihood(model, outside, "y", samples=2)
