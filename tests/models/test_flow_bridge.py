"""The stochastic bridge: where it starts, what it learns, and that importance weights stay unbiased."""

from __future__ import annotations

import math
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
from torch.distributions import Independent

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import SpecError
from nbridge.evaluation.importance import log_likelihood_rows
from nbridge.evaluation.parameter_counts import count_parameters
from nbridge.models import flow_bridged
from nbridge.models.flow_bridged import FlowBridgedVAE
from nbridge.models.subsets import random_subset
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_kl, diagonal_normal
from nbridge.nn.flow_bridge import MIN_SPREAD, NOISE_SCALE, FlowBridge
from nbridge.nn.likelihoods import Normal
from nbridge.testing import check_model

WIDTHS = {"a": 3, "b": 2, "c": 4}
SPEC = {
    "latent_dim": 4,
    "modalities": {
        "top": {"shape": [1, 4, 8], "features": 12, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "bernoulli"},
        "bottom": {"shape": [1, 4, 8], "features": 8, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "bernoulli"},
        "label": {"shape": 10, "features": 6, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "categorical"},
    },
    "bridges": {"type": "flow", "width": 16, "steps": 2, "encoders": "shared"},
    "training": {"batch_size": 64, "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 3}}},
}


def spec(**changes: object) -> nbridge.Spec:
    return nbridge.Spec.model_validate(SPEC | changes)


def features(rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) for name, width in WIDTHS.items()}


PATTERNS = hnp.arrays(bool, st.tuples(st.just(3), st.integers(1, 6)))
D = 3


def gaussians(rows: int, seed: int = 0) -> Independent:
    generator = torch.Generator().manual_seed(seed)
    return diagonal_normal(torch.randn(rows, D, generator=generator), 0.2 + torch.rand(rows, D, generator=generator))


def still(flow: FlowBridge) -> FlowBridge:
    """A flow whose velocity is zero."""
    for tensor in flow.average.last.buffers():
        tensor.zero_()
    return flow.eval()


@given(PATTERNS, st.integers(1, 3))
def test_draws_depend_on_nothing_that_stands_where_a_modality_is_absent(present: np.ndarray, samples: int):
    flow, masks = FlowBridge(WIDTHS, D, width=8, steps=2).eval(), torch.as_tensor(present)
    rows = present.shape[1]
    given_, other = features(rows), features(rows, seed=1)
    swapped = {name: torch.where(mask[:, None], given_[name], other[name]) for name, mask in zip(WIDTHS, masks, strict=True)}
    noise = torch.randn(samples, rows, D)
    drawn = flow.draw(given_, masks, gaussians(rows), noise)
    assert drawn.batch_shape == (samples, rows)
    assert drawn.mean.isfinite().all()
    assert torch.equal(drawn.mean, flow.draw(swapped, masks, gaussians(rows), noise).mean)
    assert torch.equal(drawn.stddev, (NOISE_SCALE * flow.end).expand(samples, rows, D))
    # Each draw is its own: the last one by itself.
    torch.testing.assert_close(flow.draw(given_, masks, gaussians(rows), noise[-1:]).mean[0], drawn.mean[-1], rtol=1e-4, atol=1e-5)


@given(st.integers(1, 5), st.floats(0.1, 2), st.integers(0, 99))
def test_with_no_velocity_it_is_the_product_of_gaussians_times_the_temperature(rows: int, temperature: float, seed: int):
    """Start and last Gaussian, at its full scale, have the product's variance together, or that of the narrowest start."""
    flow, product = still(FlowBridge(WIDTHS, D, width=8, steps=3, temperature=temperature)), gaussians(rows, seed)
    noise, everything = torch.randn(4, rows, D), torch.ones(3, rows, dtype=torch.bool)
    drawn = flow.draw(features(rows), everything, product, noise)
    start = (drawn.mean - product.mean) / (temperature * noise)
    torch.testing.assert_close(start, start[:1].expand_as(start), rtol=1e-2, atol=1e-3)
    found = start[0].square() + (drawn.stddev[0] / (temperature * NOISE_SCALE)).square()
    expected = torch.maximum(product.variance, (1 + MIN_SPREAD**2) * flow.end.square())
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_a_fresh_flow_starts_near_the_product():
    flow, rows = FlowBridge(WIDTHS, D).eval(), 50
    noise, given_ = torch.randn(2, rows, D), torch.ones(3, rows, dtype=torch.bool)
    found = flow.draw(features(rows), given_, gaussians(rows), noise)
    exact = still(FlowBridge(WIDTHS, D)).draw(features(rows), given_, gaussians(rows), noise)
    assert (found.mean - exact.mean).abs().max() < 0.05


