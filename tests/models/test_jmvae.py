"""JMVAE: its divergences by hand and between exact Gaussians, and the joint VAE that it is without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import CERTAIN, NAMES, WEIGHTS, Parts, divergence, gaussian, gradients, log_prob, losses, rows, stage, standard_forms
from hypothesis import given, settings
from oracles import LinearGaussian, exact_model
from strategies import SEEDS

import nbridge
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.jmvae import JMVAE
from nbridge.models.retrofit import InferenceNetwork

# The order in which they are made here is the one in which the library gives them.
SUBSETS = (("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"))
JOINT = {"a": 0.5, "b": 0.6, "c": 0.7}
FACTORS = {
    ("a",): {"a": 0.8}, ("b",): {"b": 0.9}, ("c",): {"c": 1.0},
    ("a", "b"): {"a": 1.1, "b": 1.2}, ("a", "c"): {"a": 1.3, "c": 1.4}, ("b", "c"): {"b": 1.5, "c": 1.6},
}  # fmt: skip


def jmvae(alpha: float, log_variance: float = CERTAIN) -> JMVAE:
    parts = Parts(log_variance)
    encoders = parts.encoders()
    networks = {subset: InferenceNetwork(parts.encoders(subset), parts.head()) for subset in SUBSETS}
    return JMVAE(encoders, parts.decoders(), parts.head(), networks, WEIGHTS, alpha=alpha)


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_the_loss_is_the_joint_one_and_alpha_times_every_divergence(alpha: float, kl_weight: float) -> None:
    model, batch = jmvae(alpha), rows()
    x = standard_forms(batch)
    loc, log_var = gaussian(x, JOINT, CERTAIN)
    expected = {name: -WEIGHTS[name] * log_prob(model, name, loc, batch).mean() for name in NAMES}
    expected["kl"] = kl_weight * divergence(loc, log_var).mean()
    expected["subsets.divergence"] = alpha * sum(divergence(loc, log_var, *gaussian(x, FACTORS[s], CERTAIN)).mean() for s in SUBSETS)
    # z is the posterior's mean to 13 digits.
    assert losses(model, "joint", batch, kl_weight) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_divergences_are_those_of_exact_gaussians(seed: int) -> None:
    oracle = LinearGaussian.random({"a": 2, "b": 1, "c": 3}, 2, seed)
    x = {name: value.astype(np.float32).astype(np.float64) for name, value in oracle.sample(4, seed + 1).items()}
    batch = Batch.complete({name: torch.as_tensor(value) for name, value in x.items()})
    expected = 0.0
    for row in range(4):
        mean, covariance = oracle.posterior({name: value[row] for name, value in x.items()})
        for subset in SUBSETS:
            other_mean, other = oracle.posterior({name: x[name][row] for name in subset})
            gap, precision = other_mean - mean, np.linalg.inv(other)
            determinants = np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]
            expected += 0.5 * (np.trace(precision @ covariance) + gap @ precision @ gap - 2 + determinants) / 4
    found = losses(exact_model(oracle, "jmvae", alpha=0.5), "joint", batch)["subsets.divergence"]
    assert found == pytest.approx(0.5 * expected, rel=1e-8)


def test_the_divergence_reaches_the_joint_encoder_and_the_networks_but_no_decoder() -> None:
    model = jmvae(1.0, 0.0)
    terms = stage(model, "joint").loss(model.prepare(rows()), {}, 1.0)
    reached = {name.split(".")[0] for name, gradient in gradients(model, terms["subsets.divergence"]).items() if gradient.any()}
    assert reached == {"encoders", "fusion", "networks"}


def test_with_alpha_0_it_is_the_joint_vae_bit_for_bit() -> None:
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [5]}}
    spec = {
        "latent_dim": 2,
        "modalities": {
            "x": {"shape": 3, "likelihood": "normal", "weight": 1, **part},
            "y": {"shape": 4, "likelihood": "categorical", "weight": 1, **part},
        },
        "training": {"batch_size": 8, "weight_decay": 0.1, "gradient_clip": 1.0, "stages": {"joint": {"epochs": 3}}},
    }
    data = {"x": np.random.default_rng(0).normal(size=(60, 3)), "y": np.arange(60) % 4}
    joint = nbridge.train({**spec, "model": "joint"}, data).model
    jmvae = nbridge.train({**spec, "model": {"type": "jmvae", "alpha": 0}}, data).model
    other = nbridge.train({**spec, "model": {"type": "jmvae", "alpha": 1e-3}}, data).model
    found = jmvae.network.state_dict()
    for name, tensor in joint.network.state_dict().items():
        assert torch.equal(found[name], tensor), name
    assert any(not torch.equal(other.network.state_dict()[name], tensor) for name, tensor in joint.network.state_dict().items())


def test_with_alpha_0_a_network_learns_from_rows_of_its_subset_alone() -> None:
    seen = Patterns(NAMES, {"110": 3})
    assert jmvae(0).supports_pattern("110", seen)
    assert not jmvae(0).supports_pattern("100", seen)
    assert jmvae(1).supports_pattern("100", seen)


def test_a_subset_without_its_network_is_told() -> None:
    parts = Parts()
    network = InferenceNetwork(parts.encoders(["a"]), parts.head())
    decoders = {name: decoder for name, decoder in parts.decoders().items() if name != "c"}
    message = r"^networks of \[\('a',\)\], expected one for each of \[\('a',\), \('b',\)\]$"
    with pytest.raises(ValueError, match=message):
        JMVAE(parts.encoders(["a", "b"]), decoders, parts.head(), {("a",): network})
