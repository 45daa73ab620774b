"""TELBO: its terms by hand and against the evidence of each subset, and what its subset terms must not touch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

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
from strategies import SEEDS, rows_of
from torch import Tensor

import nbridge
from nbridge.data.batch import Batch
from nbridge.models.retrofit import InferenceNetwork
from nbridge.models.subsets import proper_subsets
from nbridge.models.telbo import TELBO
from nbridge.spec.registry import STAGES
from nbridge.training.trainer import TrainingState, fit, only_trainable

JOINT = {"a": 0.5, "b": 0.6, "c": 0.7}
FACTORS = {
    ("a",): {"a": 0.8}, ("b",): {"b": 0.9}, ("c",): {"c": 1.0},
    ("a", "b"): {"a": 1.1, "b": 1.2}, ("a", "c"): {"a": 1.3, "c": 1.4}, ("b", "c"): {"b": 1.5, "c": 1.6},
}  # fmt: skip


def telbo(*, one_stage: bool) -> TELBO:
    parts = Parts(CERTAIN)
    encoders = parts.encoders()
    networks = {subset: InferenceNetwork(parts.encoders(subset), parts.head()) for subset in FACTORS}
    return TELBO(encoders, parts.decoders(), parts.head(), networks, WEIGHTS, one_stage=one_stage)


def subset_terms(model: TELBO, batch: Batch, kl_weight: float) -> dict[str, float]:
    """Each subset's terms are means over the rows that have all of it."""
    x, terms = standard_forms(batch), {"subsets.nll": 0.0, "subsets.kl": 0.0}
    for subset, factors in FACTORS.items():
        counts = np.all([batch.present[name].numpy() for name in subset], axis=0)
        loc, log_var = gaussian(x, factors, CERTAIN)
        if counts.any():
            terms["subsets.nll"] -= sum(WEIGHTS[name] * log_prob(model, name, loc, batch)[counts].mean() for name in subset)
            terms["subsets.kl"] += kl_weight * divergence(loc, log_var)[counts].mean()
    return terms


def joint_terms(model: TELBO, batch: Batch, kl_weight: float) -> dict[str, float]:
    loc, log_var = gaussian(standard_forms(batch), JOINT, CERTAIN)
    nll = {name: -WEIGHTS[name] * log_prob(model, name, loc, batch).mean() for name in NAMES}
    return nll | {"kl": kl_weight * divergence(loc, log_var).mean()}


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
def test_the_terms_of_both_forms_are_the_joint_elbo_and_that_of_every_subset(kl_weight: float) -> None:
    batch, two, one = rows(), telbo(one_stage=False), telbo(one_stage=True)
    joint, subsets = joint_terms(two, batch, kl_weight), subset_terms(two, batch, kl_weight)
    # z is the posterior's mean to 13 digits.
    assert losses(two, "joint", batch, kl_weight) == pytest.approx(joint, rel=1e-9)
    assert losses(two, "subsets", batch, kl_weight) == pytest.approx(subsets, rel=1e-9)
    assert losses(one, "joint", batch, kl_weight) == pytest.approx(joint | subsets, rel=1e-9)


@pytest.mark.parametrize("present", [INCOMPLETE, {"b": [0] * 5}, {"a": [0] * 5, "b": [0] * 5}])
def test_a_subset_learns_from_the_rows_that_have_all_of_it(present: Mapping[str, list[int]]) -> None:
    model, batch = telbo(one_stage=False), rows(present)
    assert losses(model, "subsets", batch) == pytest.approx(subset_terms(model, batch, 1.0), rel=1e-9)
    some = torch.stack(list(batch.present.values())).any(0)
    assert torch.equal(stage(model, "subsets").rows(model.prepare(batch)), some)


@settings(max_examples=4)
@given(seed=SEEDS)
def test_the_subset_terms_are_the_evidence_of_every_subset_where_posteriors_are_exact(seed: int) -> None:
    oracle = LinearGaussian.random({"a": 2, "b": 3, "c": 1}, 2, seed)
    x, batch = repeated(oracle, seed)
    evidence = sum(oracle.log_prob({name: x[name] for name in subset}) for subset in proper_subsets(x))
    loss, error = mean_loss(exact_model(oracle, "telbo"), "subsets", batch)
    assert -loss == pytest.approx(evidence, abs=5 * error)


# What the subset terms must not touch


