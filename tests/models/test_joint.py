"""The joint VAE: equation 7 against numbers worked out by hand and against the evidence, and the stage that other models share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from by_hand import CERTAIN, INCOMPLETE, NAMES, WEIGHTS, Parts, divergence, gaussian, log_prob, losses, rows, stage, standard_forms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model, mean_loss, repeated
from strategies import SEEDS
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.inference.weights import weigh_contrast
from nbridge.models.joint import JointVAE, contrast, contrast_by_row
from nbridge.spec.spec import Spec
from nbridge.training.build import build_model

FACTORS = {"a": 0.5, "b": 0.6, "c": 0.7}


def joint(log_variance: float = 0.0) -> JointVAE:
    parts = Parts(log_variance)
    return JointVAE(parts.encoders(), parts.decoders(), parts.head(), WEIGHTS)


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
@pytest.mark.parametrize("log_variance", [CERTAIN, 0.0])
def test_the_loss_is_equation_7(kl_weight: float, log_variance: float) -> None:
    model, batch = joint(log_variance), rows()
    loc, log_var = gaussian(standard_forms(batch), FACTORS, log_variance)
    torch.manual_seed(1)
    noise = torch.randn(loc.shape, dtype=torch.float64).numpy()
    z = loc + np.exp(log_var / 2) * noise
    expected = {name: -WEIGHTS[name] * log_prob(model, name, z, batch).mean() for name in NAMES}
    expected["kl"] = kl_weight * divergence(loc, log_var).mean()
    # Float64; the prior is in float32, where its zeros and ones are exact.
    assert losses(model, "joint", batch, kl_weight, seed=1) == pytest.approx(expected, rel=1e-10)


def test_it_learns_from_every_row_that_has_something_and_trains_all_that_it_has() -> None:
    model, batch = joint(), rows(INCOMPLETE)
    (only,) = model.stages()
    assert torch.equal(only.rows(model.prepare(batch)), torch.stack(list(batch.present.values())).any(0))
    trained = {id(parameter) for module in only.modules for parameter in module.parameters()}
    assert trained == {id(parameter) for parameter in model.parameters()}


def test_zeros_stand_for_the_features_of_what_is_absent() -> None:
    """The encoders here are linear, so that zeros in and zeros out are one."""
    model, batch = joint(), rows(INCOMPLETE)
    q = model.posterior(batch)
    loc, log_var = gaussian(standard_forms(batch), FACTORS)
    present = torch.stack(list(batch.present.values())).any(0).numpy()[:, None]
    np.testing.assert_allclose(q.mean[0].detach(), np.where(present, loc, 0), rtol=1e-10)
    np.testing.assert_allclose(q.stddev[0].detach(), np.where(present, np.exp(log_var / 2), 1), rtol=1e-10)


@settings(max_examples=5)
@given(seed=SEEDS)
def test_the_loss_is_the_evidence_where_the_posterior_is_exact(seed: int) -> None:
    oracle = LinearGaussian.random({"a": 2, "b": 3}, 2, seed)
    x, batch = repeated(oracle, seed)
    loss, error = mean_loss(exact_model(oracle, "joint"), "joint", batch)
    assert -loss == pytest.approx(oracle.log_prob(x), abs=5 * error)


def test_a_modality_that_a_batch_does_not_name_is_absent_from_its_rows() -> None:
    model, batch = joint(), rows()
    some = Batch.complete({"b": batch.values["b"]})
    assert stage(model, "joint").rows(model.prepare(some)).all()
    torch.testing.assert_close(model.posterior(some).mean, model.posterior(batch.only("b")).mean)


@given(present=hnp.arrays(bool, 7), seed=st.integers(0, 2**31))
def test_the_contrast_is_infonce_over_the_rows_that_have_both_parts(present: np.ndarray, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 7, 3, generator=generator).requires_grad_()
    rows = torch.as_tensor(present)
    found = contrast(one, other, rows)
    some = rows.nonzero()[:, 0]
    if len(some):
        similarity = F.cosine_similarity(one[some][:, None], other[some][None], dim=-1) / 0.1
        own = torch.arange(len(some))
        expected = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
    else:
        expected = torch.zeros(())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, (one, other)))


@given(seed=st.integers(0, 2**31))
def test_the_contrast_of_draws_against_one_target_is_that_of_each_draw(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    draws, target = torch.randn(4, 7, 3, generator=generator), torch.randn(7, 3, generator=generator)
    rows = torch.ones(7, dtype=torch.bool)
    expected = [contrast(draw, target, rows) for draw in draws]
    torch.testing.assert_close(contrast_by_row(draws, target).mean(-1), torch.stack(expected))


@pytest.mark.parametrize(("number", "share"), [(500, 0.0), (2_500, 0.25), (5_000, 1.0), (6_000, 1.0)])
def test_the_contrast_weighs_a_share_of_the_nats_of_a_row_and_less_where_rows_are_few(number: int, share: float) -> None:
    """Standard normal values have half of log(2 pi e) nats each; rows with one modality cannot be compared; few rows leave it out."""
    generator = torch.Generator().manual_seed(0)
    values = {"x": torch.randn(number + 100, 3, generator=generator), "y": torch.randn(number + 100, 2, generator=generator)}
    both = torch.arange(number + 100) < number
    views = {name: {"shape": x.shape[1], "encoder": "mlp", "likelihood": "normal"} for name, x in values.items()}
    model = build_model(Spec.model_validate({"modalities": views, "model": {"type": "bridged", "contrast": 3.0}}))
    assert isinstance(model, JointVAE)
    weigh_contrast(model, Batch(values, {"x": torch.ones_like(both), "y": both}))
    assert model.contrast_nats == pytest.approx(share * 2 * math.sqrt(6) * math.log(2 * math.pi * math.e) / 2, rel=0.05)
