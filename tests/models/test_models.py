"""What holds for all models alike: the conformance suite, exactness where exactness is possible, one word in a spec, runs that go on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import EXACT, LinearGaussian, exact_model
from strategies import MODELS, SEEDS, rows_of

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import SpecError
from nbridge.spec.reader import parse_spec, spec_from_dict, write_spec
from nbridge.testing import check_model
from nbridge.training.build import build_model
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.trainer import TrainingState, fit

MODALITIES = {
    "image": {"shape": [1, 3, 4], "features": 4, "encoder": {"type": "conv", "channels": [3]}, "likelihood": "bernoulli"},
    "label": {"shape": 4, "features": 3, "encoder": {"type": "embedding", "embedding_dim": 2}, "likelihood": "categorical", "weight": 10},
    "genes": {"shape": 3, "features": 4, "encoder": {"type": "mlp", "hidden": [5]}, "likelihood": "negative_binomial"},
    "size": {"shape": 2, "features": 4, "encoder": {"type": "mlp", "hidden": []}, "likelihood": {"type": "normal", "scale": "predicted"}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"model": name} for name in MODELS},
    "bridged, paper": {"bridges": {"objective": "paper"}},
    "bridged, all terms": {"bridges": {"objective": {"elbo": 1, "distill": 1, "match": 1, "cross": 1}, "combine": "mean"}},
    "bridged, own encoders": {"bridges": {"encoders": "own"}},
    "flow, own encoders": {"bridges": {"type": "flow", "encoders": "own"}},
    "vae of the label": {"model": {"type": "vae", "modality": "label"}},
    "jmvae, alpha 0": {"model": {"type": "jmvae", "alpha": 0}},
    "telbo, one stage": {"model": {"type": "telbo", "one_stage": True}},
    "mvae, three subsets": {"model": {"type": "mvae", "random_subsets": 3}},
}
ROWS = 60


def spec_of(variant: str, n: int = 3, **training: Any) -> dict[str, Any]:
    """A spec that differs from that of another variant in a word or two; its settings for bridges and for all stages stay."""
    chosen = VARIANTS[variant].get("bridges", {})
    bridges = {"width": 5, **chosen} if chosen.get("type") == "flow" else {"hidden": [5], **chosen}
    stages = {"joint": {"epochs": 2}, "bridges": {"epochs": 2, "learning_rate": 0.01}, "subsets": {"epochs": 2}}
    return {
        "model": VARIANTS[variant].get("model", "bridged"),
        "latent_dim": 3,
        "modalities": dict(list(MODALITIES.items())[:n]),
        "fusion": {"hidden": [6]},
        "bridges": bridges,
        "training": {"batch_size": 16, "stages": stages, **training},
    }


def data(n: int = 3) -> dict[str, np.ndarray]:
    """Rows in which the label has a say in everything, and some of which lack their image or their label."""
    rng = np.random.default_rng(0)
    label = rng.integers(4, size=ROWS).astype(float)
    values = {
        "image": (rng.random((ROWS, 1, 3, 4)) < (1 + label[:, None, None, None]) / 6).astype(float),
        "label": np.where(np.arange(ROWS) % 6 == 0, np.nan, label),
        "genes": rng.poisson(1 + label[:, None], (ROWS, 3)).astype(float),
        "size": label[:, None] + rng.normal(size=(ROWS, 2)),
    }
    values["image"][np.arange(ROWS) % 7 == 0] = np.nan
    return dict(list(values.items())[:n])


def build(variant: str, n: int = 3) -> nbridge.MultimodalVAE:
    torch.manual_seed(0)
    return nbridge.build_model(spec_from_dict(spec_of(variant, n)))


@pytest.mark.parametrize(("variant", "n"), [*((variant, 3) for variant in VARIANTS), *((model, 4) for model in MODELS)])
def test_every_model_conforms(variant: str, n: int) -> None:
    check_model(build(variant, n))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_a_single_modality_conforms_and_has_one_stage(model: str) -> None:
    modalities = {"label": MODALITIES["label"]}
    built = nbridge.build_model(spec_from_dict({**spec_of(model), "modalities": modalities}))
    check_model(built)
    assert [stage.name for stage in built.stages()] == ["joint"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_spec_says_of_weights_and_options_reaches_the_model(variant: str) -> None:
    model, component = build(variant), spec_from_dict(spec_of(variant)).model
    assert model.weights == {name: MODALITIES[name].get("weight", 1.0) for name in model.names}
    off, on = {"coupling": 0.0, "leave_one_out": 0.0, "contrast": 0.0}, {"coupling": 1.0, "leave_one_out": 0.3, "contrast": 0.07}
    settled = off if variant == "bridged, paper" else on
    options = {name: value for name, value in component.kwargs.items() if name not in ("modality", "mixing")}
    options = {name: settled[name] if value == "auto" else value for name, value in options.items()}
    assert {name: getattr(model, name) for name in options} == options


# Exactness

sizes = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=6)
@given(sizes=sizes, latent_dim=st.integers(1, 3), seed=SEEDS, data=st.data())
def test_the_posterior_and_the_evidence_of_a_linear_gaussian_model_are_exact(
    kind: str, sizes: list[int], latent_dim: int, seed: int, data: st.DataObject
) -> None:
    oracle = LinearGaussian.random({f"m{i}": size for i, size in enumerate(sizes)}, latent_dim, seed)
    x = {name: value.astype(np.float32).astype(np.float64) for name, value in oracle.sample(4, seed + 1).items()}
    present = data.draw(hnp.arrays(bool, (len(sizes), 4)))
    batch = Batch({name: torch.as_tensor(value) for name, value in x.items()}, dict(zip(x, torch.as_tensor(present), strict=True)))
    model = exact_model(oracle, kind)
    with torch.no_grad():
        q = model.posterior(batch, samples=3)
        torch.manual_seed(seed)
        z = q.sample()
        evidence = model.log_joint(batch, z) - q.log_prob(z)
    for row in range(4):
        observed = {name: value[row] for name, value in x.items() if batch.present[name][row]}
        mean, covariance = oracle.posterior(observed)
        # Float64, with 1e-12 for the precision of an expert that says nothing.
        np.testing.assert_allclose(q.mean[0, row], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(q.variance[0, row], np.diag(covariance), rtol=1e-8)
        # Under the exact posterior log p(x, z) - log q(z | x) is log p(x) for every z; the prior is in float32.
        np.testing.assert_allclose(evidence[:, row], oracle.log_prob(observed) if observed else 0.0, rtol=1e-6, atol=1e-5)


# One word of a spec


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_spec_with_settings_for_bridges_holds_for_every_model_and_resolves_to_a_fixed_point(variant: str) -> None:
    spec = spec_from_dict(spec_of(variant))
    resolved = write_spec(spec)
    assert parse_spec(resolved) == spec
    assert write_spec(parse_spec(resolved)) == resolved
    assert spec.training.stage("bridges").learning_rate == 0.01
    again = spec_from_dict({**spec.as_dict(), "model": "bridged"})
    assert again.bridges == spec.bridges
    assert again.training.stages["bridges"] == spec.training.stages["bridges"]


@pytest.mark.parametrize("variant", MODELS)
def test_a_run_of_every_model_is_saved_loaded_and_read_again(variant: str, tmp_path: Path) -> None:
    run = nbridge.train(spec_of(variant), data(), out=tmp_path / "run")
    batch = run.splits.test.hide(run.model.names[-1])
    expected = run.model.impute(batch, samples=2).values
    for model in (nbridge.load(tmp_path / "run").network, nbridge.resume(tmp_path / "run", data()).model.network):
        assert type(model) is type(run.model.network)
        found = model.state_dict()
        for name, tensor in run.model.network.state_dict().items():
            assert torch.equal(found[name], tensor), name
        for name, values in nbridge.Model(model).impute(batch, samples=2).values.items():
            assert values.isfinite().all()
            assert torch.equal(values, expected[name])


class _StopError(Exception):
    """What stops training."""


class _Stop(Callback):
    """Stops training at the end of its third epoch, before that is saved."""

    def __init__(self) -> None:
        self.left = 3

    def on_validation(self, record: EpochRecord) -> None:
        self.left -= 1
        if not self.left:
            raise _StopError


@pytest.mark.parametrize("variant", ["jmvae", "telbo", "mvae, three subsets"])
def test_a_run_that_was_stopped_ends_bit_identically_to_one_that_was_not(variant: str, tmp_path: Path) -> None:
    spec = spec_of(variant, checkpoint_seconds=0.0)
    # The third epoch of two is the second stage's first.
    spec["training"]["stages"]["joint"]["epochs"] = 2 if variant == "telbo" else 4
    whole = nbridge.train(spec, data()).model
    with pytest.raises(_StopError):
        nbridge.train(spec, data(), out=tmp_path / "run", callbacks=[_Stop()])
    resumed = nbridge.resume(tmp_path / "run", data()).model.network
    found = resumed.state_dict()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(found[name], tensor), name


# What models share


def test_models_with_a_joint_stage_of_their_own_begin_and_end_it_bit_identically() -> None:
    """From one seed the encoders, decoders and the joint fusion are the same, whatever a model has beside them."""
    variants = ["joint", "bridged, paper", "telbo", "jmvae, alpha 0"]
    fresh = {variant: build(variant).state_dict() for variant in variants}
    trained: dict[str, dict[str, torch.Tensor]] = {}
    for variant in variants:
        spec = spec_from_dict(spec_of(variant))
        torch.manual_seed(0)
        model = nbridge.build_model(spec)

        def keep(state: TrainingState, variant: str = variant, model: nbridge.MultimodalVAE = model) -> None:
            if (state.stage, state.epoch) == (1, 0):
                trained[variant] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        fit(model, Batch.complete(rows_of(model, 40, 0)), None, spec.training, save=keep)
    for name in fresh["joint"]:
        for variant in variants:
            assert torch.equal(fresh[variant][name], fresh["joint"][name]), (variant, name)
            assert torch.equal(trained[variant][name], trained["joint"][name]), (variant, name)


def test_bridges_for_all_sets_of_more_sources_than_can_be_taken_are_refused() -> None:
    part = {"shape": 1, "encoder": "mlp", "likelihood": "normal"}
    spec = spec_from_dict({"modalities": {f"m{index}": part for index in range(11)}, "bridges": {"subsets": "all"}})
    text = "model: 11 modalities need separate terms for each of 2,047 subsets; at most 10 are supported"
    with pytest.raises(SpecError, match=f"^{re.escape(text)}$"):
        build_model(spec)


@pytest.mark.parametrize("kind", ["jmvae", "telbo"])
def test_a_retrofit_of_more_subsets_than_can_be_built_is_refused(kind: str) -> None:
    part = {"shape": 1, "encoder": "mlp", "likelihood": "normal"}
    spec = spec_from_dict({"model": kind, "modalities": {f"m{index}": part for index in range(11)}})
    text = "model: 11 modalities need an inference network for each of 2,047 subsets; at most 10 are supported"
    with pytest.raises(SpecError, match=f"^{re.escape(text)}$"):
        build_model(spec)
