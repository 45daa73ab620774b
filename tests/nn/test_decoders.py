"""Decoders take any leading axes, give the shape asked for, and count only the cells that are observed."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Distribution

from nbridge.nn.decoders import ConvDecoder, Decoder, MLPDecoder
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood, Normal

WIDTHS = st.lists(st.integers(1, 5), max_size=3).map(tuple)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, int, tuple[int, ...]]:
    """Any built-in network of a decoder, the dimension of its z and the shape it ends at, with weights as after training."""
    latent_dim, batch_norm = draw(st.integers(1, 4)), draw(st.booleans())
    conv = draw(st.booleans())
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2 if conv else 1, max_size=4)))
    if conv:
        network: nn.Module = ConvDecoder(latent_dim, shape, channels=draw(WIDTHS), batch_norm=batch_norm)
    else:
        network = MLPDecoder(latent_dim, shape, hidden=draw(WIDTHS), batch_norm=batch_norm)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network, latent_dim, shape


@given(drawn=networks(), lead=st.lists(st.integers(1, 3), max_size=2))
def test_leading_axes_of_z_equal_a_loop_over_them(drawn: tuple[nn.Module, int, tuple[int, ...]], lead: list[int]) -> None:
    network, latent_dim, shape = drawn
    torch.manual_seed(0)
    network.eval()
    z = torch.randn(*lead, 3, latent_dim)
    raw = network(z)
    assert raw.shape == (*lead, 3, *shape)
    singles = torch.stack([network(rows) for rows in z.reshape(-1, 3, latent_dim)])
    # Float32: batched products may sum in another order.
    torch.testing.assert_close(raw.reshape(singles.shape), singles, rtol=1e-4, atol=1e-5)


@given(drawn=networks(), rows=st.integers(2, 5))
def test_gradients_reach_every_parameter(drawn: tuple[nn.Module, int, tuple[int, ...]], rows: int) -> None:
    network, latent_dim, _ = drawn
    torch.manual_seed(0)
    raw = network(torch.randn(rows, latent_dim))
    (raw * torch.randn_like(raw)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_the_last_layer_of_a_decoder_is_linear_so_that_raw_numbers_are_unbounded() -> None:
    assert isinstance(MLPDecoder(2, (3, 4)).network.layers[-1], nn.Linear)
    assert isinstance(ConvDecoder(2, (3, 4)).up.layers[-1], nn.ConvTranspose1d)


def test_a_decoder_gives_one_log_probability_for_each_draw_and_row() -> None:
    z, x = torch.randn(7, 4, 2), torch.rand(4, 3, 5)
    decoder = Decoder(MLPDecoder(2, (3, 5)), Bernoulli((3, 5))).eval()
    log_prob = decoder.log_prob(z, x)
    assert log_prob.shape == (7, 4)
    torch.testing.assert_close(log_prob, torch.stack([decoder.log_prob(z_BD, x) for z_BD in z]), rtol=1e-4, atol=1e-4)
    labels = Decoder(MLPDecoder(2, (3,)), Categorical((3,))).eval()
    assert labels.log_prob(z, torch.tensor([0, 2, 1, 1])).shape == (7, 4)


@given(seed=st.integers(0, 2**31))
def test_cells_that_are_not_observed_do_not_count(seed: int) -> None:
    torch.manual_seed(seed)
    decoder = Decoder(MLPDecoder(2, (2, 3), hidden=()), Normal((2, 3), scale=0.7))
    z, x, cells = torch.randn(5, 4, 2), torch.randn(4, 2, 3), torch.rand(4, 2, 3) < 0.5
    elements = torch.distributions.Normal(decoder.network(z), 0.7).log_prob(x)
    expected = torch.stack([elements[:, b][:, cells[b]].sum(-1) for b in range(4)], 1)
    torch.testing.assert_close(decoder.log_prob(z, x, cells), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder.log_prob(z, torch.where(cells, x, 1e3), cells), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder.log_prob(z, x, torch.ones_like(cells)), decoder.log_prob(z, x), rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 2**31), in_part=st.booleans())
def test_a_likelihood_of_ones_own_needs_only_its_distribution(seed: int, in_part: bool) -> None:
    class Cauchy(Likelihood):
        def forward(self, raw: Tensor) -> Distribution:
            return self._independent(torch.distributions.Cauchy(raw, 1.0))

    torch.manual_seed(seed)
    decoder = Decoder(MLPDecoder(2, (2, 3), hidden=()), Cauchy((2, 3)))
    z, x = torch.randn(5, 4, 2), torch.randn(4, 2, 3)
    cells = torch.rand(4, 2, 3) < 0.5 if in_part else torch.ones(4, 2, 3, dtype=torch.bool)
    expected = (torch.distributions.Cauchy(decoder.network(z), 1.0).log_prob(x) * cells).sum((-2, -1))
    torch.testing.assert_close(decoder.log_prob(z, x, cells if in_part else None), expected, rtol=1e-5, atol=1e-5)