@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 40))), st.integers(0, 99))
def test_a_random_part_is_some_of_what_is_present_and_never_all(present: np.ndarray, seed: int):
    torch.manual_seed(seed)
    masks = torch.as_tensor(present)
    part = random_subset(masks)
    assert not (part & ~masks).any()
    for number, size in zip(masks.sum(0).tolist(), part.sum(0).tolist(), strict=True):
        assert 1 <= size < number if number >= 2 else size == number


def test_sizes_of_random_parts_are_uniform_and_so_are_their_members():
    torch.manual_seed(0)
    part = random_subset(torch.ones(5, 40_000, dtype=torch.bool))
    sizes = torch.bincount(part.sum(0), minlength=5)[1:] / 40_000
    torch.testing.assert_close(sizes, torch.full((4,), 0.25), rtol=0, atol=0.01)
    torch.testing.assert_close(part.float().mean(1), torch.full((5,), 0.5), rtol=0, atol=0.01)


@given(hnp.arrays(bool, st.tuples(st.just(3), st.integers(2, 30))), st.integers(1, 29))
def test_inputs_are_standardised_over_the_rows_that_have_them_however_they_are_cut(present: np.ndarray, cut: int):
    rows = {name: 3 * x + 7 for name, x in features(present.shape[1]).items()}
    flow, masks, posterior = FlowBridge(WIDTHS, D, width=8), torch.as_tensor(present), gaussians(present.shape[1])
    parts = [slice(0, cut), slice(cut, None)]
    flow.standardise(
        ({name: x[part] for name, x in rows.items()}, masks[:, part], diagonal_normal(posterior.mean[part], posterior.stddev[part]))
        for part in parts
    )
    loc, scale = flow.loc.split([*WIDTHS.values(), D]), flow.scale.split([*WIDTHS.values(), D])
    for mask, name, mean, spread in zip(masks, WIDTHS, loc, scale, strict=False):
        seen = rows[name][mask].double()
        expected = seen.mean(0) if len(seen) else torch.zeros(WIDTHS[name])
        torch.testing.assert_close(mean, expected.float(), rtol=1e-4, atol=1e-4)
        if len(seen) > 1:
            torch.testing.assert_close(spread, seen.std(0, correction=0).float(), rtol=1e-3, atol=1e-3)
        else:
            assert torch.equal(spread, torch.ones(WIDTHS[name]))
    aggregate = posterior.mean.var(0, correction=0) + posterior.variance.mean(0)
    torch.testing.assert_close(loc[-1], posterior.mean.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scale[-1], aggregate.sqrt(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flow.end, posterior.variance.reciprocal().mean(0).rsqrt(), rtol=1e-4, atol=1e-4)


def test_the_average_that_serves_is_the_exponential_one_of_the_weights():
    flow = FlowBridge(WIDTHS, D, width=8, decay=0.5).train()
    optimizer = torch.optim.SGD(flow.parameters(), lr=0.1)
    mean = [parameter.detach().clone() for parameter in flow.network.parameters()]
    present = torch.ones(3, 20, dtype=torch.bool)
    for number in range(1, 6):
        given_ = random_subset(present)
        mean = [
            torch.lerp(m, p.detach(), 1 - min((number + 1) / (number + 10), 0.5))
            for m, p in zip(mean, flow.network.parameters(), strict=True)
        ]
        optimizer.zero_grad()
        flow.update_average()
        flow.loss(features(20), given_, gaussians(20), gaussians(20, 1)).mean().backward()
        optimizer.step()
    for found, expected in zip(flow.average.buffers(), mean, strict=True):
        torch.testing.assert_close(found, expected)
    assert not any(name.startswith("average") for name, _ in flow.named_parameters())


def test_what_is_served_depends_on_the_averaged_weights_alone_and_what_is_learned_on_the_last_ones():
    flow, rows = FlowBridge(WIDTHS, D, width=8, steps=2), 6
    everything, noise, product = torch.ones(3, rows, dtype=torch.bool), torch.randn(2, rows, D), gaussians(rows)

    def served() -> Tensor:
        return flow.eval().draw(features(rows), everything, product, noise).mean

    def loss() -> Tensor:
        torch.manual_seed(0)
        return flow.train().loss(features(rows), everything, product, gaussians(rows, 1))

    with torch.no_grad():
        for mean, last in zip(flow.average.buffers(), flow.network.parameters(), strict=True):
            mean.normal_()
            last.normal_()
        drawn, learned = served(), loss()
        for last in flow.network.parameters():
            last.normal_()
        assert torch.equal(served(), drawn)
        assert (loss() != learned).all()
        learned = loss()
        for mean in flow.average.buffers():
            mean.normal_()
        assert torch.equal(loss(), learned)
        assert (served() != drawn).all()


def test_it_learns_modes_that_a_product_of_gaussians_cannot_have():
    """Given nothing of use, z is near (1, 1) or (-1, -1); given the sign, it is there. Of a product both dimensions are independent."""
    torch.manual_seed(0)
    rows = 1024
    sign = (torch.arange(rows) % 2 * 2 - 1)[:, None].float()
    h = {"sign": sign, "nothing": torch.zeros(rows, 1)}
    flow = FlowBridge({"sign": 1, "nothing": 1}, 2, width=32, blocks=1, decay=0.98)
    posterior = diagonal_normal(sign.expand(rows, 2), torch.full((rows, 2), 0.2))
    flow.standardise([(h, torch.ones(2, rows, dtype=torch.bool), posterior)])
    prior = diagonal_normal(torch.zeros(rows, 2), torch.full((rows, 2), 1.04**0.5))
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for _ in range(400):
        shown = torch.rand(rows) < 0.5
        optimizer.zero_grad()
        flow.update_average()
        flow.loss(h, torch.stack([shown, ~shown]), prior, posterior).mean().backward()
        optimizer.step()
    noise, shown = torch.randn(1, rows, 2), torch.ones(rows, dtype=torch.bool)
    with torch.no_grad():
        free = flow.eval().draw(h, torch.stack([~shown, shown]), prior, noise).sample()[0]
        told = flow.draw(h, torch.stack([shown, ~shown]), prior, noise).sample()[0]
    assert (free.sign()[:, 0] == free.sign()[:, 1]).float().mean() > 0.97
    assert 0.4 < (free[:, 0] > 0).float().mean() < 0.6
    assert (told.sign() == sign).float().mean() > 0.97
    for drawn in (free, told):
        assert drawn.abs().mean().item() == pytest.approx(1, abs=0.1)
        assert (drawn - drawn.sign()).std().item() == pytest.approx(NOISE_SCALE * 0.2, abs=0.06)


def test_the_start_widens_where_the_product_is_too_narrow_by_the_number_given():
    """Rows spread three times as far as a product of two says, and as far as a product of one does."""
    torch.manual_seed(0)
    rows, flow = 2000, FlowBridge({"a": 1, "b": 1}, 2, width=8, blocks=1)
    flow.end.fill_(0.01)
    h, two = {"a": torch.zeros(rows, 1), "b": torch.zeros(rows, 1)}, torch.arange(rows) % 2 == 0
    product = diagonal_normal(torch.zeros(rows, 2), torch.ones(rows, 2))
    posterior = diagonal_normal(torch.randn(rows, 2) * torch.where(two, 3.0, 1.0)[:, None], torch.full((rows, 2), 0.01))
    optimizer = torch.optim.Adam([flow.widening], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        flow.loss(h, torch.stack([torch.ones_like(two), two]), product, posterior).mean().backward()
        optimizer.step()
    torch.testing.assert_close(flow.widening.exp(), torch.tensor([[1.0, 1.0], [3.0, 3.0]]), rtol=0.1, atol=0)


def test_importance_weights_are_unbiased_whatever_the_flow_draws():
    """A linear-Gaussian model, whose evidence is known, and a flow that was never trained."""
    oracle = LinearGaussian.random({"a": 3, "b": 2, "c": 2}, 2, seed=1)
    encoders = {name: EvidenceEncoder(oracle.loadings[name], oracle.offsets[name], oracle.noise[name]) for name in oracle.loadings}
    decoders = {}
    for name, W in oracle.loadings.items():
        network = nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64)
        network.load_state_dict({"weight": torch.as_tensor(W), "bias": torch.as_tensor(oracle.offsets[name])})
        decoders[name] = Decoder(network, Normal((len(W),), scale=float(oracle.noise[name]), standardize=False))
    torch.manual_seed(0)
    flow = FlowBridge({name: encoder.features for name, encoder in encoders.items()}, oracle.latent_dim, width=16, steps=3)
    flow.average.last.load_state_dict({name: 30 * x for name, x in flow.average.last.state_dict().items()})
    # Wider than any posterior, as a proposal has to be.
    flow.end.fill_(1 / NOISE_SCALE)
    nn.init.constant_(flow.widening, math.log(0.5))
    fusion = SumOfEvidence(oracle.latent_dim)
    model = FlowBridgedVAE(encoders, decoders, fusion, flow, dict.fromkeys(encoders, fusion)).double().eval()
    x = oracle.sample(6, seed=2)
    batch = Batch.complete({name: torch.as_tensor(value) for name, value in x.items()})
    for proposal in (("a",), ("b", "c")):
        q = model.posterior(batch.only(*proposal), 2)
        assert (q.mean[0] - q.mean[1]).abs().min() > 1e-4
        found = log_likelihood_rows(model, batch, proposal, samples=20_000)
        exact = np.array([oracle.log_prob({name: x[name][row] for name in proposal}) for row in range(6)])
        error = found.standard_error.numpy()
        assert (error < 0.1).all()
        assert (np.abs(found.log_likelihood.numpy() - exact) < 4 * error + 1e-3).all()


OWN = {"bridges": {**SPEC["bridges"], "encoders": "own"}}


@pytest.mark.parametrize("changes", [{}, OWN])
def test_a_bridged_model_with_a_flow_is_a_model_like_any_other(changes: Mapping[str, Any]):
    check_model(nbridge.build_model(spec(**changes)))


@pytest.mark.parametrize("changes", [{}, OWN, {"bridges": {"type": "flow", "blocks": 3}}])
def test_its_parameters_are_counted(changes: Mapping[str, Any]):
    """One fusion, one flow and a guide for each of three modalities."""
    table = count_parameters(spec(**changes))
    assert table.models[0].formula == table.models[0].counted
    assert table.models[0].networks == 5
    assert sum(table.parts.values()) == table.models[0].formula


def model_and_rows(changes: Mapping[str, Any]) -> tuple[FlowBridgedVAE, Batch]:
    """A model, and rows of every pattern of presence."""
    model = grown_model(spec(**changes), 0)
    assert isinstance(model, FlowBridgedVAE)
    present = torch.tensor([[row >> i & 1 for row in range(8)] for i in range(3)], dtype=torch.bool)
    rows = Batch(rows_of(model, 8, 1), dict(zip(model.names, present, strict=True)))
    return model, model.prepare(rows)


@pytest.mark.parametrize("changes", [{}, OWN])
def test_guides_learn_the_posterior_of_all_that_a_row_has_and_nothing_from_the_flow(changes: Mapping[str, Any]):
    model, batch = model_and_rows(changes)
    stage = model.stages()[1]
    features = stage.features(batch)
    model.bridges.train()
    terms = stage.loss(batch, features, 1.0)
    encoded = model.encode(batch)
    expected, read, q = torch.zeros(()), model.inputs(batch) if changes else encoded, model.observed_posterior(encoded, batch)
    for name, guide in model.guides.items():
        rows = batch.present[name] & (model.presence(batch).sum(0) >= 2)
        expected = expected + diagonal_kl(q, guide(read))[rows].mean() / model.latent_dim
    torch.testing.assert_close(terms["distill"], expected, rtol=1e-4, atol=1e-4)
    for term, learns, others in (("flow", model.bridges, model.guides), ("distill", model.guides, model.bridges)):
        gradients = torch.autograd.grad(terms[term], list(learns.parameters()), retain_graph=True)
        assert all(bool(gradient.any()) for gradient in gradients)
        unreached = torch.autograd.grad(terms[term], list(others.parameters()), allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in unreached)


@pytest.mark.parametrize("changes", [{}, OWN])
def test_rows_are_served_around_the_product_of_what_is_observed(changes: Mapping[str, Any]):
    """Row by row, of every pattern, by a flow that stands still and noise of zero; complete rows have the joint posterior."""
    model, batch = model_and_rows(changes)
    still(model.bridges)
    found, encoded = model.fixed_posterior(batch, torch.zeros(1, model.noise_width)), model.encode(batch)
    read, joint = model.inputs(batch) if changes else encoded, model.fusion(encoded)
    for row in range(8):
        each = [model.guides[name]({name: read[name][row : row + 1]}) for name in model.names if bool(batch.present[name][row])]
        mean, scale = torch.zeros(model.latent_dim), torch.ones(model.latent_dim)
        if len(each) == 3:
            mean, scale = joint.mean[row], joint.stddev[row]
        elif each:
            parts = torch.stack([1 / q.variance[0] for q in each])
            precision = torch.maximum(parts.sum(0) - (len(each) - 1), parts.amax(0))
            mean, scale = (parts * torch.stack([q.mean[0] for q in each])).sum(0) / precision, NOISE_SCALE * model.bridges.end
        torch.testing.assert_close(found.mean[0, row], mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.stddev[0, row], scale, rtol=1e-4, atol=1e-5)


def test_many_draws_go_through_the_flow_in_pieces_and_come_out_the_same(monkeypatch: pytest.MonkeyPatch):
    model, batch = model_and_rows(OWN)
    torch.manual_seed(0)
    whole = model.posterior(batch, 5)
    monkeypatch.setattr(flow_bridged, "CHUNK_SAMPLES", 10)
    torch.manual_seed(0)
    pieces = model.posterior(batch, 5)
    torch.testing.assert_close(pieces.mean, whole.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces.stddev, whole.stddev, rtol=1e-4, atol=1e-5)


def test_guides_begin_with_the_weights_of_the_joint_encoders_and_are_one_for_each_modality():
    model, batch = model_and_rows(OWN)
    stage = model.stages()[1]
    assert stage.begin is not None
    assert stage.features is not None
    stage.begin([(batch, stage.features(batch))])
    for name, guide in model.guides.items():
        assert all(torch.equal(x, model.encoders[name].state_dict()[key]) for key, x in guide.encoders[name].state_dict().items())
    with pytest.raises(ValueError, match=r"^guides of \['top'\], expected one for each of top, bottom, label$"):
        FlowBridgedVAE(dict(model.encoders), dict(model.decoders), model.fusion, model.bridges, {"top": model.guides["top"]})


@pytest.mark.parametrize("own", [{}, OWN])
def test_training_goes_on_bit_identically_and_a_saved_model_draws_the_same(own: Mapping[str, Any], tmp_path: Path):
    changes = {"data": {"source": "digits"}, **own}
    whole = nbridge.train(spec(**changes), out=tmp_path / "whole")
    loaded = nbridge.load(tmp_path / "whole")
    rows = whole.splits.test.sample(20).only("label")
    one, two = whole.model.impute(rows, samples=3), loaded.impute(rows, samples=3)
    assert all(torch.equal(one.values[name], two.values[name]) for name in one.values)
    assert (whole.model.network.bridges.average.first.weight != whole.model.network.bridges.network.first.weight).any()
    assert (whole.model.network.bridges.scale != 1).any()
    # A model that was trained, or loaded, serves the averaged weights.
    for model in (whole.model, loaded):
        for parameter in model.network.bridges.network.parameters():
            torch.nn.init.zeros_(parameter)
        again = model.impute(rows, samples=3)
        assert all(torch.equal(one.values[name], again.values[name]) for name in one.values)


@pytest.mark.parametrize("key", ["objective", "combine"])
def test_a_flow_has_one_objective_and_needs_no_combination(key: str):
    with pytest.raises((SpecError, ValueError)) as refused:
        spec(bridges={"type": "flow", key: "mean" if key == "combine" else "paper"})
    assert f"'{key}' does not apply to bridges of type flow; remove it" in str(refused.value)
    resolved = spec().as_dict()["bridges"]
    assert key not in resolved
    assert nbridge.Spec.model_validate(spec().as_dict()) == spec()