def real_model(model: Any, seed: int = 0) -> tuple[TELBO, nbridge.Spec, Batch]:
    """Networks with batch normalisation and learned scales, and complete rows."""
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [5]}}
    spec = nbridge.Spec.model_validate(
        {
            "model": model,
            "latent_dim": 2,
            "modalities": {
                "x": {"shape": 3, "likelihood": "normal", **part},
                "y": {"shape": 4, "likelihood": "categorical", "weight": 5, **part},
                "t": {"shape": 2, "likelihood": {"type": "laplace", "scale": "learned"}, **part},
            },
            "training": {"batch_size": 8, "checkpoint_seconds": 0, "stages": {"joint": {"epochs": 2}, "subsets": {"epochs": 2}}},
        }
    )
    built = nbridge.build_model(spec, seed=seed)
    assert isinstance(built, TELBO)
    return built, spec, built.prepare(Batch.complete(rows_of(built, 40, seed)))


ONE_STAGE = {"type": "telbo", "one_stage": True}


def buffers(model: TELBO) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_the_second_stage_leaves_every_tensor_of_the_first_bit_identical_and_changes_every_network() -> None:
    model, spec, batch = real_model("telbo")
    snapshots: list[dict[str, Tensor]] = []

    def save(state: TrainingState) -> None:
        if state.epoch == 0:  # a stage is over
            snapshots.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    holes = batch.present | {"y": torch.arange(40) > 9}
    fit(model, Batch(batch.values, holes), batch.slice(0, 10), spec.training, save=save)
    joint, subsets = snapshots
    for name, tensor in joint.items():
        assert torch.equal(tensor, subsets[name]) != name.startswith("networks."), name


def test_in_one_stage_decoders_learn_from_the_joint_term_alone() -> None:
    model, _, batch = real_model(ONE_STAGE)
    alone = copy.deepcopy(model)
    torch.manual_seed(3)
    both = gradients(model.train(), torch.stack(list(stage(model, "joint").loss(batch, {}, 1.0).values())).sum())
    torch.manual_seed(3)
    joint = gradients(alone.train(), torch.stack(list(alone.joint_stage().loss(batch, {}, 1.0).values())).sum())
    assert any(name.startswith("decoders.y") for name in joint)
    assert any(name.startswith("decoders.x.likelihood") for name in joint)
    for name, gradient in joint.items():
        assert torch.equal(both.pop(name), gradient), name
    assert both
    assert all(name.startswith("networks.") and gradient.any() for name, gradient in both.items())
    after, expected = buffers(model), buffers(alone)
    moved = {name for name, buffer in after.items() if not torch.equal(buffer, expected[name])}
    assert moved
    assert all(name.startswith("networks.") for name in moved)


def test_in_one_stage_networks_get_the_gradients_that_the_second_of_two_stages_gives() -> None:
    one, _, batch = real_model(ONE_STAGE)
    two, _, _ = real_model("telbo")
    two.load_state_dict(one.state_dict())
    torch.manual_seed(3)
    found = gradients(one.train(), torch.stack(list(stage(one, "joint").loss(batch, {}, 0.5).values())).sum())
    torch.manual_seed(3)
    # The joint term draws its noise, and moves the decoders' running statistics, first.
    stage(two.train(), "joint").loss(batch, {}, 0.5)
    subsets = stage(two, "subsets")
    with only_trainable(two, subsets.modules):
        two.networks.train()
        expected = gradients(two, torch.stack(list(subsets.loss(batch, {}, 0.5).values())).sum())
    assert set(expected) == {name for name, _ in two.named_parameters() if name.startswith("networks.")}
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_decoders_come_back_from_one_stage_as_they_were() -> None:
    model, _, batch = real_model(ONE_STAGE)
    model.train()
    model.decoders["y"].eval()
    model.decoders["x"].requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    stage(model, "joint").loss(batch, {}, 1.0)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    model._subsets_loss = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        stage(model, "joint").loss(batch, {}, 1.0)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants


def test_one_stage_is_the_first_of_the_stages_that_the_registry_declares() -> None:
    one, spec, batch = real_model(ONE_STAGE)
    assert [stage.name for stage in one.stages()] == ["joint"]
    assert set(spec.training.stages) == set(STAGES["telbo"]) == {stage.name for stage in real_model("telbo")[0].stages()}
    assert torch.equal(stage(one, "joint").rows(batch.hide(*batch.names)), torch.zeros(40, dtype=torch.bool))
    assert torch.equal(stage(one, "joint").rows(batch), torch.ones(40, dtype=torch.bool))
