"""Stacked networks equal looped ones; masked normalisation sees the rows that count; convolutions end where they should."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nbridge.nn.networks import MLP, ConvDown, ConvUp, StackedBatchNorm, StackedMLP, activation_module, halved_sizes
from nbridge.spec.option_types import Activation

SEEDS = st.integers(0, 2**31)
SIZES = st.integers(1, 5)


def randomise(modules: Iterable[nn.Module]) -> None:
    """Weights and running statistics as they might be after training."""
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)


def looped(stacked: StackedMLP) -> list[MLP]:
    """The same networks one by one, float64, with the same weights and statistics."""
    stack = len(stacked.linears[0].weight)
    widths = [stacked.linears[0].weight.shape[2], *(linear.weight.shape[1] for linear in stacked.linears)]
    singles = [MLP(widths[0], widths[-1], hidden=widths[1:-1], batch_norm=len(stacked.norms) > 0).double() for _ in range(stack)]
    for p, single in enumerate(singles):
        for linear, source in zip(layers(single, nn.Linear), stacked.linears, strict=True):
            linear.load_state_dict({"weight": source.weight[p], "bias": source.bias[p, 0]})
        for norm, source in zip(layers(single, nn.BatchNorm1d), stacked.norms, strict=True):
            state = {name: tensor[p] for name, tensor in source.state_dict().items()}
            norm.load_state_dict(state | {"num_batches_tracked": torch.tensor(0)})
    return singles


def layers(network: MLP, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


@given(
    stack=SIZES,
    inputs=SIZES,
    outputs=SIZES,
    hidden=st.lists(SIZES, max_size=3),
    rows=st.integers(2, 6),
    batch_norm=st.booleans(),
    training=st.booleans(),
    seed=SEEDS,
)
def test_stacked_networks_equal_looped_ones_in_values_gradients_and_statistics(
    stack: int, inputs: int, outputs: int, hidden: list[int], rows: int, batch_norm: bool, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    stacked = StackedMLP(stack, inputs, outputs, hidden=hidden, batch_norm=batch_norm).double()
    randomise([stacked])
    singles = looped(stacked)
    for network in (stacked, *singles):
        network.train(training)
    x_PBI = torch.randn(stack, rows, inputs, dtype=torch.float64, requires_grad=True)
    target_PBO = torch.randn(stack, rows, outputs, dtype=torch.float64)
    y_PBO = stacked(x_PBI)
    y_loop_PBO = torch.stack([single(x_BI) for single, x_BI in zip(singles, x_PBI, strict=True)])
    torch.testing.assert_close(y_PBO, y_loop_PBO, rtol=1e-8, atol=1e-8)

    own = [parameter for linear in stacked.linears for parameter in linear.parameters()] + list(stacked.norms.parameters())
    got = torch.autograd.grad((y_PBO * target_PBO).sum(), [x_PBI, *own])
    loss = (y_loop_PBO * target_PBO).sum()
    (x_gradient,) = torch.autograd.grad(loss, [x_PBI], retain_graph=True)
    loss.backward()
    expected = [x_gradient]
    for kind, count in ((nn.Linear, len(stacked.linears)), (nn.BatchNorm1d, len(stacked.norms))):
        for depth in range(count):
            twins = [layers(single, kind)[depth] for single in singles]
            weight = torch.stack([twin.weight.grad for twin in twins])
            bias = torch.stack([twin.bias.grad for twin in twins])
            expected += [weight, bias[:, None] if kind is nn.Linear else bias]
    # Float64; with two rows alike in a unit the normalisation divides by sqrt(1e-5), which magnifies rounding.
    torch.testing.assert_close(list(got), expected, rtol=1e-6, atol=1e-6)
    for depth, norm in enumerate(stacked.norms):
        for name in ("running_mean", "running_var"):
            twins = torch.stack([getattr(layers(single, nn.BatchNorm1d)[depth], name) for single in singles])
            torch.testing.assert_close(getattr(norm, name), twins, rtol=1e-10, atol=1e-10)


@given(stack=SIZES, width=SIZES, rows=st.integers(2, 8), seed=SEEDS, junk=st.sampled_from([0.0, 1.0, 1e6, -1e30]))
def test_masked_normalisation_equals_that_of_the_counted_rows_alone(stack: int, width: int, rows: int, seed: int, junk: float) -> None:
    torch.manual_seed(seed)
    norm = StackedBatchNorm(stack, width).double()
    randomise([norm])
    counts_PB = torch.rand(stack, rows) < 0.6
    clean_PBC = torch.randn(stack, rows, width, dtype=torch.float64)
    x_PBC = torch.where(counts_PB[..., None], clean_PBC, junk).requires_grad_()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    y_PBC = norm(x_PBC, counts_PB)
    target_PBC = torch.randn_like(clean_PBC) * counts_PB[..., None]
    gradients = torch.autograd.grad((torch.where(counts_PB[..., None], y_PBC, 0.0) * target_PBC).sum(), [x_PBC, norm.weight, norm.bias])
    for p in range(stack):
        single = nn.BatchNorm1d(width).double()
        single.load_state_dict({name: tensor[p] for name, tensor in before.items()} | {"num_batches_tracked": torch.tensor(0)})
        rows_p = counts_PB[p]
        usable = int(rows_p.sum()) >= 2
        x_BC = clean_PBC[p, rows_p].requires_grad_()
        y_BC = single.train(usable)(x_BC)
        # Float64; two nearly equal rows magnify rounding by 1 / sqrt(eps).
        torch.testing.assert_close(y_PBC[p, rows_p], y_BC, rtol=1e-7, atol=1e-7)
        for got, name in ((norm.running_mean[p], "running_mean"), (norm.running_var[p], "running_var")):
            torch.testing.assert_close(got, getattr(single, name), rtol=1e-10, atol=1e-10)
            if not usable:
                assert torch.equal(got, before[name][p])
        expected = torch.autograd.grad((y_BC * target_PBC[p, rows_p]).sum(), [x_BC, single.weight, single.bias])
        torch.testing.assert_close(gradients[0][p, rows_p], expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close([gradients[1][p], gradients[2][p]], list(expected[1:]), rtol=1e-6, atol=1e-6)
        assert (gradients[0][p, ~rows_p] == 0).all()


@given(stack=SIZES, rows=st.integers(2, 6), hidden=st.lists(SIZES, min_size=1, max_size=2), seed=SEEDS)
def test_counting_every_row_equals_counting_none_explicitly(stack: int, rows: int, hidden: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    one, other = (StackedMLP(stack, 3, 2, hidden=hidden).double() for _ in range(2))
    randomise([one])
    other.load_state_dict(one.state_dict())
    x_PBI = torch.randn(stack, rows, 3, dtype=torch.float64)
    torch.testing.assert_close(one(x_PBI, torch.ones(stack, rows, dtype=torch.bool)), other(x_PBI), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-10, atol=1e-10)


def test_in_eval_mode_the_rows_that_count_make_no_difference() -> None:
    torch.manual_seed(0)
    norm = StackedBatchNorm(2, 3)
    randomise([norm])
    norm.eval()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x_PBC = torch.randn(2, 5, 3)
    assert torch.equal(norm(x_PBC, torch.rand(2, 5) < 0.5), norm(x_PBC))
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())


def test_every_stacked_map_starts_like_a_linear_layer() -> None:
    torch.manual_seed(0)
    linear = StackedMLP(200, 16, 8, batch_norm=False).linears[0]
    for got, like in ((linear.weight, nn.Linear(16, 8 * 200).weight), (linear.bias, nn.Linear(16, 8 * 200).bias)):
        # Uniform over (-1/4, 1/4): the standard error of the deviation of 1600 numbers or more is below 2 %.
        assert got.std().item() == pytest.approx(like.std().item(), rel=0.06)
        assert got.abs().max() <= 0.25
    assert len(linear.bias.unique()) > 1500, "maps start apart"


# Plain networks


@given(lead=st.lists(st.integers(1, 4), max_size=3), hidden=st.lists(SIZES, max_size=2), activation=st.sampled_from(get_args(Activation)))
def test_leading_axes_of_an_mlp_count_as_rows(lead: list[int], hidden: list[int], activation: Activation) -> None:
    torch.manual_seed(0)
    network = MLP(3, 2, hidden=hidden, activation=activation, dropout=0.3, activate_last=True)
    randomise([network])
    network.eval()
    x = torch.randn(*lead, 3)
    y = network(x)
    assert y.shape == (*lead, 2)
    flat = [network(row[None])[0] for row in x.reshape(-1, 3)]
    torch.testing.assert_close(y.reshape(-1, 2), torch.stack(flat), rtol=1e-5, atol=1e-5)


def test_the_names_of_activations_are_those_of_the_annotation() -> None:
    for name in get_args(Activation):
        assert type(activation_module(name)).__name__.lower() == name.replace("_", "")


@pytest.mark.parametrize("batch_norm", [True, False])
def test_an_mlp_normalises_and_activates_its_last_layer_only_when_told(batch_norm: bool) -> None:
    def kinds(**options: bool) -> list[str]:
        return [type(layer).__name__ for layer in MLP(3, 2, hidden=(4,), batch_norm=batch_norm, **options).layers]

    block = ["Linear", *["BatchNorm1d"] * batch_norm, "LeakyReLU"]
    assert kinds() == [*block, "Linear"]
    assert kinds(activate_last=True) == block * 2


# Convolutions


@settings(max_examples=60)
@given(
    channels=st.integers(1, 3),
    size=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 3), max_size=4),
    batch_norm=st.booleans(),
)
def test_convolutions_of_any_size_go_down_as_announced_and_come_up_exactly(
    channels: int, size: list[int], widths: list[int], batch_norm: bool
) -> None:
    shape = (channels, *size)
    down = ConvDown(shape, widths, batch_norm=batch_norm, activation="leaky_relu")
    low = down(torch.randn(2, *shape))
    assert low.shape == (2, *down.output_shape)
    assert down.output_shape[1:] == tuple(math.ceil(edge / 2 ** len(widths)) for edge in size)
    if widths:
        up = ConvUp(shape, widths[::-1], batch_norm=batch_norm, activation="leaky_relu")
        assert up.input_shape == down.output_shape
        assert up(low).shape == (2, *shape)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=3), st.integers(0, 5))
def test_halved_sizes_start_at_the_size_and_round_up(size: list[int], times: int) -> None:
    sizes = halved_sizes(size, times)
    assert sizes[0] == tuple(size)
    assert len(sizes) == times + 1
    for big, small in itertools.pairwise(sizes):
        assert all(edge in (2 * half, 2 * half - 1) for edge, half in zip(big, small, strict=True))
