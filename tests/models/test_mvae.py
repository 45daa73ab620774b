"""MVAE: its sub-sampled objective by hand and against the evidence, the subsets that it draws, and the VAE that it is for one modality."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from by_hand import (
    CERTAIN,
    INCOMPLETE,
    NAMES,
    WEIGHTS,
    D,
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
from hypothesis import strategies as st
from oracles import LinearGaussian, exact_model, mean_loss, repeated
from strategies import SEEDS
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.models.mvae import MVAE
from nbridge.models.vae import VAE
from nbridge.nn.distributions import diagonal_normal

FACTORS = {"a": 0.5, "b": 0.6, "c": 0.7}
EVIDENCE = [NAMES, ("a",), ("b",), ("c",)]


def mvae(log_variance: float = 0.0, random_subsets: int = 0) -> MVAE:
    parts = Parts(log_variance)
    return MVAE(parts.encoders(), parts.decoders(), {name: parts.head() for name in NAMES}, WEIGHTS, random_subsets=random_subsets)


def total(model: MVAE | VAE, batch: Batch, seed: int = 2) -> Tensor:
    torch.manual_seed(seed)
    return torch.stack(list(stage(model, "joint").loss(model.prepare(batch), {}, 0.5).values())).sum()


def product(batch: Batch, subset: tuple[str, ...], log_variance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The prior times the experts that are present, in precisions, which float64 can hold."""
    x, precision, pull = standard_forms(batch), np.ones((len(batch), D)), np.zeros((len(batch), D))
    for name in subset:
        loc, log_var = gaussian({name: x[name]}, {name: FACTORS[name]}, log_variance)
        present = batch.present[name].numpy()[:, None]
        precision, pull = precision + present * np.exp(-log_var), pull + present * np.exp(-log_var) * loc
    return pull / precision, -np.log(precision)


def terms_by_hand(model: MVAE, batch: Batch, evidence: list[tuple[str, ...]], noise: np.ndarray, kl_weight: float) -> dict[str, float]:
    """The mean ELBO of each subset over the rows that have any of it; of a modality that a row lacks nothing is counted."""
    terms = dict.fromkeys([*NAMES, "kl"], 0.0)
    for subset, epsilon in zip(evidence, noise, strict=True):
        loc, log_var = product(batch, subset)
        z = loc + np.exp(log_var / 2) * epsilon
        counts = np.any([batch.present[name].numpy() for name in subset], axis=0)
        if not counts.any():
            continue
        for name in subset:
            terms[name] -= (WEIGHTS[name] * log_prob(model, name, z, batch) * batch.present[name].numpy())[counts].mean()
        terms["kl"] += kl_weight * divergence(loc, log_var)[counts].mean()
    return terms


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
@pytest.mark.parametrize("present", [{}, INCOMPLETE, {"b": [0] * 5}, {"a": [0] * 5, "c": [0] * 5}])
def test_the_loss_adds_up_the_elbos_of_the_row_and_of_each_modality(present: Mapping[str, list[int]], kl_weight: float) -> None:
    model, batch = mvae(), rows(present)
    torch.manual_seed(1)
    noise = torch.randn(4, len(batch), D, dtype=torch.float64).numpy()
    expected = terms_by_hand(model, batch, EVIDENCE, noise, kl_weight)
    assert losses(model, "joint", batch, kl_weight, seed=1) == pytest.approx(expected, rel=1e-10)
    some = torch.stack(list(batch.present.values())).any(0)
    assert torch.equal(stage(model, "joint").rows(model.prepare(batch)), some)


