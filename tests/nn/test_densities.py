"""Densities in few passes against torch's own, with their gradients and the gradients of these."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli

from nbridge.nn.densities import bernoulli_log_prob


@given(size=st.integers(1, 40), rows=st.integers(1, 3), scale=st.sampled_from([0.0, 1.0, 20.0, 500.0]), seed=st.integers(0, 2**31))
def test_bernoulli_elements_of_any_number_have_torchs_density_and_gradient(size: int, rows: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(4, rows, size, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    x = torch.rand(rows, size, generator=generator, dtype=torch.float64)
    got = bernoulli_log_prob(logits, x)
    expected = Bernoulli(logits=logits, validate_args=False).log_prob(x).sum(-1)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), logits)[0], x - logits.sigmoid(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("logits", "x"), [((3, 2, 9), (2, 9)), ((3, 1, 17), (2, 17)), ((8,), (8,)), ((3,), (2, 3))])
def test_gradients_of_logits_and_targets_hold_to_the_second_order(logits: tuple[int, ...], x: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    at = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for shape in (logits, x)]
    at = [tensor.requires_grad_() for tensor in at]
    assert gradcheck(bernoulli_log_prob, at)
    assert gradgradcheck(bernoulli_log_prob, at)


def test_infinite_and_undefined_logits_do_not_pass_for_numbers() -> None:
    assert bernoulli_log_prob(torch.tensor([torch.nan, 1.0]), torch.ones(2)).isnan()
    assert not bernoulli_log_prob(torch.tensor([torch.inf, 1.0]), torch.zeros(2)).isfinite()
