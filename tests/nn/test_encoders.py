"""Encoders give features of the width asked for, train every weight they have, and know what undoes them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nbridge.nn.decoders import ConvDecoder, MLPDecoder
from nbridge.nn.encoders import ConvEncoder, EmbeddingEncoder, Encoder, MLPEncoder

WIDTHS = st.lists(st.integers(1, 5), max_size=3).map(tuple)


@st.composite
def encoders(draw: st.DrawFn) -> tuple[Encoder, tuple[int, ...]]:
    """Any built-in encoder and a shape that it serves."""
    features, batch_norm = draw(st.integers(1, 6)), draw(st.booleans())
    kind = draw(st.sampled_from([MLPEncoder, ConvEncoder, EmbeddingEncoder]))
    if kind is EmbeddingEncoder:
        shape = (draw(st.integers(2, 6)),)
        return kind(shape, features, embedding_dim=draw(st.integers(1, 4)), hidden=draw(WIDTHS), batch_norm=batch_norm), shape
    if kind is ConvEncoder:
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)))
        return kind(shape, features, channels=draw(WIDTHS), batch_norm=batch_norm), shape
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    return kind(shape, features, hidden=draw(WIDTHS), batch_norm=batch_norm), shape


@given(drawn=encoders(), rows=st.integers(2, 5))
def test_features_have_the_width_asked_for_and_reach_every_parameter(drawn: tuple[Encoder, tuple[int, ...]], rows: int) -> None:
    encoder, shape = drawn
    torch.manual_seed(0)
    h = encoder(torch.randn(rows, *shape))
    assert h.shape == (rows, encoder.features)
    # A weighted sum: the plain sum of a normalised batch is constant.
    (h * torch.randn_like(h)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@given(drawn=encoders())
def test_in_eval_mode_the_features_of_a_row_depend_on_that_row_alone(drawn: tuple[Encoder, tuple[int, ...]]) -> None:
    encoder, shape = drawn
    torch.manual_seed(0)
    encoder.eval()
    x = torch.randn(4, *shape)
    # Float32: batched products may sum in another order.
    torch.testing.assert_close(encoder(x), torch.cat([encoder(row[None]) for row in x]), rtol=1e-4, atol=1e-5)


def test_an_embedding_looks_up_the_vector_of_a_class() -> None:
    encoder = EmbeddingEncoder((4,), 3, embedding_dim=5, hidden=()).eval()
    table = encoder.embedding.weight.T
    one_hot = torch.eye(4)
    torch.testing.assert_close(encoder(one_hot), encoder.network(table))


# What undoes an encoder


def widths(network: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of the weights of linear and convolutional layers, in order."""
    return [tuple(module.weight.shape) for module in network.modules() if isinstance(module, nn.Linear | nn.ConvTranspose2d)]


def undo(encoder: Encoder, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
    options: dict[str, Any] = dict(encoder.mirror())
    return {"mlp": MLPDecoder, "conv": ConvDecoder}[options.pop("type")](latent_dim, shape, **options)


@given(hidden=WIDTHS, features=st.integers(1, 6), latent_dim=st.integers(1, 4))
def test_the_mirror_of_an_mlp_runs_through_its_widths_backwards(hidden: tuple[int, ...], features: int, latent_dim: int) -> None:
    decoder = undo(MLPEncoder((2, 3), features, hidden=hidden), latent_dim, (2, 3))
    path = [latent_dim, features, *reversed(hidden), 6]
    assert widths(decoder) == [(after, before) for before, after in itertools.pairwise(path)]


def test_the_mirror_of_an_mlp_spelt_out() -> None:
    decoder = undo(MLPEncoder((7,), 5, hidden=(11, 13)), 2, (7,))
    assert widths(decoder) == [(5, 2), (13, 5), (11, 13), (7, 11)]


def test_the_mirror_of_convolutions_runs_through_their_channels_backwards() -> None:
    decoder = undo(ConvEncoder((3, 9, 6), 5, channels=(4, 8)), 2, (3, 9, 6))
    # z to 8 channels of 3 x 2 (9 x 6 halved twice, rounding up), then 8 -> 4 -> 3 channels.
    assert widths(decoder.stem) + widths(decoder.up) == [(8 * 3 * 2, 2), (8, 4, 3, 3), (4, 3, 3, 3)]


def test_the_mirror_of_an_embedding_is_an_mlp_that_knows_no_embedding() -> None:
    decoder = undo(EmbeddingEncoder((4,), 5, embedding_dim=99, hidden=(6,)), 2, (4,))
    assert widths(decoder) == [(5, 2), (6, 5), (4, 6)]


@pytest.mark.parametrize(
    "encoder",
    [
        MLPEncoder((3,), 2, hidden=(4,), batch_norm=False, activation="tanh", dropout=0.25),
        ConvEncoder((3, 4), 2, channels=(4, 2), batch_norm=False, activation="tanh"),
        EmbeddingEncoder((3,), 2, hidden=(4,), batch_norm=False, activation="tanh"),
    ],
)
def test_the_mirror_keeps_normalisation_nonlinearity_and_dropout(encoder: Encoder) -> None:
    def kinds(network: nn.Module) -> set[str]:
        return {type(module).__name__ for module in network.modules()} & {"Tanh", "LeakyReLU", "BatchNorm1d", "Dropout"}

    shape = (3, 4) if isinstance(encoder, ConvEncoder) else (3,)
    assert kinds(undo(encoder, 2, shape)) == kinds(encoder)


def test_an_encoder_of_ones_own_is_undone_by_an_mlp_unless_it_says_otherwise() -> None:
    class Mean(Encoder):
        features = 1

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(1, keepdim=True)

    decoder = undo(Mean(), 3, (2, 2))
    assert decoder(torch.randn(5, 3)).shape == (5, 2, 2)
    assert math.prod(widths(decoder)[-1]) == 4 * 128
