"""The VAE of one modality: which one it takes from a spec, and that nothing else has a part in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from by_hand import WEIGHTS, Parts, divergence, gaussian, log_prob, losses, rows, standard_forms

import nbridge
from nbridge.models.vae import VAE
from nbridge.training.build import build_data

MODALITIES = {
    "x": {"shape": 3, "features": 4, "encoder": {"type": "mlp", "hidden": [5]}, "likelihood": "normal", "weight": 2.0},
    "y": {"shape": 4, "features": 4, "encoder": {"type": "mlp", "hidden": [5]}, "likelihood": "categorical", "weight": 10.0},
}
TRAINING = {"batch_size": 8, "stages": {"joint": {"epochs": 2}}}
DATA = {"x": np.random.default_rng(0).normal(size=(60, 3)), "y": np.arange(60) % 4}


def spec(model: Any, modalities: Any = MODALITIES) -> nbridge.Spec:
    return nbridge.Spec.model_validate({"model": model, "latent_dim": 2, "modalities": modalities, "training": TRAINING})


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_the_loss_is_the_negative_elbo_of_the_one_modality(name: str) -> None:
    parts, batch = Parts(), rows()
    model = VAE(parts.encoders([name]), {name: parts.decoders()[name]}, parts.head(), {name: WEIGHTS[name]})
    batch = batch.select(name)
    loc, log_var = gaussian({name: standard_forms(rows())[name]}, {name: 0.5})
    torch.manual_seed(1)
    z = loc + np.exp(log_var / 2) * torch.randn(loc.shape, dtype=torch.float64).numpy()
    expected = {name: -WEIGHTS[name] * log_prob(model, name, z, batch).mean(), "kl": 0.5 * divergence(loc, log_var).mean()}
    assert losses(model, "joint", batch, 0.5, seed=1) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("model", "name"), [("vae", "x"), ({"type": "vae", "modality": "x"}, "x"), ({"type": "vae", "modality": "y"}, "y")]
)
def test_it_takes_the_first_modality_or_the_one_it_is_told_and_only_that(model: Any, name: str) -> None:
    run = nbridge.train(spec(model), DATA)
    assert run.model.names == (name,)
    assert run.splits.train.names == (name,)
    assert run.model.network.weights == {name: MODALITIES[name]["weight"]}
    alone = nbridge.train(spec("joint", {name: MODALITIES[name]}), {name: DATA[name]})
    for path, tensor in alone.model.network.state_dict().items():
        assert torch.equal(run.model.network.state_dict()[path], tensor), path


def test_without_a_weight_the_likelihood_counts_once() -> None:
    plain = {"x": {"shape": 3, "likelihood": "normal", "encoder": "mlp"}}
    assert nbridge.build_model(spec("vae", plain)).weights == {"x": 1.0}


@pytest.mark.parametrize("name", ["x", "y"])
def test_all_models_of_a_spec_see_the_same_split(name: str) -> None:
    both, one = spec("bridged"), spec({"type": "vae", "modality": name})
    holes = {**DATA, "x": np.where(np.arange(60)[:, None] % 3 == 0, np.nan, DATA["x"])}
    for of_both, of_one in zip(
        *((part.train, part.validation, part.test) for part in (build_data(s, nbridge.build_model(s), holes) for s in (both, one))),
        strict=True,
    ):
        assert of_one.names == (name,)
        assert torch.equal(of_one.present[name], of_both.present[name])
        assert torch.equal(of_one.values[name][of_one.present[name]], of_both.values[name][of_one.present[name]])


def test_a_modality_that_is_not_in_the_spec_is_told() -> None:
    with pytest.raises(nbridge.SpecError, match=r"^model: modality 'z' is not in the spec; it has x, y$"):
        nbridge.build_model(spec({"type": "vae", "modality": "z"}))


def test_several_modalities_or_another_are_refused() -> None:
    parts = Parts()
    decoders = parts.decoders()
    with pytest.raises(ValueError, match=r"^a vae has one modality, got a, b, c$"):
        VAE(parts.encoders(), decoders, parts.head())
    with pytest.raises(ValueError, match=r"^a vae has one modality, 'b', got a$"):
        VAE(parts.encoders(["a"]), {"a": decoders["a"]}, parts.head(), modality="b")


def test_rows_that_have_only_other_modalities_do_not_train_it() -> None:
    holes = {**DATA, "x": np.where(np.arange(60)[:, None] > 9, np.nan, DATA["x"])}
    run = nbridge.train(spec("vae"), holes)
    (only,) = run.model.network.stages()
    train = run.model.network.prepare(run.splits.train)
    assert torch.equal(only.rows(train), train.present["x"])
    assert 2 <= int(train.present["x"].sum()) < 10
    message = "stage joint: 1 training rows have the modalities that it needs, expected at least 2. Add rows in which they are present"
    with pytest.raises(nbridge.DataError, match=f"^{message}"):
        nbridge.train(spec("vae"), {**DATA, "x": np.where(np.arange(60)[:, None] > 0, np.nan, DATA["x"])})
