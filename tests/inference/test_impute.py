"""What must hold of every model, whatever its modalities: presence decides, order does not, and nothing observed is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from completing import impute_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model
from strategies import JOINT, MODELS, SEEDS, grown_model, rows_of, served, specs
from torch import Tensor

import nbridge
from nbridge.data.batch import Batch
from nbridge.data.output_names import IMPUTED
from nbridge.errors import DataError
from nbridge.inference import impute as imputation
from nbridge.inference.impute import embed, generate, impute
from nbridge.models.base import MultimodalVAE
from nbridge.models.bridged import BridgedVAE
from nbridge.models.experts import Experts
from nbridge.models.retrofit import Retrofit
from nbridge.nn.bridges import BridgeBank
from nbridge.nn.fusion import Fusion
from nbridge.nn.likelihoods import DiscretizedLogistic
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import load_model, save_model

Served = tuple[Spec, MultimodalVAE, Batch]
EXACT_KINDS = st.sampled_from(
    [("bridged", {"combine": "mean"}), ("bridged", {"combine": "poe"}), ("jmvae", {}), ("telbo", {}), ("mvae", {}), ("bivcca", {})]
)
"""Models that have the exact posterior of every subset, and their options."""
# Float64 through a dozen layers: batched products may sum in another order.
CLOSE = {"rtol": 1e-7, "atol": 1e-8}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Bit for bit, whatever the types."""
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert torch.equal(x.double(), other[name].double()), name


def whole_numbers(model: MultimodalVAE, name: str) -> bool:
    """Whether values are classes, counts or levels, which lie on a grid."""
    return type(model.likelihoods[name]).__name__ in {"Categorical", "Poisson", "NegativeBinomial", "DiscretizedLogistic"}


def spoilt(x: Tensor, present: Tensor, junk: float) -> Tensor:
    """The values, as floating point, with junk where the row is absent."""
    return torch.where(present.reshape(-1, *(1 for _ in x.shape[1:])), x.float(), junk)


