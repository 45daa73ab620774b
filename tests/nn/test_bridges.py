"""Bridges: one for each ordered pair, run together but equal to each run alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn
from torch.nn import functional as F

from nbridge.nn.bridges import BridgeBank

SEEDS = st.integers(0, 2**31)
# Few widths, so that some bridges share a shape and others do not.
WIDTHS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3), min_size=1, max_size=6)
HIDDEN = st.lists(st.integers(1, 4), max_size=2)


def build(widths: dict[str, int], hidden: list[int], batch_norm: bool, seed: int) -> BridgeBank:
    """A bank with weights and statistics as they might be after training, float64, in eval mode."""
    torch.manual_seed(seed)
    bank = BridgeBank(widths, hidden=hidden, batch_norm=batch_norm).double()
    for parameter in bank.parameters():
        nn.init.normal_(parameter)
    for name, buffer in bank.named_buffers():
        buffer.uniform_(0.5, 2.0) if name.endswith("running_var") else buffer.normal_()
    return bank.eval()


def alone(bank: BridgeBank, source: str, target: str, h: Tensor) -> Tensor:
    """One bridge in eval mode, from slices of the stacked weights."""
    group = next(shape for shape, pairs in bank.groups.items() if (source, target) in pairs)
    position, stack = bank.groups[group].index((source, target)), bank.stacks[group]
    for depth, linear in enumerate(stack.linears):
        h = h @ linear.weight[position].T + linear.bias[position, 0]
        if depth < len(stack.linears) - 1:
            if len(stack.norms):
                norm = stack.norms[depth]
                h = (h - norm.running_mean[position]) / (norm.running_var[position] + 1e-5).sqrt()
                h = h * norm.weight[position] + norm.bias[position]
            h = F.leaky_relu(h)
    return h


def features_of(widths: dict[str, int], rows: int) -> dict[str, Tensor]:
    return {name: torch.randn(rows, width, dtype=torch.float64) for name, width in widths.items()}


@pytest.mark.parametrize("n", range(1, 9))
def test_there_is_a_bridge_for_each_ordered_pair(n: int) -> None:
    bank = BridgeBank({f"m{i}": 1 + i % 3 for i in range(n)}, hidden=(2,))
    assert len(bank.pairs) == n * (n - 1)
    assert set(bank.pairs) == {(f"m{i}", f"m{j}") for i in range(n) for j in range(n) if i != j}
    assert sum(len(stack.linears[0].weight) for stack in bank.stacks.values()) == n * (n - 1)


@given(widths=WIDTHS, hidden=HIDDEN, batch_norm=st.booleans())
def test_the_number_of_parameters_is_that_of_the_closed_formula(widths: dict[str, int], hidden: list[int], batch_norm: bool) -> None:
    expected = 0
    for source, inputs in widths.items():
        for target, outputs in widths.items():
            if source != target:
                path = [inputs, *hidden, outputs]
                expected += sum(a * b + b for a, b in itertools.pairwise(path)) + 2 * batch_norm * sum(hidden)
    bank = BridgeBank(widths, hidden=hidden, batch_norm=batch_norm)
    assert sum(parameter.numel() for parameter in bank.parameters()) == expected


@given(widths=WIDTHS, hidden=HIDDEN, batch_norm=st.booleans(), rows=st.integers(1, 4), seed=SEEDS)
def test_bridges_run_together_equal_each_run_alone(
    widths: dict[str, int], hidden: list[int], batch_norm: bool, rows: int, seed: int
) -> None:
    bank = build(widths, hidden, batch_norm, seed)
    h = features_of(widths, rows)
    together = bank.hallucinate(h)
    assert set(together) == set(bank.pairs)
    for (source, target), got in together.items():
        # Float64: products may sum in another order.
        torch.testing.assert_close(got, alone(bank, source, target, h[source]), rtol=1e-9, atol=1e-9)


@given(widths=WIDTHS, hidden=HIDDEN, batch_norm=st.booleans(), rows=st.integers(1, 4), seed=SEEDS)
def test_the_bridges_of_one_source_are_those_among_all(widths: dict[str, int], hidden: list[int], batch_norm: bool, rows: int, seed: int):
    bank = build(widths, hidden, batch_norm, seed)
    h = features_of(widths, rows)
    together = bank.hallucinate(h)
    for source in widths:
        from_it = bank.hallucinate_from(source, h[source])
        assert from_it.keys() == widths.keys() - {source}
        for target, got in from_it.items():
            torch.testing.assert_close(got, together[source, target], rtol=1e-9, atol=1e-9)


@given(widths=WIDTHS, rows=st.integers(1, 6), seed=SEEDS, data=st.data())
def test_absent_features_are_the_mean_over_the_sources_and_observed_ones_stay_bit_identical(
    widths: dict[str, int], rows: int, seed: int, data: st.DataObject
) -> None:
    bank = build(widths, [3], True, seed)
    h = features_of(widths, rows)
    mask = data.draw(hnp.arrays(bool, (len(widths), rows)))
    present = {name: torch.as_tensor(mask[i]) for i, name in enumerate(widths)}
    filled = bank(h, present)
    assert list(filled) == list(h)
    for target, got in filled.items():
        for b in range(rows):
            sources = [name for name in widths if present[name][b]]
            if target in sources:
                assert torch.equal(got[b], h[target][b])
            elif sources:
                guesses = [alone(bank, source, target, h[source][b]) for source in sources]
                torch.testing.assert_close(got[b], torch.stack(guesses).mean(0), rtol=1e-9, atol=1e-9)
            else:
                assert (got[b] == 0).all()


def test_a_modality_on_its_own_has_no_bridges_and_keeps_its_features() -> None:
    bank = BridgeBank({"only": 3})
    assert bank.pairs == ()
    assert list(bank.parameters()) == []
    h = {"only": torch.randn(2, 3)}
    filled = bank(h, {"only": torch.tensor([True, False])})
    assert torch.equal(filled["only"][0], h["only"][0])
    assert (filled["only"][1] == 0).all()


@given(widths=WIDTHS, rows=st.integers(3, 6), seed=SEEDS, junk=st.sampled_from([0.0, 1e6]))
def test_in_training_rows_that_lack_a_source_change_neither_its_bridges_nor_their_statistics(
    widths: dict[str, int], rows: int, seed: int, junk: float
) -> None:
    one, other = build(widths, [3], True, seed).train(), build(widths, [3], True, seed).train()
    h = features_of(widths, rows)
    present = {name: torch.rand(rows) < 0.7 for name in widths}
    spoilt = {name: torch.where(present[name][:, None], x, junk) for name, x in h.items()}
    got, expected = other.hallucinate(spoilt, present), one.hallucinate(h, present)
    for pair in one.pairs:
        kept = present[pair[0]]
        torch.testing.assert_close(got[pair][kept], expected[pair][kept], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=1e-9, atol=1e-9)


def test_the_output_of_a_bridge_gives_gradients_to_that_bridge_alone() -> None:
    widths = {"a": 2, "b": 2, "c": 3, "d": 2}
    bank = build(widths, [3], True, 0).train()
    for pair in bank.pairs:
        bank.zero_grad()
        h = features_of(widths, 5)
        bank.hallucinate(h)[pair].square().sum().backward()
        for group, pairs in bank.groups.items():
            for position, other in enumerate(pairs):
                gradients = [parameter.grad[position] for parameter in bank.stacks[group].parameters() if parameter.grad is not None]
                assert any(gradient.any() for gradient in gradients) == (other == pair)
