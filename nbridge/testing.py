"""A conformance suite for encoders and likelihoods: the built-in ones pass it, and so should yours.

Call a check from a test of your own; it raises an ``AssertionError`` that says what does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent
from torch.nn import functional as F

from nbridge.decoders import Decoder, MLPDecoder
from nbridge.encoders import Encoder
from nbridge.errors import NBridgeError
from nbridge.likelihoods import Likelihood
from nbridge.registry import locate

ROWS = 6


def check_encoder(encoder: Encoder, shape: Sequence[int], x: Tensor | None = None) -> None:
    """Checks what the library relies on in an encoder.

    Its output has shape (B, features), is finite, and in eval mode each row depends on itself alone; every parameter that wants a gradient
    gets one; the input is left as it was; `Encoder.mirror` names a decoder that exists.

    Arguments:
        encoder: The encoder, with fresh weights; left in eval mode.
        shape: Shape of its modality.
        x: Rows in standard form to try it on, six of them; random ones when left out.

    Example:
        >>> from nbridge.encoders import MLPEncoder
        >>> check_encoder(MLPEncoder((3, 4), 8), (3, 4))
    """
    assert isinstance(encoder, Encoder), f"{type(encoder).__name__} does not inherit from nbridge.Encoder"
    assert encoder.features > 0, "features must be the width of the output, a positive int"
    if x is None:
        # A shape of one axis may be classes, whose standard form is one-hot; any vector will do for other encoders.
        x = F.one_hot(torch.arange(ROWS) % shape[0], shape[0]).float() if len(shape) == 1 else torch.randn(ROWS, *shape)
    before = x.clone()
    h = encoder.train()(x)
    assert h.shape == (len(x), encoder.features), (
        f"features have shape {tuple(h.shape)}, expected (B, features) = {(len(x), encoder.features)}"
    )
    assert torch.isfinite(h).all(), "features are not finite"
    assert torch.equal(x, before), "the encoder changes its input in place"
    _check_gradients(encoder, h)
    encoder.eval()
    with torch.no_grad():
        whole, flipped = encoder(x), encoder(x.flip(0)).flip(0)
        single = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(whole, flipped, rtol=1e-4, atol=1e-5, msg="in eval mode the order of rows changes the features")
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5, msg="in eval mode a row's features depend on the other rows")
    mirror = dict(encoder.mirror())
    try:
        locate("decoders", str(mirror.get("type")))
    except NBridgeError as error:
        raise AssertionError(f"mirror() names a decoder that does not exist: {error}") from error


def check_likelihood(likelihood: Likelihood, x: Tensor | None = None) -> None:
    """Checks what the library relies on in a likelihood.

    Batch and event shapes; draws and blanks inside the support; finite log-probabilities and gradients, of extreme raw numbers too;
    `Likelihood.canonical` leaves canonical values alone and `Likelihood.restore` undoes it; the standard form is floating point of the
    modality's shape; a point estimate lies inside the support; ``elementwise`` tells the truth.

    Arguments:
        likelihood: The likelihood, with fresh weights.
        x: Rows as a user would give them, to try it on; its own draws when left out.

    Example:
        >>> from nbridge.likelihoods import Normal
        >>> check_likelihood(Normal((3, 4)))
    """
    assert isinstance(likelihood, Likelihood), f"{type(likelihood).__name__} does not inherit from nbridge.Likelihood"
    raw = torch.randn(2, ROWS, *likelihood.raw_shape, requires_grad=True)
    distribution = likelihood(raw)
    canonical = likelihood.blank(ROWS)
    assert distribution.batch_shape == (2, ROWS), f"batch shape {tuple(distribution.batch_shape)}, expected the leading axes {(2, ROWS)}"
    assert distribution.event_shape == canonical.shape[1:], (
        f"event shape {tuple(distribution.event_shape)}, blank rows have {tuple(canonical.shape[1:])}"
    )
    if likelihood.elementwise:
        assert isinstance(distribution, Independent), (
            "elementwise likelihoods return an Independent over their elements; else set elementwise = False"
        )
    draws = distribution.sample()
    for name, values in (("a draw", draws), ("a blank row", canonical)):
        assert likelihood.support.check(values).all(), f"{name} is outside the support"
    given = draws[0] if x is None else x
    _check_forms(likelihood, given)
    canonical = likelihood.canonical(given)
    likelihood.fit(canonical, torch.ones_like(canonical, dtype=torch.bool))
    _check_log_prob(likelihood, likelihood.canonical(given))
    expectation = likelihood.expectation(likelihood(raw.detach()))
    assert likelihood.support.check(likelihood.point(expectation.mean(0))).all(), "a point estimate is outside the support"


def _check_forms(likelihood: Likelihood, given: Tensor) -> None:
    x = likelihood.canonical(given)
    assert torch.equal(likelihood.canonical(x), x), "canonical() changes canonical values"
    restored = likelihood.restore(x, given)
    assert restored.dtype == given.dtype, f"restore() gives {restored.dtype}, the values were {given.dtype}"
    assert torch.equal(restored, given), "restore() does not undo canonical()"
    standard = likelihood.standardize(x)
    assert standard.is_floating_point(), "the standard form is not floating point"
    assert standard.shape == (len(x), *likelihood.shape), (
        f"the standard form has shape {tuple(standard.shape)}, expected {(len(x), *likelihood.shape)}"
    )
    assert torch.isfinite(standard).all(), "the standard form is not finite"


def _check_log_prob(likelihood: Likelihood, x: Tensor) -> None:
    decoder = Decoder(MLPDecoder(4, likelihood.raw_shape, hidden=(), batch_norm=False), likelihood)
    log_prob = decoder.log_prob(torch.randn(3, len(x), 4), x)
    assert log_prob.shape == (3, len(x)), f"log_prob has shape {tuple(log_prob.shape)}, expected (K, B) = {(3, len(x))}"
    _check_gradients(decoder, log_prob)
    for size in (0.0, 30.0, -30.0, 1e4, -1e4):
        raw = torch.full((len(x), *likelihood.raw_shape), size, requires_grad=True)
        log_prob = likelihood(raw).log_prob(x)
        assert torch.isfinite(log_prob).all(), f"log_prob is not finite for raw numbers of {size:g}"
        gradient = torch.autograd.grad(log_prob.sum(), raw)[0]
        assert torch.isfinite(gradient).all(), f"the gradient is not finite for raw numbers of {size:g}"


def _check_gradients(module: torch.nn.Module, output: Tensor) -> None:
    module.zero_grad()
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"parameter {name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