def agree(model: MultimodalVAE, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Point estimates are equal in float64; levels averaged over 64 points may lie halfway between two, where the last bit decides."""
    for name, likelihood in model.likelihoods.items():
        step = (likelihood.high - likelihood.low) / (likelihood.levels - 1) if isinstance(likelihood, DiscretizedLogistic) else 0.0
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-6 + 1.001 * step)


def of_every_kind(test: Callable[..., None], kinds: Sequence[str] = MODELS) -> Callable[..., None]:
    """A test for each kind of model in turn, with a few examples of each."""
    return pytest.mark.parametrize("kind", kinds)(settings(max_examples=5, suppress_health_check=list(HealthCheck))(test))


# Presence


@of_every_kind
@given(data=st.data(), junk=st.sampled_from([float("nan"), 0.0, -7.5, 1e30, float("inf")]), samples=st.sampled_from([None, 1, 3]))
def test_what_absent_rows_hold_makes_no_difference(kind: str, junk: float, samples: int | None, data: st.DataObject) -> None:
    _, model, batch = data.draw(served(kinds=[kind]))
    dirty = Batch({name: spoilt(x, batch.present[name], junk) for name, x in batch.values.items()}, batch.present)
    clean = Batch({name: x.float() for name, x in batch.values.items()}, batch.present)
    same(impute(model, dirty, samples=samples, seed=3).values, impute(model, clean, samples=samples, seed=3).values)
    one, other = embed(model, dirty), embed(model, clean)
    same({"loc": one.mean, "scale": one.stddev}, {"loc": other.mean, "scale": other.stddev})


@partial(of_every_kind, kinds=JOINT)
@given(samples=st.sampled_from([None, 1, 3]), data=st.data())
def test_hiding_a_modality_equals_never_having_it(kind: str, samples: int | None, data: st.DataObject) -> None:
    _, model, batch = data.draw(served(kinds=[kind]))
    hidden = data.draw(st.lists(st.sampled_from(model.names), min_size=1, max_size=len(model.names) - 1, unique=True))
    never = Batch(
        {name: x for name, x in batch.values.items() if name not in hidden},
        {name: mask for name, mask in batch.present.items() if name not in hidden},
    )
    had, without = impute(model, batch.hide(*hidden), samples=samples, seed=3), impute(model, never, samples=samples, seed=3)
    same(had.values, without.values)
    same(had.mask, without.mask)
    assert all(without.mask[name].all() for name in hidden)


@of_every_kind
@given(data=st.data())
def test_rows_with_nothing_observed_are_served_from_the_prior_exactly(kind: str, data: st.DataObject) -> None:
    _, model, batch = data.draw(served(kinds=[kind]))
    q = model.posterior(batch.hide(*batch.names), samples=2)
    assert (q.mean == 0).all()
    assert (q.stddev == 1).all()
    some = torch.stack(list(batch.present.values())).any(0)
    mixed = model.posterior(batch)
    assert (mixed.mean[:, ~some] == 0).all()
    assert (mixed.stddev[:, ~some] == 1).all()


# Order


@of_every_kind
@given(data=st.data(), seed=SEEDS)
def test_the_order_of_rows_does_not_matter(kind: str, seed: int, data: st.DataObject) -> None:
    _, model, batch = data.draw(served(kinds=[kind]))
    model.double()  # So that no rounding error tips a class or a count over.
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    q, shuffled = model.posterior(batch), model.posterior(batch.index(order))
    torch.testing.assert_close(shuffled.mean, q.mean[:, order], **CLOSE)
    torch.testing.assert_close(shuffled.stddev, q.stddev[:, order], **CLOSE)
    done, again = impute(model, batch).values, impute(model, batch.index(order)).values
    agree(model, again, {name: x[order] for name, x in done.items()})


@of_every_kind
@given(data=st.data())
def test_a_row_served_in_a_mixed_batch_equals_the_row_served_alone(kind: str, data: st.DataObject) -> None:
    _, model, batch = data.draw(served(kinds=[kind]))
    model.double()  # So that no rounding error tips a class or a count over.
    together, q = impute(model, batch).values, model.posterior(batch)
    for row in range(len(batch)):
        one = batch.slice(row, row + 1)
        torch.testing.assert_close(model.posterior(one).mean[:, 0], q.mean[:, row], **CLOSE)
        torch.testing.assert_close(model.posterior(one).stddev[:, 0], q.stddev[:, row], **CLOSE)
        agree(model, impute(model, one).values, {name: x[row : row + 1] for name, x in together.items()})


def carried_over(model: MultimodalVAE, other: MultimodalVAE) -> None:
    """Copies weights between two models that differ in the order of their modalities alone."""
    widths = {name: encoder.features for name, encoder in model.encoders.items()}
    other.encoders.load_state_dict(model.encoders.state_dict())
    other.decoders.load_state_dict(model.decoders.state_dict())
    if isinstance(model, Experts):
        other.heads.load_state_dict(model.heads.state_dict())
        return
    other.fusion.load_state_dict(in_order(model.fusion, other.fusion, widths))
    if isinstance(model, Retrofit):
        of_subset = {frozenset(network.encoders): network for network in model.networks.values()}
        for network in other.networks.values():
            twin = of_subset[frozenset(network.encoders)]
            network.encoders.load_state_dict(twin.encoders.state_dict())
            network.fusion.load_state_dict(in_order(twin.fusion, network.fusion, widths))
    if isinstance(model, BridgedVAE):
        other.bridges.load_state_dict(bridges_in_order(model.bridges, other.bridges))
        other.sources.load_state_dict(model.sources.state_dict())


def in_order(fusion: Fusion, other: Fusion, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The state of a fusion, with the columns of each modality in the order of another fusion."""
    state = fusion.state_dict()
    first = state["network.layers.0.weight"]
    columns = dict(zip(fusion.names, first.split([widths[name] for name in fusion.names], 1), strict=True))
    return state | {"network.layers.0.weight": torch.cat([columns[name] for name in other.names], 1)}


def bridges_in_order(bank: BridgeBank, other: BridgeBank) -> dict[str, Tensor]:
    """The state of a bank, with the bridges of each stack in the order of another bank."""
    state = bank.state_dict()
    order = {shape: [bank.groups[shape].index(pair) for pair in pairs] for shape, pairs in other.groups.items()}
    return {name: tensor[order[name.split(".")[1]]] for name, tensor in state.items()}


@partial(of_every_kind, kinds=JOINT)
@given(seed=SEEDS, data=st.data())
def test_the_order_of_modalities_in_the_spec_changes_nothing(kind: str, seed: int, data: st.DataObject) -> None:
    spec = data.draw(specs(kinds=[kind]))
    model = grown_model(spec, seed).double()
    names = data.draw(st.permutations(model.names))
    plain = spec.as_dict()
    other_spec = Spec.model_validate(plain | {"modalities": {name: plain["modalities"][name] for name in names}})
    other = grown_model(other_spec, seed + 1).double()
    assert list(other.names) == names
    carried_over(model, other)
    present = data.draw(hnp.arrays(bool, (len(names), 4)))
    values = rows_of(model, 4, seed)
    batch = Batch(values, {name: torch.as_tensor(mask.copy()) for name, mask in zip(values, present, strict=True)})
    q, other_q = model.posterior(batch), other.posterior(batch)
    torch.testing.assert_close(other_q.mean, q.mean, **CLOSE)
    torch.testing.assert_close(other_q.stddev, q.stddev, **CLOSE)
    done, other_done = impute(model, batch).values, impute(other, batch).values
    agree(model, other_done, done)
    z = q.mean
    torch.testing.assert_close(other.log_joint(batch, z), model.log_joint(batch, z), **CLOSE)


# What comes back


@given(drawn=served(), samples=st.sampled_from([None, 2]), kind=st.sampled_from([torch.float64, torch.float32, torch.int64]))
def test_observed_values_come_back_bit_identical_in_their_own_type(drawn: Served, samples: int | None, kind: torch.dtype) -> None:
    _, model, batch = drawn
    given_values = {name: x if kind is torch.int64 and not x.is_floating_point() else x.to(kind) for name, x in batch.values.items()}
    if kind is torch.float64:
        # Digits that float32 cannot hold.
        given_values = {name: x * (1 - 1e-12) if not whole_numbers(model, name) else x for name, x in given_values.items()}
    done = impute(model, Batch(given_values, batch.present), samples=samples)
    for name, x in given_values.items():
        observed = batch.present[name]
        assert done.values[name].dtype == x.dtype
        assert torch.equal(done.mask[name], ~observed)
        for draw in [done.values[name]] if samples is None else done.values[name]:
            assert torch.equal(draw[observed], x[observed])


@given(drawn=served(), samples=st.sampled_from([None, 2]), as_ints=st.booleans(), one_hot=st.booleans())
def test_arrays_come_back_with_their_holes_filled_and_nothing_else_changed(
    drawn: Served, samples: int | None, as_ints: bool, one_hot: bool
) -> None:
    _, model, batch = drawn
    arrays: dict[str, np.ndarray] = {"id": np.arange(len(batch))}
    for name, x in batch.values.items():
        array, observed = x.numpy().astype(np.float64), batch.present[name].numpy()
        if one_hot and x.ndim == 1:
            array = np.eye(model.likelihoods[name].shape[0])[x.numpy()]
        if as_ints and whole_numbers(model, name):
            arrays[name], arrays[name + "__present"] = array.round().astype(np.int32), observed
        else:
            array[~observed] = np.nan
            arrays[name] = array * (1 if whole_numbers(model, name) else 1 - 1e-12)
    before = {name: array.copy() for name, array in arrays.items()}
    done = impute_arrays(model, arrays, samples=samples)
    assert set(done) == {"id", *model.names, *(name + IMPUTED for name in model.names)}
    np.testing.assert_array_equal(done["id"], before["id"])
    for name in model.names:
        np.testing.assert_array_equal(arrays[name], before[name])
        observed = batch.present[name].numpy()
        draws = done[name] if samples else done[name][None]
        assert draws.shape == (samples or 1, *before[name].shape)
        assert draws.dtype == before[name].dtype
        assert np.isfinite(draws).all()
        np.testing.assert_array_equal(done[name + IMPUTED], ~observed)
        for draw in draws:
            np.testing.assert_array_equal(draw[observed], before[name][observed])


@given(drawn=served(), samples=st.integers(1, 4), noise=st.booleans())
def test_draws_have_the_sample_axis_first_and_lie_in_the_support(drawn: Served, samples: int, noise: bool) -> None:
    _, model, batch = drawn
    done = impute(model, batch, samples=samples, noise=noise)
    for name, likelihood in model.likelihoods.items():
        x = done.values[name]
        assert x.shape == (samples, *batch.values[name].shape)
        assert x.isfinite().all()
        assert likelihood.support.check(x).all()
    point = impute(model, batch)
    for name, likelihood in model.likelihoods.items():
        assert point.values[name].shape == batch.values[name].shape
        assert likelihood.support.check(point.values[name]).all()


@given(drawn=served(max_size=3), samples=st.sampled_from([None, 2]))
def test_the_same_seed_gives_the_same_draws_and_leaves_the_callers_generator_and_mode_alone(drawn: Served, samples: int | None) -> None:
    _, model, batch = drawn
    model.train()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = impute(model, batch, samples=samples, seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())
    same(one.values, impute(model, batch, samples=samples, seed=5).values)


def test_cells_that_are_absent_are_imputed_and_the_others_kept() -> None:
    spec = Spec.model_validate(
        {
            "latent_dim": 2,
            "modalities": {
                "x": {"shape": [2, 3], "encoder": "mlp", "likelihood": "normal"},
                "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"},
            },
        }
    )
    model = grown_model(spec, 0)
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    x[0, 1, 2], x[3, 0], x[4] = np.nan, np.nan, np.nan
    done = impute_arrays(model, {"x": x, "y": np.array([0, 1, 2, 0, 1])}, samples=2)
    np.testing.assert_array_equal(done["x__imputed"], np.isnan(x))
    for draw in done["x"]:
        np.testing.assert_array_equal(draw[~np.isnan(x)], x[~np.isnan(x)])
    assert np.isfinite(done["x"]).all()
    # What lies under an absent cell makes no difference.
    cells = torch.as_tensor(~np.isnan(x))
    present = {"x": torch.tensor([True] * 4 + [False])}
    points = [
        impute(model, Batch({"x": torch.where(cells, torch.as_tensor(x).float(), junk)}, present, {"x": cells})).values
        for junk in (float("nan"), 0.0, 50.0)
    ]
    same(points[0], points[1])
    same(points[0], points[2])


