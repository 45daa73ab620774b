"""Training on rows with missing modalities: every row teaches, by its own evidence bound, and complete rows as ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import ranks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import REPEATS, LinearGaussian, exact_model
from torch import Tensor

import nbridge
from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE
from nbridge.models.jmvae import JMVAE
from nbridge.models.joint import JointVAE
from nbridge.models.subsets import random_subset
from nbridge.nn.distributions import diagonal_kl, diagonal_normal
from nbridge.spec.registry import STAGES

SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    **ranks.SYSTEMS,
    "joint": {"model": "joint"},
    "flow": {"model": "bridged", "bridges": {"type": "flow", "width": 8, "steps": 2}},
    "flow, own encoders": {"model": "bridged", "bridges": {"type": "flow", "width": 8, "steps": 2, "encoders": "own"}},
}


def build(system: str) -> MultimodalVAE:
    return nbridge.build_model(spec_of(system), seed=3)


def spec_of(system: str) -> nbridge.Spec:
    model = SYSTEMS[system]["model"]
    stages = {name: {"epochs": 2} for name in STAGES[model if isinstance(model, str) else model["type"]]}
    training = {"batch_size": 24, "stages": stages, "precision": "float32"}
    return nbridge.Spec.model_validate(
        {"latent_dim": 4, "modalities": ranks.MODALITIES, "fusion": {"hidden": [8]}, "training": training, **SYSTEMS[system]}
    )


def trained(system: str, train: Batch, validation: Batch) -> MultimodalVAE:
    model = build(system)
    nbridge.fit(model, train, validation, spec_of(system).training)
    return model


@pytest.mark.parametrize("system", SYSTEMS)
def test_complete_rows_train_as_without_masks_bit_for_bit(system: str):
    train, validation = ranks.rows(72, complete=True), ranks.rows(24, complete=True)
    plain = trained(system, train, validation).state_dict()
    said = Batch(train.values, {name: torch.ones(72, dtype=torch.bool) for name in train.names})
    for name, tensor in trained(system, said, validation).state_dict().items():
        assert torch.equal(tensor, plain[name]), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_rows_of_which_none_is_complete_teach(system: str):
    """Modality c is absent from 95 % of rows, a and b never meet."""
    rows = ranks.rows(200, complete=True)
    first, some = torch.arange(200) % 2 == 0, torch.arange(200) % 20 < 2
    batch = Batch(rows.values, {"a": first, "b": ~first, "c": some})
    model = build(system)
    before = [tensor.clone() for tensor in model.decoders.parameters()]
    records: list[Any] = []
    nbridge.fit(model, batch, None, spec_of(system).training, log=records.append)
    assert not any(torch.equal(old, new) for old, new in zip(before, model.decoders.parameters(), strict=True))
    joint = [record.loss for record in records if record.stage == "joint"]
    assert joint[-1] < joint[0]
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    completed = nbridge.Model(model).impute(batch)
    assert all(value.isfinite().all() for value in completed.values.values())


@settings(max_examples=8)
@given(hnp.arrays(bool, st.tuples(st.just(3), st.just(5))), st.integers(0, 99))
def test_the_joint_loss_is_the_evidence_of_what_each_row_has_where_the_posterior_is_exact(present: np.ndarray, seed: int):
    """A linear-Gaussian model: features are evidence, and zeros say nothing."""
    present[0] |= ~present.any(0)
    oracle = LinearGaussian.random({"a": 3, "b": 2, "c": 1}, 2, seed)
    x = {name: value.astype(np.float32).astype(np.float64) for name, value in oracle.sample(5, seed + 1).items()}
    batch = Batch({name: torch.as_tensor(value) for name, value in x.items()}, dict(zip(x, torch.as_tensor(present), strict=True)))
    evidence = np.mean([oracle.log_prob({name: x[name][row] for name in x if batch.present[name][row]}) for row in range(5)])
    for kind in ("joint", "bridged", "jmvae", "telbo"):
        model = exact_model(oracle, kind)
        loss, prepared = model.stages()[0].loss, model.prepare(batch)
        torch.manual_seed(0)
        with torch.no_grad():
            drawn = [loss(prepared, {}, 1.0) for _ in range(REPEATS)]
        found = torch.stack([torch.stack([terms[name] for name in (*x, "kl")]).sum() for terms in drawn])
        error = found.std().item() / REPEATS**0.5
        assert abs(found.mean().item() + evidence) < 5 * error + 1e-4


def test_of_an_incomplete_row_jmvae_compares_what_it_has_with_every_part_of_it():
    model, batch = build("jmvae").eval(), ranks.rows(40, complete=False)
    assert isinstance(model, JMVAE)
    batch = model.prepare(batch)
    with torch.no_grad():
        torch.manual_seed(1)
        terms = model.stages()[0].loss(batch, {}, 1.0)
        inputs, expected = model.inputs(batch), 0.0
        for row in range(40):
            one = batch.slice(row, row + 1)
            has = tuple(name for name in model.names if bool(one.present[name]))
            inputs = model.inputs(one)
            q = {subset: model.subset_posterior(subset, inputs) for subset in model.subsets}
            whole = model.fusion(model.encode(one)) if len(has) == 3 else q.get(has)
            parts = [subset for subset in model.subsets if set(subset) < set(has)]
            expected += sum(diagonal_kl(whole, q[subset]).item() for subset in parts) / 40 if whole is not None else 0.0
    assert terms["subsets.divergence"].item() == pytest.approx(model.alpha * expected, rel=1e-4)


@given(hnp.arrays(bool, st.tuples(st.just(3), st.integers(2, 9))), st.integers(0, 99))
def test_in_stage_joint_a_random_part_of_each_row_learns_from_all_of_it(present: np.ndarray, seed: int):
    model = build("joint").eval()
    rows = ranks.rows(present.shape[1], complete=True)
    batch = model.prepare(Batch(rows.values, dict(zip(rows.names, torch.as_tensor(present), strict=True))))
    vars(batch)["_whole"] = False
    torch.manual_seed(seed)
    terms = model.stages()[0].loss(batch, {}, 1.0)
    torch.manual_seed(seed)
    torch.randn(present.shape[1], model.latent_dim)  # the draw of z
    part, expected = random_subset(torch.as_tensor(present)), 0.0
    for row in range(present.shape[1]):
        one = batch.slice(row, row + 1)
        poorer = Batch(one.values, {name: part[i, row : row + 1] for i, name in enumerate(model.names)})
        divergence = diagonal_kl(model.infer(one), model.infer(model.prepare(poorer)))
        expected += divergence.item() / present.shape[1] if present[:, row].sum() >= 2 else 0.0
    assert terms["distill"].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    terms["distill"].backward()
    assert all(parameter.grad is None for parameter in model.decoders.parameters())


@pytest.mark.parametrize("system", ["joint", "bridged", "flow", "telbo"])
def test_the_teacher_of_incomplete_rows_gets_no_gradient(system: str):
    """The gradient of the divergence is the one for a teacher that is given as numbers, and another than for one that gives way."""
    model = build(system).eval()
    assert isinstance(model, JointVAE)
    model.coupling = model.leave_one_out = model.contrast = 0.0
    batch = model.prepare(ranks.rows(30, complete=False))
    torch.manual_seed(0)
    terms = model.stages()[0].loss(batch, {}, 1.0)
    torch.manual_seed(0)
    torch.randn(30, model.latent_dim)  # the draw of z
    part = dict(zip(model.names, random_subset(model.presence(batch)), strict=True))
    whole, poorer = (JointVAE.infer(model, one) for one in (batch, model.prepare(Batch(batch.values, part))))
    still = diagonal_normal(whole.mean.detach(), whole.stddev.detach())
    several = model.presence(batch).sum(0) >= 2
    learning = [*model.encoders.parameters(), *model.fusion.parameters()]
    found, taught, both = (
        torch.autograd.grad(term, learning, retain_graph=True, materialize_grads=True)
        for term in (terms["distill"], *(torch.where(several, diagonal_kl(q, poorer), 0.0).mean() for q in (still, whole)))
    )
    for one, expected in zip(found, taught, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-6)
    assert any((one - other).abs().max() > 1e-3 for one, other in zip(taught, both, strict=True))


@pytest.mark.parametrize("system", ["joint", "bridged", "flow"])
@pytest.mark.parametrize("complete", [True, False])
def test_coupling_draws_parts_and_wholes_of_all_rows_together(system: str, complete: bool):
    """One more term, the divergence that incomplete rows have by default, with a weight; the evidence stands beside it as it is."""
    described = spec_of(system).as_dict()
    kind = described["model"] if isinstance(described["model"], str) else described["model"]["type"]
    model = nbridge.build_model(
        nbridge.Spec.model_validate({**described, "model": {"type": kind, "coupling": 3.0, "leave_one_out": 0.0, "contrast": 0.0}}), seed=3
    ).eval()
    assert isinstance(model, JointVAE)
    batch = model.prepare(ranks.rows(30, complete=complete))
    torch.manual_seed(0)
    coupled = model.stages()[0].loss(batch, {}, 1.0)
    torch.manual_seed(0)
    part = dict(zip(model.names, random_subset(model.presence(batch)), strict=True))
    posterior, poorer = (JointVAE.infer(model, one) for one in (batch, model.prepare(Batch(batch.values, part))))
    evidence = model.negative_elbo(posterior, batch, 1.0)
    torch.testing.assert_close({name: term for name, term in coupled.items() if name != "coupling"}, evidence)
    model.coupling = 0.0
    torch.manual_seed(0)
    without = model.stages()[0].loss(batch, {}, 1.0)
    assert ("distill" in without) is not complete
    torch.manual_seed(0)
    evidence = model.negative_elbo(posterior, batch, 1.0)
    torch.testing.assert_close({name: term for name, term in without.items() if name != "distill"}, evidence)
    divergence = torch.where(model.presence(batch).sum(0) >= 2, diagonal_kl(posterior, poorer), 0.0).mean()
    torch.testing.assert_close(coupled["coupling"], 3 * divergence, rtol=1e-4, atol=1e-5)
    # Both sides give way, where a teacher would stand still.
    found, expected = (torch.autograd.grad(term, list(model.fusion.parameters())) for term in (coupled["coupling"], 3 * divergence))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_coupled_wholes_and_parts_are_normalised_by_the_mixture_that_the_fusion_will_serve():
    """Statistics of wholes for wholes and of parts for parts would be neither's when their average serves."""
    model = build("joint")
    assert isinstance(model, JointVAE)
    model.coupling = 3.0
    batch = model.train().prepare(ranks.rows(30, complete=False))
    model.stages()[0].loss(batch, {}, 1.0)
    layers = [layer for layer in model.fusion.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert [layer.num_batches_tracked.item() for layer in layers if layer.num_batches_tracked is not None] == [1] * len(layers)
    assert layers


def test_distill_teaches_from_all_that_a_row_has():
    """Rows with one modality have nothing to teach; of the others the teacher is the posterior of what they have."""
    model = nbridge.build_model(spec_of("bridged"))
    batch = model.prepare(ranks.rows(60, complete=False))
    stage = model.stages()[1]
    features = stage.features(batch)
    teacher: Tensor = features["teacher.loc"]
    observed = model.observed_posterior(model.encode(batch), batch)
    torch.testing.assert_close(teacher, observed.mean)
    number = model.presence(batch).sum(0)
    assert torch.equal(stage.rows(batch), number >= 1)  # `elbo` takes every row
