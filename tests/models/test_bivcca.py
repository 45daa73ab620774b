"""BiVCCA: the convex mix of its sources by hand, in closed form, and at its corners."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from by_hand import (
    CERTAIN,
    INCOMPLETE,
    NAMES,
    WEIGHTS,
    Parts,
    divergence,
    gaussian,
    gradients,
    log_prob,
    losses,
    rows,
    stage,
    standard_forms,
)
from hypothesis import given, settings
from oracles import LinearGaussian, exact_model, mean_loss, repeated
from scipy import stats
from strategies import SEEDS

import nbridge
from nbridge.data.batch import Batch
from nbridge.models.bivcca import BiVCCA

FACTORS = {"a": 0.5, "b": 0.6, "c": 0.7}
MIXING = {"a": 0.2, "b": 0.5, "c": 0.3}


def bivcca(log_variance: float = CERTAIN, mixing: Mapping[str, float] | None = None) -> BiVCCA:
    parts = Parts(log_variance)
    return BiVCCA(parts.encoders(), parts.decoders(), {name: parts.head() for name in NAMES}, WEIGHTS, mixing=mixing)


def terms_by_hand(model: BiVCCA, batch: Batch, mixing: Mapping[str, float], kl_weight: float) -> dict[str, float]:
    """Each source explains every modality over the rows that have both; z is its posterior's mean to 13 digits."""
    x, terms = standard_forms(batch), dict.fromkeys([*NAMES, "kl"], 0.0)
    for source, share in mixing.items():
        loc, log_var = gaussian({source: x[source]}, {source: FACTORS[source]}, CERTAIN)
        here = batch.present[source].numpy()
        if here.any():
            terms["kl"] += share * kl_weight * divergence(loc, log_var)[here].mean()
        for target in NAMES:
            both = here & batch.present[target].numpy()
            if both.any():
                terms[target] -= share * WEIGHTS[target] * log_prob(model, target, loc, batch)[both].mean()
    return terms


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
@pytest.mark.parametrize("present", [{}, INCOMPLETE, {"b": [0] * 5}])
@pytest.mark.parametrize("mixing", [MIXING, None])
def test_the_loss_mixes_what_each_source_explains(
    mixing: Mapping[str, float] | None, present: Mapping[str, list[int]], kl_weight: float
) -> None:
    model, batch = bivcca(mixing=mixing), rows(present)
    expected = terms_by_hand(model, batch, mixing or dict.fromkeys(NAMES, 1 / 3), kl_weight)
    assert losses(model, "joint", batch, kl_weight) == pytest.approx(expected, rel=1e-9)
    some = torch.stack(list(batch.present.values())).any(0)
    assert torch.equal(stage(model, "joint").rows(model.prepare(batch)), some)


@pytest.mark.parametrize("source", NAMES)
def test_with_the_whole_share_a_source_is_the_only_one_that_learns_and_its_elbo_the_loss(source: str) -> None:
    share = {name: float(name == source) for name in NAMES}
    model, batch = bivcca(mixing=share), rows()
    loc, log_var = gaussian({source: standard_forms(batch)[source]}, {source: FACTORS[source]}, CERTAIN)
    expected = {name: -WEIGHTS[name] * log_prob(model, name, loc, batch).mean() for name in NAMES} | {"kl": divergence(loc, log_var).mean()}
    assert losses(model, "joint", batch) == pytest.approx(expected, rel=1e-9)
    found = gradients(model, torch.stack(list(stage(model, "joint").loss(model.prepare(batch), {}, 1.0).values())).sum())
    reached = {tuple(name.split(".")[:2]) for name, gradient in found.items() if gradient.any()}
    assert reached == {("encoders", source), ("heads", source), *(("decoders", name) for name in NAMES)}


@settings(max_examples=5)
@given(seed=SEEDS)
def test_the_loss_is_its_closed_form_where_everything_is_gaussian(seed: int) -> None:
    oracle = LinearGaussian.random({"a": 2, "b": 3, "c": 1}, 2, seed)
    x, batch = repeated(oracle, seed)
    expected = 0.0
    for source, share in MIXING.items():
        mean, covariance = oracle.posterior({source: x[source]})
        for target, W in oracle.loadings.items():
            density = stats.norm(W @ mean + oracle.offsets[target], oracle.noise[target]).logpdf(x[target]).sum()
            expected -= share * (density - 0.5 * np.trace(W @ covariance @ W.T) / oracle.noise[target] ** 2)
        expected += share * 0.5 * (np.trace(covariance) + mean @ mean - 2 - np.linalg.slogdet(covariance)[1])
    loss, error = mean_loss(exact_model(oracle, "bivcca", mixing=MIXING), "joint", batch)
    assert loss == pytest.approx(expected, abs=5 * error)


def test_a_share_of_another_modality_or_a_sum_that_is_not_one_is_told() -> None:
    with pytest.raises(ValueError, match=r"^mixing has a, x, expected a weight for each of a, b, c$"):
        bivcca(mixing={"a": 0.5, "x": 0.5})
    with pytest.raises(ValueError, match=r"^mixing adds up to 1.1, expected 1$"):
        bivcca(mixing=MIXING | {"a": 0.3})
    part = {"shape": 2, "encoder": "mlp", "likelihood": "normal"}
    for mixing, message in (
        ({"x": 1.0}, "model: mixing has x, expected a weight for each of x, y"),
        ({"x": 0.5, "y": 0.4}, "model: mixing adds up to 0.9, expected 1"),
    ):
        spec = nbridge.Spec.model_validate({"model": {"type": "bivcca", "mixing": mixing}, "modalities": {"x": part, "y": part}})
        with pytest.raises(nbridge.SpecError) as caught:
            nbridge.build_model(spec)
        assert str(caught.value) == message


def test_shares_come_in_the_order_of_the_modalities() -> None:
    model = bivcca(mixing=dict(reversed(MIXING.items())))
    assert list(model.mixing.items()) == list(MIXING.items())