# One draw for all


@given(seed=SEEDS, kind=EXACT_KINDS)
def test_all_absent_modalities_are_decoded_from_one_draw(seed: int, kind: tuple[str, dict[str, str]]) -> None:
    oracle = LinearGaussian.random({"seen": 2, "left": 2, "right": 2}, 2, seed)
    # Left and right are the same function of z, and nearly free of noise.
    noise = {"seen": 1.0, "left": 1e-4, "right": 1e-4}
    oracle = replace(oracle, loadings={**oracle.loadings, "right": oracle.loadings["left"]}, noise=noise)
    oracle = replace(oracle, offsets={**oracle.offsets, "right": oracle.offsets["left"]})
    model = exact_model(oracle, kind[0], **kind[1])
    rows = torch.as_tensor(oracle.sample(5, seed)["seen"])
    for batch in (Batch.complete({"seen": rows}), Batch.complete({"seen": rows}).hide("seen")):
        for with_noise in (False, True):
            draws = impute(model, batch, samples=20, noise=with_noise, seed=seed).values
            # Six standard deviations of the difference of two such noises.
            torch.testing.assert_close(draws["left"], draws["right"], rtol=0, atol=6 * 1.5e-4 if with_noise else 1e-12)
            assert draws["left"].std(0).min() > 1e-2, "draws of z differ"


