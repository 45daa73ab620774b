"""Exponents of experts: a proper product for any of them, fitted on validation rows, kept with the model, and one by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model
from torch import Tensor
from torch.distributions import Independent

import nbridge
from nbridge.data.batch import Batch
from nbridge.evaluation.importance import log_likelihood
from nbridge.inference.exponents import BOUNDS, fit_exponents, reset_exponents
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE
from nbridge.nn.distributions import product_of_posteriors

SEEDS = st.integers(0, 2**31)
LOGS = st.floats(-3, 3, width=32)


@given(n=st.integers(1, 5), seed=SEEDS)
def test_exponents_of_1_are_the_plain_product_bit_for_bit(n: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    loc, log_variance = torch.randn(2, n, 7, 3, generator=generator)
    present = torch.rand(n, 7, generator=generator) < 0.6
    plain = product_of_posteriors(loc, log_variance, present)
    torch.testing.assert_close(product_of_posteriors(loc, log_variance, present, torch.ones(n, 1, 1)), plain, rtol=0, atol=0)


@given(
    variances=hnp.arrays(np.float64, (3, 1, 2), elements=st.floats(0.01, 0.9)),
    exponents=hnp.arrays(np.float64, (3, 1, 1), elements=st.floats(0.1, 4)),
    seed=SEEDS,
)
def test_tempered_experts_multiply_as_densities_do(variances: np.ndarray, exponents: np.ndarray, seed: int):
    loc = torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    log_variance, a = torch.as_tensor(variances).log(), torch.as_tensor(exponents)
    present = torch.tensor([[True], [False], [True]])
    mean, got = product_of_posteriors(loc, log_variance, present, a)
    q = torch.distributions.Normal(mean[0], (got[0] / 2).exp())
    grid = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].expand(-1, 2)
    prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    expected = (1 - a[0] - a[2]) * prior.log_prob(grid)
    for i in (0, 2):
        expected = expected + a[i] * torch.distributions.Normal(loc[i], (log_variance[i] / 2).exp()).log_prob(grid)
    difference = q.log_prob(grid) - expected
    # Two log-densities of one distribution differ by a constant.
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=1e-8, atol=1e-8)


@given(
    log_variances=hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4), st.just(2)), elements=st.floats(-80, 80, width=32)),
    data=st.data(),
)
def test_any_exponents_give_a_finite_product_with_finite_gradients(log_variances: np.ndarray, data: st.DataObject):
    log_variance = torch.as_tensor(log_variances)
    loc = torch.as_tensor(data.draw(hnp.arrays(np.float32, log_variances.shape, elements=st.floats(-10, 10, width=32))))
    logs = torch.as_tensor(data.draw(hnp.arrays(np.float32, (len(log_variances), 1, 1), elements=LOGS))).requires_grad_()
    present = torch.as_tensor(data.draw(hnp.arrays(bool, log_variances.shape[:2])))
    mean, got = product_of_posteriors(loc, log_variance, present, logs.exp())
    assert mean.isfinite().all()
    assert got.isfinite().all()
    assert (got[~present.any(0)] == 0).all()
    (mean.sum() + got.sum()).backward()
    assert logs.grad is not None
    assert logs.grad.isfinite().all()


ORACLE = LinearGaussian.random({"a": 4, "b": 4, "c": 4}, 2, 3)


def oracle_model() -> MultimodalVAE:
    return exact_model(ORACLE, objective={"distill": 1.0})


def oracle_rows(number: int, seed: int = 1) -> Batch:
    return Batch.complete({name: torch.as_tensor(x) for name, x in ORACLE.sample(number, seed).items()})


class Scaled(torch.nn.Module):
    """A fusion that is too sure of itself: the exact posterior with its evidence counted several times, where one modality speaks."""

    def __init__(self, fusion: torch.nn.Module, factor: float) -> None:
        super().__init__()
        self.fusion, self.factor, self.latent_dim = fusion, factor, 2

    def forward(self, features: dict[str, Tensor]) -> Independent:
        return self.fusion({name: h * (self.factor if name == "a" else 1.0) for name, h in features.items()})


def fitted(model: MultimodalVAE, rows: Batch, seed: int = 0) -> dict[str, float]:
    torch.manual_seed(seed)
    return fit_exponents(model, model.prepare(rows))


def test_exact_experts_keep_exponents_near_1():
    found = fitted(oracle_model(), oracle_rows(1000))
    assert found.keys() == {"a", "b", "c"}
    for value in found.values():
        assert value == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("factor", [0.25, 5.0])
def test_an_expert_that_counts_its_evidence_several_times_is_discounted_and_a_modest_one_is_sharpened(factor: float):
    model = oracle_model()
    model.fusion = Scaled(model.fusion, factor)
    found = fitted(model, oracle_rows(1000))
    assert (found["a"] < 0.7) if factor > 1 else (found["a"] > 1.4)
    # The others say what they know.
    assert found["b"] == pytest.approx(1, abs=0.35)
    assert found["c"] == pytest.approx(1, abs=0.35)


def test_modalities_that_repeat_each_other_count_less_the_more_of_them_are_given():
    loadings, offsets, noise = (dict(getattr(ORACLE, part)) for part in ("loadings", "offsets", "noise"))
    alike = dict.fromkeys(("a", "b", "c"), "a") | {"target": "b"}
    oracle = LinearGaussian(*({name: part[source] for name, source in alike.items()} for part in (loadings, offsets, noise)))
    values = oracle.sample(1500, 1)
    rows = Batch.complete({name: torch.as_tensor(values["a" if name in "abc" else name]) for name in oracle.loadings})
    model = exact_model(oracle, objective={"distill": 1.0})
    # The target alone is scored: one modality, given three times, says about it what it says once.
    model.weights.update(a=0.0, b=0.0, c=0.0)
    fitted(model, rows)
    assert model.exponents is not None
    ratio = model.exponents[2] / model.exponents[1]
    assert (ratio < 0.75).all()


def test_a_fit_is_a_function_of_its_seed_and_its_rows_alone():
    model, rows = oracle_model(), oracle_rows(60)
    first, again, other = (fitted(model, rows, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_few_rows_change_little_and_rows_without_two_modalities_change_nothing():
    model, rows = oracle_model(), oracle_rows(3)
    assert all(np.exp(BOUNDS[0]) < value < np.exp(BOUNDS[1]) for value in fitted(model, rows).values())
    assert fitted(model, rows.only("a")) == {}
    assert model.exponents is not None
    assert (model.exponents == 1).all()


def test_weights_of_importance_are_unbiased_whatever_the_exponents():
    model, rows = oracle_model(), oracle_rows(3)
    assert model.exponents is not None
    model.exponents.copy_(torch.tensor([0.6, 1.7, 1.2]))
    for given_names in (["a"], ["b", "c"]):
        part = rows.only(*given_names)
        x = {name: rows.values[name][0].numpy() for name in given_names}
        found = log_likelihood(model, part.index(torch.tensor([0])), given_names, samples=4000).log_likelihood
        assert found == pytest.approx(ORACLE.log_prob(x), abs=0.05)


def small_spec(**more: object) -> dict[str, object]:
    stages = {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}
    return {
        "latent_dim": 2, "fusion": {"hidden": [8]}, "bridges": {"hidden": [8], **more}, "training": {"batch_size": 16, "stages": stages},
        "modalities": {name: {"shape": 3, "encoder": "mlp", "likelihood": "normal", "features": 4} for name in ("a", "b", "c")},
    }  # fmt: skip


def small_rows(number: int = 120) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(number, 1))
    return {name: shared + 0.3 * rng.normal(size=(number, 3)) for name in ("a", "b", "c")}


def test_training_fits_them_by_default_and_keeps_them_with_the_model(tmp_path: Path):
    run = nbridge.train(small_spec(), small_rows(), out=tmp_path / "run")
    assert run.model.network.exponents is not None
    assert not (run.model.network.exponents == 1).all()
    torch.testing.assert_close(nbridge.load(tmp_path / "run").network.exponents, run.model.network.exponents, rtol=0, atol=0)
    again = nbridge.resume(tmp_path / "run", small_rows())
    torch.testing.assert_close(again.model.network.exponents, run.model.network.exponents, rtol=0, atol=0)


@pytest.mark.parametrize("bridges", [{"exponents": "ones"}, {"objective": "paper"}, {"combine": "mean"}])
def test_there_are_none_where_a_spec_forbids_them_or_no_product_serves(bridges: dict[str, str]):
    assert nbridge.train(small_spec(**bridges), small_rows()).model.network.exponents is None


def test_without_validation_rows_all_of_them_are_1():
    run = nbridge.train({**small_spec(), "data": {"source": "memory", "validation": 0.0}}, small_rows())
    assert run.model.network.exponents is not None
    assert (run.model.network.exponents == 1).all()


def test_a_wrong_word_is_one_line():
    with pytest.raises(nbridge.SpecError, match=r"bridges.exponents: expected 'fitted' or 'ones'"):
        nbridge.build_model(nbridge.spec.reader.spec_from_dict(small_spec(exponents="learned")))


def test_reset_puts_every_exponent_back():
    model = oracle_model()
    assert model.exponents is not None
    model.exponents.fill_(2.0)
    reset_exponents(model)
    assert (model.exponents == 1).all()


def test_what_modalities_share_by_contrast_is_not_given_up_for_likelihood():
    """Discounted experts give draws that are told from other rows less well; the more the contrast weighs, the less they are discounted."""
    found = {}
    for nats in (0.0, 2.0, 200.0):
        model = oracle_model()
        assert isinstance(model, JointVAE)
        model.contrast, model.contrast_nats = 0.1, nats
        model.fusion = Scaled(model.fusion, 5.0)
        found[nats] = fitted(model, oracle_rows(300))["a"]
    assert found[0.0] < found[2.0] < found[200.0], found


def test_a_row_is_no_negative_of_itself_however_often_it_is_drawn():
    """Of one row alone nothing can be told apart, so that the weight of a contrast is without effect."""
    rows, found = oracle_rows(1), []
    for nats in (0.0, 1e6):
        model = oracle_model()
        assert isinstance(model, JointVAE)
        model.contrast, model.contrast_nats = 0.1, nats
        found.append(fitted(model, rows))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