class Sure(nn.Module):
    """An expert's mean, with hardly any variance: z needs no noise."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.latent_dim = head, head.latent_dim

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        q = self.head(features)
        return diagonal_normal(q.mean.clamp(-3, 3), torch.full_like(q.stddev, np.exp(CERTAIN / 2)))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_random_subsets_are_all_those_of_two_or_more_but_not_all(n: int) -> None:
    oracle = LinearGaussian.random(dict.fromkeys("abcd"[:n], 2), 2, 5)
    batch = Batch.complete({name: torch.as_tensor(x) for name, x in oracle.sample(3, 6).items()})
    model = exact_model(oracle, "mvae", random_subsets=0)
    model.heads.update({name: Sure(head) for name, head in model.heads.items()})
    fixed, found = losses(model, "joint", batch), set()
    model.random_subsets = 1
    for seed in range(60):
        drawn = losses(model, "joint", batch, seed=seed)
        found.add(tuple(name for name in batch.names if drawn[name] != pytest.approx(fixed[name], rel=1e-9)))
    assert found == {subset for size in range(2, n) for subset in itertools.combinations(batch.names, size)} or found == {()}
    assert (found == {()}) == (n == 2)


def test_random_subsets_add_their_elbos() -> None:
    model, batch, elbos = mvae(CERTAIN), rows(), {}
    for pair in itertools.combinations(NAMES, 2):
        loc, log_var = product(batch, pair, CERTAIN)
        elbos[pair] = {name: -WEIGHTS[name] * log_prob(model, name, loc, batch).mean() for name in pair}
        elbos[pair]["kl"] = 0.25 * divergence(loc, log_var).mean()
    fixed = losses(model, "joint", batch, 0.25)
    sums = [[sum(elbo.get(name, 0.0) for elbo in drawn) for name in fixed] for drawn in itertools.product(elbos.values(), repeat=2)]
    model.random_subsets = 2
    for seed in range(10):
        found = losses(model, "joint", batch, 0.25, seed=seed)
        added = [found[name] - fixed[name] for name in fixed]
        assert any(added == pytest.approx(total, rel=1e-8, abs=1e-8) for total in sums)


# Against closed forms


@settings(max_examples=5)
@given(seed=SEEDS, n=st.integers(2, 4))
def test_the_loss_is_the_evidence_of_every_subset_where_experts_are_exact(seed: int, n: int) -> None:
    oracle = LinearGaussian.random({name: 1 + i % 2 for i, name in enumerate("abcd"[:n])}, 2, seed)
    x, batch = repeated(oracle, seed)
    evidence = oracle.log_prob(x) + sum(oracle.log_prob({name: value}) for name, value in x.items())
    loss, error = mean_loss(exact_model(oracle, "mvae", random_subsets=0), "joint", batch)
    assert -loss == pytest.approx(evidence, abs=5 * error)


class WithPrior(nn.Module):
    """The product of the prior and one expert."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.latent_dim = head, head.latent_dim

    def forward(self, features: Mapping[str, Tensor]) -> Independent:
        q = self.head(features)
        precision = 1 / q.variance
        return diagonal_normal(q.mean * precision / (1 + precision), (1 + precision).rsqrt())


@pytest.mark.parametrize("name", NAMES)
def test_of_one_modality_it_is_the_vae_whose_posterior_is_the_prior_times_its_expert(name: str) -> None:
    parts, weights, batch = Parts(), {name: 3.0}, rows().select(name)
    own = {name: parts.decoders()[name]}
    encoders, head = parts.encoders([name]), parts.head()
    one, other = MVAE(encoders, own, {name: head}, weights), VAE(encoders, own, WithPrior(head), weights)
    q, expected = one.posterior(batch), other.posterior(batch)
    torch.testing.assert_close((q.mean, q.stddev), (expected.mean, expected.stddev), rtol=1e-12, atol=1e-12)
    assert losses(one, "joint", batch, 0.25, seed=2) == pytest.approx(losses(other, "joint", batch, 0.25, seed=2), rel=1e-12)
    found, wanted = (list(gradients(model, total(model, batch)).values()) for model in (one, other))
    assert len(found) == 4
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


# Rows and experts at the extremes


def test_rows_that_have_nothing_of_a_subset_give_finite_gradients() -> None:
    model, batch = mvae(), rows({"a": [0] * 5, "b": [0, 0, 0, 0, 1], "c": [0, 0, 0, 0, 0]})
    found = gradients(model, total(model, batch))
    assert all(gradient.isfinite().all() for gradient in found.values())
    reached = {name for name, gradient in found.items() if gradient.any()}
    assert {name.split(".")[1] for name in reached} == {"b"}


@pytest.mark.parametrize("log_variance", [-100.0, -10.0, 10.0, 100.0])
def test_experts_of_any_width_give_finite_losses_and_gradients(log_variance: float) -> None:
    model, batch = mvae(log_variance), rows(INCOMPLETE)
    assert all(np.isfinite(term) for term in losses(model, "joint", batch).values())
    assert all(gradient.isfinite().all() for gradient in gradients(model, total(model, batch)).values())


def test_a_modality_without_its_expert_is_told() -> None:
    parts = Parts()
    with pytest.raises(ValueError, match=r"^heads of \['a'\], expected one for each of a, b, c$"):
        MVAE(parts.encoders(), parts.decoders(), {"a": parts.head()})