@given(seed=SEEDS)
def test_absent_cells_of_a_completion_are_decoded_from_the_draw_that_serves_absent_modalities(seed: int) -> None:
    oracle = LinearGaussian.random({"left": 3, "right": 3}, 2, seed)
    oracle = replace(oracle, loadings=dict.fromkeys(("left", "right"), oracle.loadings["left"]))
    oracle = replace(oracle, offsets=dict.fromkeys(("left", "right"), oracle.offsets["left"]), noise={"left": 1e-4, "right": 1e-4})
    left = torch.as_tensor(oracle.sample(5, seed)["left"])
    cells = torch.tensor([[True, False, False]]).expand(5, 3)
    batch = Batch({"left": left}, {"left": torch.ones(5, dtype=torch.bool)}, {"left": cells})
    # A cell that is left tells less than the exact model's encoder takes it to: what counts is that both come from one z.
    draws = impute(exact_model(oracle), batch, samples=20, seed=seed).values
    assert all(torch.equal(draw[:, 0], left[:, 0]) for draw in draws["left"])
    torch.testing.assert_close(draws["left"][..., 1:], draws["right"][..., 1:], rtol=0, atol=6 * 1.5e-4)


@settings(max_examples=6)
@given(seed=SEEDS, kind=EXACT_KINDS)
def test_draws_follow_the_conditional_of_a_linear_gaussian_model(seed: int, kind: tuple[str, dict[str, str]]) -> None:
    oracle = LinearGaussian.random({"a": 3, "b": 2, "c": 2}, 2, seed)
    model = exact_model(oracle, kind[0], **kind[1])
    x = {name: value[0] for name, value in oracle.sample(1, seed).items()}
    for seen in ((), ("a",), ("a", "c")):
        given_values = {name: x[name] for name in seen}
        batch = Batch.complete({name: torch.as_tensor(value)[None] for name, value in x.items()})
        done = impute(model, batch.only(*seen), samples=4000, seed=seed).values
        targets = [name for name in x if name not in seen]
        draws = np.concatenate([done[name][:, 0].double().numpy() for name in targets], 1)
        mean, covariance = oracle.conditional(targets, given_values)
        deviation = np.sqrt(np.diag(covariance))
        # 4000 draws: standard errors of .016 for a mean, .011 to .016 for an entry of the correlation; six of them are allowed.
        np.testing.assert_allclose(draws.mean(0) / deviation, mean / deviation, atol=0.1)
        scale = np.outer(deviation, deviation)
        np.testing.assert_allclose(np.cov(draws.T) / scale, covariance / scale, atol=0.14)
        point = impute(model, batch.only(*seen)).values
        # 64 quasi-random points average to zero within a few hundredths.
        got = np.concatenate([point[name][0].double().numpy() for name in targets])
        np.testing.assert_allclose(got / deviation, mean / deviation, atol=0.06)


