"""The stochastic bridge: what it learns, what it leaves alone, and that weights of importance stay unbiased."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import EvidenceEncoder, LinearGaussian, SumOfEvidence
from strategies import grown_model, rows_of
from torch import Tensor, nn

import nbridge
from nbridge.batch import Batch
from nbridge.counting import count_parameters
from nbridge.decoders import Decoder
from nbridge.distributions import diagonal_kl
from nbridge.errors import SpecError
from nbridge.evaluation.importance import log_likelihood_rows
from nbridge.flow_bridge import FlowBridge
from nbridge.likelihoods import Normal
from nbridge.models.flow_bridged import FlowBridgedVAE
from nbridge.subsets import random_part
from nbridge.testing import check_model

WIDTHS = {"a": 3, "b": 2, "c": 4}
SPEC = {
    "latent_dim": 4,
    "modalities": {
        "top": {"shape": [1, 4, 8], "features": 12, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "bernoulli"},
        "bottom": {"shape": [1, 4, 8], "features": 8, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "bernoulli"},
        "label": {"shape": 10, "features": 6, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "categorical"},
    },
    "bridges": {"type": "flow", "hidden": [16], "steps": 2},
    "training": {"batch_size": 64, "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 3}}},
}


def spec(**changes: object) -> nbridge.Spec:
    return nbridge.Spec.model_validate(SPEC | changes)


def features(rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) for name, width in WIDTHS.items()}


PATTERNS = hnp.arrays(bool, st.tuples(st.just(3), st.integers(1, 6)))


@given(PATTERNS, st.integers(1, 3))
def test_observed_features_come_back_as_they_are_and_absent_ones_depend_on_nothing_that_stands_there(present: np.ndarray, samples: int):
    flow, masks = FlowBridge(WIDTHS, hidden=(8,), steps=2).eval(), torch.as_tensor(present)
    given_, other = features(present.shape[1]), features(present.shape[1], seed=1)
    swapped = {name: torch.where(mask[:, None], given_[name], other[name]) for name, mask in zip(WIDTHS, masks, strict=True)}
    torch.manual_seed(3)
    drawn = flow.draw(given_, masks, samples)
    torch.manual_seed(3)
    again = flow.draw(swapped, masks, samples)
    for name, mask in zip(WIDTHS, masks, strict=True):
        assert drawn[name].shape == (samples, present.shape[1], WIDTHS[name])
        assert drawn[name].isfinite().all()
        assert torch.equal(drawn[name][:, mask], given_[name][mask].expand(samples, -1, -1))
        assert torch.equal(drawn[name], again[name])
        absent = drawn[name][:, ~mask]
        assert samples == 1 or not absent.numel() or not torch.equal(absent[0], absent[1])


@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 40))), st.integers(0, 99))
def test_a_random_part_is_some_of_what_is_present_and_never_all(present: np.ndarray, seed: int):
    torch.manual_seed(seed)
    masks = torch.as_tensor(present)
    part = random_part(masks)
    assert not (part & ~masks).any()
    for number, size in zip(masks.sum(0).tolist(), part.sum(0).tolist(), strict=True):
        assert 1 <= size < number if number >= 2 else size == number


def test_sizes_of_random_parts_are_uniform_and_so_are_their_members():
    torch.manual_seed(0)
    part = random_part(torch.ones(5, 40_000, dtype=torch.bool))
    sizes = torch.bincount(part.sum(0), minlength=5)[1:] / 40_000
    torch.testing.assert_close(sizes, torch.full((4,), 0.25), rtol=0, atol=0.01)
    torch.testing.assert_close(part.float().mean(1), torch.full((5,), 0.5), rtol=0, atol=0.01)


@given(hnp.arrays(bool, st.tuples(st.just(3), st.integers(2, 30))), st.integers(1, 29))
def test_features_are_standardised_over_the_rows_that_have_them_however_they_are_cut(present: np.ndarray, cut: int):
    rows = {name: 3 * x + 7 for name, x in features(present.shape[1]).items()}
    flow = FlowBridge(WIDTHS, hidden=(8,))
    masks = dict(zip(WIDTHS, torch.as_tensor(present), strict=True))
    parts = [slice(0, cut), slice(cut, None)]
    flow.standardise(({name: x[part] for name, x in rows.items()}, {name: mask[part] for name, mask in masks.items()}) for part in parts)
    loc, scale = flow.loc.split(list(WIDTHS.values())), flow.scale.split(list(WIDTHS.values()))
    for name, mean, spread in zip(WIDTHS, loc, scale, strict=True):
        seen = rows[name][masks[name]].double()
        expected = seen.mean(0) if len(seen) else torch.zeros(WIDTHS[name])
        torch.testing.assert_close(mean, expected.float(), rtol=1e-4, atol=1e-4)
        if len(seen) > 1:
            torch.testing.assert_close(spread, seen.std(0, correction=0).float(), rtol=1e-3, atol=1e-3)
        else:
            assert torch.equal(spread, torch.ones(WIDTHS[name]))


def test_the_average_that_serves_is_the_exponential_one_of_the_weights():
    flow = FlowBridge(WIDTHS, hidden=(8,), decay=0.5).train()
    optimizer = torch.optim.SGD(flow.parameters(), lr=0.1)
    mean = [parameter.detach().clone() for parameter in flow.network.parameters()]
    present = torch.ones(3, 20, dtype=torch.bool)
    for number in range(1, 6):
        given_ = random_part(present)
        mean = [
            torch.lerp(m, p.detach(), 1 - min((number + 1) / (number + 10), 0.5))
            for m, p in zip(mean, flow.network.parameters(), strict=True)
        ]
        optimizer.zero_grad()
        flow.loss(features(20), given_, ~given_).mean().backward()
        optimizer.step()
    for found, expected in zip(flow.average.buffers(), mean, strict=True):
        torch.testing.assert_close(found, expected)
    assert not any(name.startswith("average") for name, _ in flow.named_parameters())


@pytest.mark.slow
def test_it_learns_the_conditional_distribution_of_correlated_features():
    r"""Of a Gaussian with every pair correlated: mean and covariance of what is drawn, against conditioning in closed form."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4)) + np.eye(4)
    covariance, mean = root @ root.T, rng.normal(size=4)
    rows = torch.as_tensor(rng.multivariate_normal(mean, covariance, 4000), dtype=torch.float32)
    given_ = {"a": rows[:, :2], "b": rows[:, 2:3], "c": rows[:, 3:]}
    flow = FlowBridge({"a": 2, "b": 1, "c": 1}, hidden=(64, 64), decay=0.99)
    everything = torch.ones(3, len(rows), dtype=torch.bool)
    flow.standardise([(given_, dict(zip(given_, everything, strict=True)))])
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / 1500)
        index = torch.randint(len(rows), (512,))
        part = random_part(everything[:, :512])
        optimizer.zero_grad()
        flow.loss({name: x[index] for name, x in given_.items()}, part, ~part).mean().backward()
        optimizer.step()
    flow.eval()
    for known, wanted in (([0, 1], [2, 3]), ([2], [0, 1, 3]), ([0, 1, 3], [2])):
        x = mean + root[:, 0]
        gain = covariance[np.ix_(wanted, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
        expected = mean[wanted] + gain @ (x - mean)[known]
        spread = covariance[np.ix_(wanted, wanted)] - gain @ covariance[np.ix_(known, wanted)]
        row = torch.as_tensor(x, dtype=torch.float32).expand(8000, 4)
        present = torch.tensor([0 in known, 2 in known, 3 in known])[:, None].expand(3, 8000)
        with torch.no_grad():
            drawn = flow.draw({"a": row[:, :2], "b": row[:, 2:3], "c": row[:, 3:]}, present)
        found = torch.cat([drawn[name][0] for name in "abc"], -1)[:, wanted].double().numpy()
        unit = np.sqrt(np.diag(covariance)[wanted])
        np.testing.assert_allclose((found.mean(0) - expected) / unit, 0, atol=0.15)
        np.testing.assert_allclose(np.cov(found.T).reshape(spread.shape) / np.outer(unit, unit), spread / np.outer(unit, unit), atol=0.25)


def test_weights_of_importance_are_unbiased_whatever_the_flow_draws():
    """A linear-Gaussian model, whose evidence is known, and a flow that was never trained."""
    oracle = LinearGaussian.random({"a": 3, "b": 2, "c": 2}, 2, seed=1)
    encoders = {name: EvidenceEncoder(oracle.loadings[name], oracle.offsets[name], oracle.noise[name]) for name in oracle.loadings}
    decoders = {}
    for name, W in oracle.loadings.items():
        network = nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64)
        network.load_state_dict({"weight": torch.as_tensor(W), "bias": torch.as_tensor(oracle.offsets[name])})
        decoders[name] = Decoder(network, Normal((len(W),), scale=float(oracle.noise[name]), standardize=False))
    torch.manual_seed(0)
    flow = FlowBridge({name: encoder.features for name, encoder in encoders.items()}, hidden=(16,), steps=3)

    class Fusion(SumOfEvidence):
        """Wider than the posterior, with precisions kept positive whatever features the flow draws."""

        def forward(self, features):
            pull, precision = torch.stack(list(features.values())).sum(0).chunk(2, -1)
            precision = precision.clamp(0, 2)
            return super().forward({"all": torch.cat([pull.clamp(-2, 2) / 3, precision / 3], -1)})

    model = FlowBridgedVAE(encoders, decoders, Fusion(oracle.latent_dim), flow).double().eval()
    x = oracle.sample(6, seed=2)
    batch = Batch.complete({name: torch.as_tensor(value) for name, value in x.items()})
    for proposal in (("a",), ("b", "c")):
        found = log_likelihood_rows(model, batch, proposal, samples=20_000)
        exact = np.array([oracle.log_prob({name: x[name][row] for name in proposal}) for row in range(6)])
        error = found.standard_error.numpy()
        assert (error < 0.1).all()
        assert (np.abs(found.log_likelihood.numpy() - exact) < 4 * error + 1e-3).all()


OWN = {"bridges": {**SPEC["bridges"], "encoders": "own"}}


def test_a_bridged_model_with_a_flow_is_a_model_like_any_other():
    check_model(nbridge.build_model(spec()))


@pytest.mark.parametrize(("changes", "networks"), [({}, 2), (OWN, 5)])
def test_its_parameters_are_counted(changes: Mapping[str, Any], networks: int):
    """One fusion and one flow; with encoders of their own a guide for each of three modalities."""
    table = count_parameters(spec(**changes))
    assert table.models[0].formula == table.models[0].counted
    assert table.models[0].networks == networks
    assert sum(table.parts.values()) == table.models[0].formula


def own_model() -> tuple[FlowBridgedVAE, Batch]:
    """A model with guides, and rows of every pattern of presence."""
    model = grown_model(spec(**OWN), 0)
    assert isinstance(model, FlowBridgedVAE)
    present = torch.tensor([[row >> i & 1 for row in range(8)] for i in range(3)], dtype=torch.bool)
    rows = Batch(rows_of(model, 8, 1), dict(zip(model.names, present, strict=True)))
    return model, model.prepare(rows)


def test_guides_learn_the_posterior_of_all_that_a_row_has_and_nothing_from_the_flow():
    model, batch = own_model()
    stage = model.stages()[1]
    features = stage.features(batch)
    model.bridges.train()
    terms = stage.loss(batch, features, 1.0)
    expected, inputs, q = torch.zeros(()), model.inputs(batch), model.observed_posterior(model.encode(batch), batch)
    for name, guide in model.guides.items():
        rows = batch.present[name] & (model.presence(batch).sum(0) >= 2)
        expected = expected + diagonal_kl(q, guide(inputs))[rows].mean() / model.latent_dim
    torch.testing.assert_close(terms["distill"], expected, rtol=1e-4, atol=1e-4)
    for term, learns, others in (("flow", model.bridges.network, model.guides), ("distill", model.guides, model.bridges.network)):
        gradients = torch.autograd.grad(terms[term], list(learns.parameters()), retain_graph=True)
        assert all(bool(gradient.any()) for gradient in gradients)
        unreached = torch.autograd.grad(terms[term], list(others.parameters()), allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in unreached)


def test_a_flow_is_told_mean_and_spread_of_the_product_of_what_is_observed(monkeypatch: pytest.MonkeyPatch):
    """Row by row, of every pattern; complete rows need no draw, and of a row with nothing the prior is told."""
    model, batch = own_model()
    told: list[Tensor] = []
    draw = FlowBridge.draw

    def spy(self: FlowBridge, features: Any, present: Tensor, samples: int, noise: Tensor | None, condition: Tensor) -> dict[str, Tensor]:
        told.append(condition)
        return draw(self, features, present, samples, noise, condition)

    monkeypatch.setattr(FlowBridge, "draw", spy)
    model.posterior(batch, samples=2)
    inputs = model.inputs(batch)
    for row in range(7):
        has = [name for name in model.names if bool(batch.present[name][row])]
        each = [model.guides[name]({name: inputs[name][row : row + 1]}) for name in has]
        precision = torch.ones(1, model.latent_dim)
        mean = torch.zeros(1, model.latent_dim)
        if each:
            parts = torch.stack([1 / q.variance for q in each])
            precision = torch.maximum(parts.sum(0) - (len(each) - 1), parts.amax(0))
            mean = (parts * torch.stack([q.mean for q in each])).sum(0) / precision
        torch.testing.assert_close(told[0][row], torch.cat([mean, precision**-0.5], -1)[0], rtol=1e-3, atol=1e-4)


def test_guides_begin_with_the_weights_of_the_joint_encoders_and_are_one_for_each_modality():
    model, batch = own_model()
    begin = model.stages()[1].begin
    assert begin is not None
    begin([(batch, model.encode(batch))])
    for name, guide in model.guides.items():
        assert all(torch.equal(x, model.encoders[name].state_dict()[key]) for key, x in guide.encoders[name].state_dict().items())
    with pytest.raises(ValueError, match=r"^guides of \['top'\], expected one for each of top, bottom, label$"):
        FlowBridgedVAE(dict(model.encoders), dict(model.decoders), model.fusion, model.bridges, guides={"top": model.guides["top"]})


@pytest.mark.parametrize("own", [{}, OWN])
def test_training_goes_on_bit_identically_and_a_saved_model_draws_the_same(own: Mapping[str, Any], tmp_path: Path):
    changes = {"data": {"source": "digits"}, **own}
    whole = nbridge.train(spec(**changes), out=tmp_path / "whole")
    loaded = nbridge.load(tmp_path / "whole")
    rows = whole.splits.test.sample(20).only("label")
    one, two = nbridge.impute(whole.model, rows, samples=3), nbridge.impute(loaded, rows, samples=3)
    assert all(torch.equal(one.values[name], two.values[name]) for name in one.values)
    assert (whole.model.bridges.average.layers[0].weight != whole.model.bridges.network.layers[0].weight).any()
    assert (whole.model.bridges.scale != 1).any()


@pytest.mark.parametrize("key", ["objective", "combine"])
def test_a_flow_has_one_objective_and_needs_no_combination(key: str):
    with pytest.raises((SpecError, ValueError)) as refused:
        spec(bridges={"type": "flow", key: "mean" if key == "combine" else "paper"})
    assert f"a flow has one objective and takes all observed modalities at once; leave '{key}' out" in str(refused.value)
    resolved = spec().as_dict()["bridges"]
    assert key not in resolved
    assert nbridge.Spec.model_validate(spec().as_dict()) == spec()