# From the disk and back


@of_every_kind
@given(data=st.data())
def test_a_model_that_was_saved_and_loaded_gives_equal_outputs(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    spec, model, batch = data.draw(served(max_size=4, kinds=[kind]))
    save_model(tmp_path, model, spec)
    loaded, loaded_spec, _ = load_model(tmp_path)
    assert loaded_spec == spec
    assert not loaded.training
    same(loaded.state_dict(), model.state_dict())
    for samples in (None, 2):
        same(impute(loaded, batch, samples=samples).values, impute(model, batch, samples=samples).values)


@given(spec=specs(1, 6))
def test_a_resolved_spec_is_a_fixed_point(spec: Spec) -> None:
    resolved = spec.as_dict()
    again = Spec.model_validate(resolved)
    assert again == spec
    assert again.as_dict() == resolved
    assert list(again.modalities) == list(spec.modalities)


# Generation, embedding and mistakes


@given(drawn=served(max_size=4), num=st.integers(1, 5), data=st.data())
def test_generated_rows_hold_what_was_given(drawn: Served, num: int, data: st.DataObject) -> None:
    _, model, batch = drawn
    names = data.draw(st.lists(st.sampled_from(model.names), unique=True))
    shared = {name: batch.values[name][0] for name in names}
    made = generate(model, num, shared, seed=2)
    assert list(made) == list(model.names)
    for name, x in made.items():
        assert x.shape == (num, *batch.values[name].shape[1:])
        assert x.isfinite().all()
        if name in names:
            assert torch.equal(x, shared[name].expand(num, *shared[name].shape))


@given(drawn=served(max_size=4))
def test_embedding_is_the_posterior_of_each_row(drawn: Served) -> None:
    _, model, batch = drawn
    q, posterior = embed(model, batch, samples=3), model.posterior(batch)
    assert q.batch_shape == (len(batch),)
    # The variance goes through a mean, a log and an exponential.
    torch.testing.assert_close(q.mean, posterior.mean[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.stddev, posterior.stddev[0], rtol=1e-5, atol=1e-5)


def test_rows_served_in_several_parts_equal_rows_served_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec.model_validate(
        {
            "modalities": {
                "x": {"shape": 4, "encoder": "mlp", "likelihood": "normal", "features": 4},
                "y": {"shape": 3, "encoder": "mlp", "likelihood": "bernoulli", "features": 4},
            }
        }
    )
    model = grown_model(spec, 0)
    batch = Batch.complete(rows_of(model, 11, 0)).hide("y")
    once = impute(model, batch).values
    monkeypatch.setattr("nbridge.inference.impute.ELEMENTS", 64 * 7 * 3)
    # Float32.
    torch.testing.assert_close(impute(model, batch).values, once, rtol=1e-4, atol=1e-5)
    assert impute(model, batch, samples=100).values["y"].shape == (100, 11, 3)


def test_a_point_estimate_of_some_rows_is_theirs_among_all() -> None:
    kinds = {"x": (4, "normal"), "y": (3, "bernoulli"), "label": (5, "categorical"), "count": (2, "poisson")}
    modalities = {name: {"shape": size, "encoder": "mlp", "likelihood": kind} for name, (size, kind) in kinds.items()}
    model = grown_model(Spec.model_validate({"modalities": modalities}), 0)
    batch = Batch.complete(rows_of(model, 9, 0))
    some = torch.arange(9) % 4 == 1
    for name in model.names:
        present = {**batch.present, name: ~some}
        done = impute(model, Batch(batch.values, present)).values[name]
        # Rows in which nothing is absent are not decoded: here they are.
        points, noise = imputation.fixed_points(model)
        z = imputation.point_draws(model.fixed_posterior(Batch(batch.values, present), noise), points)
        expected = imputation.decode(model, name, z, point=True)
        torch.testing.assert_close(done[some], model.likelihoods[name].restore(expected, batch.values[name])[some], rtol=1e-6, atol=1e-6)
        assert torch.equal(done[~some], batch.values[name][~some])


def test_no_rows_in_gives_no_rows_out() -> None:
    spec = Spec.model_validate({"modalities": {name: {"shape": 2, "encoder": "mlp", "likelihood": "normal"} for name in "xy"}})
    model = nbridge.build_model(spec)
    done = impute(model, Batch.complete({"x": torch.zeros(0, 2)}))
    assert done.values["y"].shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": torch.zeros(2, 3)}, r"modality 'x': values of shape \(2, 3\), expected \(rows, 2\)"),
        ({"z": torch.zeros(2, 2)}, "no modality 'z' in this model; it has x, y"),
        ({"y": torch.tensor([[0.5], [1.5]])}, "modality 'y', row 1: value 1.5 is outside the support of Bernoulli, numbers from 0 to 1"),
        ({"x": torch.tensor([[0.0, float("nan")]])}, "modality 'x', row 0: value nan is outside the support of Normal, finite numbers"),
        ({"x": torch.tensor([[0.0, float("inf")]])}, "modality 'x', row 0: value inf is outside the support of Normal, finite numbers"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_refused_by_name(values: dict[str, Tensor], message: str) -> None:
    parts = {"x": (2, "normal"), "y": (1, "bernoulli")}
    spec = {"modalities": {name: {"shape": size, "encoder": "mlp", "likelihood": kind} for name, (size, kind) in parts.items()}}
    model = nbridge.build_model(Spec.model_validate(spec))
    for serve in (impute, embed):
        with pytest.raises(DataError, match=message):
            serve(model, Batch.complete(values))
