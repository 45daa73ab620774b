"""Conformance tests for custom encoders, likelihoods and models; all built-in ones pass them.

Call a check in your own tests; it raises an ``AssertionError`` that describes the first violation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.errors import NBridgeError
from nbridge.models.base import Features, MultimodalVAE, Stage
from nbridge.nn.decoders import Decoder, MLPDecoder
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import BoundWarning, Likelihood
from nbridge.spec.registry import locate
from nbridge.training.trainer import only_trainable

ROWS, DRAWS = 6, 8


def check_encoder(encoder: Encoder, shape: Sequence[int], x: Tensor | None = None) -> None:
    """Checks that an encoder satisfies the library's requirements.

    - The output has shape (B, features) and is finite. In eval mode, rows do not affect each other.
    - Every trainable parameter gets a gradient.
    - The input is not modified.
    - `Encoder.mirror` names an existing decoder.

    Arguments:
        encoder: A freshly initialised encoder; left in eval mode.
        shape: Shape of its modality.
        x: Standardised rows to test with, followed by their mask if the encoder reads it; six random ones when omitted.

    Example:
        >>> from nbridge.nn.encoders import MLPEncoder
        >>> check_encoder(MLPEncoder((3, 4), 8), (3, 4))
    """
    assert isinstance(encoder, Encoder), f"{type(encoder).__name__} does not inherit from nbridge.Encoder"
    assert encoder.features > 0, "features must be the width of the output, a positive int"
    if x is None:
        # A one-axis shape may be classes, whose standard form is one-hot; other encoders accept any vector.
        x = F.one_hot(torch.arange(ROWS) % shape[0], shape[0]).float() if len(shape) == 1 else torch.randn(ROWS, *shape)
        x = torch.cat([x, torch.ones_like(x)], -1) if encoder.reads_mask else x
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
    """Checks that a likelihood satisfies the library's requirements.

    - Batch and event shapes are as documented, and consistent with ``elementwise``.
    - Draws, blank rows and point estimates are inside the support.
    - Log-probabilities and gradients are finite, even for extreme raw parameters.
    - An overridden `Likelihood.log_prob` agrees with the distribution.
    - `Likelihood.bound_warnings` accepts the library's arguments and yields warnings with one line of text.
    - `Likelihood.canonical` is idempotent, and `Likelihood.restore` inverts it.
    - The standard form is floating point and of the modality's shape.

    Arguments:
        likelihood: A freshly initialised likelihood.
        x: Rows to test with, in the form that users pass; draws from the likelihood when omitted.

    Example:
        >>> from nbridge.nn.likelihoods import Normal
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
    for warning in likelihood.bound_warnings(raw[0].detach(), draws[0], torch.ones_like(draws[0], dtype=torch.bool)):
        assert isinstance(warning, BoundWarning), (
            f"bound_warnings() gives a {type(warning).__name__}, expected nbridge.nn.likelihoods.BoundWarning"
        )
        assert "\n" not in warning.text, "bound_warnings() gives a text of several lines"


def check_model(model: MultimodalVAE, batch: Batch | None = None) -> None:
    r"""Checks that a model satisfies the library's requirements: its parts, posterior, log-joint and training stages.

    - The names of encoders, decoders and weights agree. All modules and tensors are registered with torch. Loading a state dict restores
      the posterior bit for bit.
    - `MultimodalVAE.posterior` has batch shape (K, B) over D and is finite with a positive scale for every pattern of presence; it is the
      prior for rows with nothing present. In eval mode, rows do not affect each other. `MultimodalVAE.log_joint` has shape (K, B) and is
      finite.
    - The values in absent rows and cells do not affect a posterior, a loss or a gradient.
    - Each stage has a unique name, trains submodules of the model, and selects rows by a mask of shape (B,). Its loss consists of finite
      named scalars, with the same names in training and validation. Every parameter of its modules gets a gradient (for some draw of the
      noise). With the other modules frozen, as in the trainer, the loss changes neither them nor the batch. Its features do not depend on
      trained parameters, and have one row per row of the batch.

    If the posterior is itself random, rows are not compared with rows computed in another order or alone.

    Arguments:
        model: A freshly initialised model; left in eval mode with its tensors unchanged.
        batch: Rows to test with, in the form that users pass, at least two of which each stage can train on; when omitted, draws from the
            likelihoods, with and without absent cells. In addition, modalities are hidden in every combination.

    Example:
        >>> import nbridge
        >>> part = {"shape": 3, "encoder": "mlp", "likelihood": "normal"}
        >>> check_model(nbridge.build_model(nbridge.Spec.model_validate({"modalities": {"x": part, "y": part}})))
    """
    assert isinstance(model, MultimodalVAE), f"{type(model).__name__} does not inherit from nbridge.MultimodalVAE"
    _check_registered(model)
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(0)
        _check_parts(model.eval())
        before = _copied(model.state_dict())
        for given in [batch.to(model.device)] if batch is not None else _test_batches(model):
            model.check(given)
            model.fit_statistics(given)
            rows = _with_every_pattern(model, given)
            expected_rows = _copied_batch(rows)
            _check_posterior(model, rows)
            for stage in _checked_stages(model):
                with only_trainable(model, stage.modules):
                    _check_stage(model, stage, rows)
            assert _equal_batches(rows, expected_rows), "the model changes its input rows in place"
            model.load_state_dict(before)


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
    raw = torch.randn(3, len(x), *likelihood.raw_shape)
    for cells in [None, torch.rand_like(x) < 0.5] if likelihood.elementwise else [None]:
        torch.testing.assert_close(
            likelihood.log_prob(raw, x, cells), Likelihood.log_prob(likelihood, raw, x, cells), rtol=1e-4, atol=1e-4,
            msg="log_prob() differs from the distribution's" + (" where cells are not observed" if cells is not None else ""),
        )  # fmt: skip
    for size in (0.0, 30.0, -30.0, 1e4, -1e4):
        raw = torch.full((len(x), *likelihood.raw_shape), size, requires_grad=True)
        log_prob = likelihood.log_prob(raw, x)
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


# Rows to test a model with


def _test_batches(model: MultimodalVAE) -> Iterator[Batch]:
    """Complete rows, and partly observed rows if a likelihood allows them."""
    given = {} if model.covariates is None else model.covariates.draw(ROWS)
    yield Batch.complete(_draws(model, ROWS)).with_covariates(given)
    whole = Batch.complete(_draws(model, ROWS)).with_covariates(given)
    cells = {name: torch.rand_like(x) < 0.7 for name, x in whole.values.items() if model.likelihoods[name].elementwise}
    if cells:
        yield replace(whole, cells=cells)


@torch.no_grad()
def _draws(model: MultimodalVAE, rows: int) -> dict[str, Tensor]:
    """Values of every modality, drawn from its likelihood, in canonical form."""
    return {
        name: likelihood.canonical(likelihood(torch.randn(rows, *likelihood.raw_shape, device=model.device)).sample())
        for name, likelihood in model.likelihoods.items()
    }


def _with_every_pattern(model: MultimodalVAE, batch: Batch) -> Batch:
    """The given rows, then rows with every pattern of presence, or 32 random patterns if there are more than 5 modalities."""
    n = len(model.names)
    if n <= 5:
        patterns = torch.tensor(list(itertools.product([False, True], repeat=n)))
    else:
        patterns = torch.rand(32, n) < 0.5
        patterns[0] = False
    kept = torch.cat([torch.ones(len(batch), n, dtype=torch.bool), patterns]).to(batch.device)
    rows = batch.index(torch.arange(len(kept), device=batch.device) % len(batch))
    masks = {name: rows.present[name] & kept[:, i] for i, name in enumerate(model.names) if name in rows.present}
    return replace(rows, present=masks)


def _observed(batch: Batch, name: str) -> Tensor:
    """Observed mask of a modality's cells, broadcastable to its values."""
    present = batch.present[name].reshape(-1, *(1 for _ in batch.values[name].shape[1:]))
    return present & batch.cells[name] if name in batch.cells else present


def _with_nan_in_absent(batch: Batch) -> Batch:
    """The rows with NaN in all unobserved cells."""
    values = {name: torch.where(_observed(batch, name), x.double(), math.nan) for name, x in batch.values.items()}
    return replace(batch, values=values)


def _swapped(model: MultimodalVAE, prepared: Batch) -> Batch:
    """Prepared rows with other valid values in all unobserved cells."""
    others = _draws(model, len(prepared))
    values = {name: torch.where(_observed(prepared, name), x, others[name]) for name, x in prepared.values.items()}
    return replace(prepared, values=values)


def _equal_batches(one: Batch, other: Batch) -> bool:
    first, second = ([*batch.values.values(), *batch.present.values(), *batch.cells.values()] for batch in (one, other))
    # NaN can mark absent values, and differs from itself.
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(first, second, strict=True))


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _copied_batch(batch: Batch) -> Batch:
    return Batch(*map(_copied, (batch.values, batch.present, batch.cells, batch.covariates)))


# Parts


def _check_registered(model: MultimodalVAE) -> None:
    modules = set(model.modules())
    tensors = {id(tensor) for tensor in itertools.chain(model.parameters(), model.buffers())}
    own = set(vars(nn.Module()))
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else [value]
            for part in () if name in own else parts:
                where = f"{path}.{name}".lstrip(".")
                assert not isinstance(part, nn.Module) or part in modules, (
                    f"{where} holds a module that is not registered, so it is neither trained nor saved: put it in an nn.ModuleDict"
                )
                assert not isinstance(part, Tensor) or id(part) in tensors, (
                    f"{where} holds a tensor that is not registered, so it is not saved: make it a parameter or a buffer"
                )


def _check_parts(model: MultimodalVAE) -> None:
    names = model.names
    assert names, "the model has no modality"
    for what, others in (("decoders", tuple(model.decoders)), ("likelihoods", tuple(model.likelihoods)), ("weights", tuple(model.weights))):
        assert others == names, f"{what} have names {', '.join(others)}, encoders {', '.join(names)}: expected the same names in this order"
    z = model.prior(2, ROWS).sample()
    assert z.shape == (2, ROWS, model.latent_dim), (
        f"draws of prior(2, {ROWS}) have shape {tuple(z.shape)}, latent_dim is {model.latent_dim}"
    )
    for name, likelihood in model.likelihoods.items():
        rows = _test_rows(model, ROWS)
        distribution = model.decoder_of(name, rows)(z)
        shapes, expected = (distribution.batch_shape, distribution.event_shape), ((2, ROWS), likelihood.blank(ROWS).shape[1:])
        assert shapes == expected, (
            f"p({name} | z) has batch and event shape {tuple(map(tuple, shapes))}, expected {tuple(map(tuple, expected))}"
        )


def _test_rows(model: MultimodalVAE, rows: int) -> Batch:
    """Rows with nothing observed, and drawn covariates where the model has some."""
    batch = Batch(
        {name: likelihood.blank(rows).to(model.device) for name, likelihood in model.likelihoods.items()},
        dict.fromkeys(model.names, torch.zeros(rows, dtype=torch.bool, device=model.device)),
    )
    return batch if model.covariates is None else batch.with_covariates(model.covariates.draw(rows))


# The posterior


@torch.no_grad()
def _check_posterior(model: MultimodalVAE, rows: Batch) -> None:
    q = model.posterior(rows, 3)
    expected = ((3, len(rows)), (model.latent_dim,))
    assert (q.batch_shape, q.event_shape) == expected, (
        f"the posterior has batch and event shape {tuple(q.batch_shape)}, {tuple(q.event_shape)}, expected (K, B) and (D,), {expected}"
    )
    wrong = ~(q.mean.isfinite() & q.stddev.isfinite() & (q.stddev > 0)).all(-1).all(0)
    assert not wrong.any(), f"the posterior is not finite, or its scale not positive, where {_pattern(model, rows, wrong)} is present"
    nothing = ~model.presence(model.prepare(rows)).any(0)
    prior = bool((q.mean[:, nothing] == 0).all() and (q.stddev[:, nothing] == 1).all())
    assert prior, "with nothing present, the posterior is not the prior"
    _check_rows_independent(model, rows)
    prepared = model.prepare(rows)
    assert _equal(_moments(model, rows), _moments(model, _with_nan_in_absent(rows))), "NaN in absent values changes the posterior"
    inferred, again = (_moments(model, one, prepared=True) for one in (prepared, _swapped(model, prepared)))
    assert _equal(inferred, again), "infer() reads absent values: use self.inputs() or self.encode(), or mask by batch.present"
    _check_log_joint(model, rows, nothing)
    _check_state_dict(model, rows)


def _check_rows_independent(model: MultimodalVAE, rows: Batch) -> None:
    whole = _moments(model, rows)
    if not _equal(whole, _moments(model, rows, seed=1)):
        return
    reverse = torch.arange(len(rows), device=rows.device).flip(0)
    flipped = [moment[:, reverse] for moment in _moments(model, rows.index(reverse))]
    single = [torch.cat(moment, 1) for moment in zip(*(_moments(model, rows.slice(i, i + 1)) for i in range(len(rows))), strict=True)]
    torch.testing.assert_close(flipped, list(whole), rtol=1e-4, atol=1e-5, msg="in eval mode the order of rows changes the posterior")
    torch.testing.assert_close(
        single, list(whole), rtol=1e-4, atol=1e-5, msg="in eval mode a row's posterior depends on the other rows or their presence"
    )


def _check_log_joint(model: MultimodalVAE, rows: Batch, nothing: Tensor) -> None:
    z = model.prior(3, len(rows)).sample()
    with torch.no_grad():
        log_joint, again = model.log_joint(rows, z), model.log_joint(_with_nan_in_absent(rows), z)
    assert log_joint.shape == z.shape[:2], f"log_joint has shape {tuple(log_joint.shape)}, expected (K, B) = {tuple(z.shape[:2])}"
    wrong = ~log_joint.isfinite().all(0)
    assert not wrong.any(), f"log_joint is not finite where {_pattern(model, rows, wrong)} is present"
    assert torch.equal(log_joint, again), "NaN in absent values changes log_joint"
    prior = model.prior(3, len(rows)).log_prob(z)
    torch.testing.assert_close(
        log_joint[:, nothing], prior[:, nothing], rtol=1e-5, atol=1e-5, msg="with nothing present, log_joint is not log p(z)"
    )


def _check_state_dict(model: MultimodalVAE, rows: Batch) -> None:
    state, whole = _copied(model.state_dict()), _moments(model, rows)
    for tensor in model.state_dict().values():
        tensor.copy_(tensor + 1)
    _moments(model, rows)
    model.load_state_dict(state)
    assert _equal(_moments(model, rows), whole), "loading a state dict does not restore the posterior: some state is not in it"


@torch.no_grad()
def _moments(model: MultimodalVAE, rows: Batch, seed: int = 0, *, prepared: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and scale of the posterior, each of shape (K, B, D), or of `MultimodalVAE.infer` for prepared rows, for one seed."""
    torch.manual_seed(seed)
    q = model.infer(rows) if prepared else model.posterior(rows, 2)
    return q.mean, q.stddev


def _pattern(model: MultimodalVAE, rows: Batch, wrong: Tensor) -> str:
    """The modalities present in the first failing row, as text."""
    row = int(wrong.nonzero()[0])
    return ", ".join(name for name in model.names if name in rows.present and rows.present[name][row]) or "nothing"


def _equal(one: Iterable[Tensor | None], other: Iterable[Tensor | None]) -> bool:
    """Whether tensors are equal bit for bit."""
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Stages


def _checked_stages(model: MultimodalVAE) -> tuple[Stage, ...]:
    stages = model.stages()
    assert stages, "stages() returns no stage"
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names), f"stages {', '.join(names)}: names must be unique"
    assert [stage.name for stage in model.stages()] == names, "stages() returns other stages when called again"
    modules = set(model.modules())
    for stage in stages:
        assert stage.modules, f"stage {stage.name} trains no module"
        for module in stage.modules:
            assert module in modules, f"stage {stage.name} trains a {type(module).__name__} that is not a submodule of the model"
    return stages


@dataclass(frozen=True)
class _Step:
    """Loss terms and gradients of one training step of a stage, from fixed weights and noise."""

    terms: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def _check_stage(model: MultimodalVAE, stage: Stage, rows: Batch) -> None:
    where, prepared = f"stage {stage.name}", model.prepare(rows)
    picked = stage.rows(prepared)
    assert (picked.dtype, picked.shape) == (torch.bool, (len(rows),)), (
        f"{where}: rows() is {picked.dtype} of shape {tuple(picked.shape)}, expected torch.bool of shape (B,) = {(len(rows),)}"
    )
    number = int(picked.sum())
    assert number >= 2, f"{where} selects {number} of the test rows; pass rows of which it selects 2 or more"
    part, state = prepared.index(picked), _copied(model.state_dict())
    _check_features(model, stage, part)
    step = _checked_step(model, stage, part, state)
    _check_terms(where, step.terms)
    _check_gradients_of_stage(model, stage, part, state, step)
    _check_validation(model, stage, part, set(step.terms))
    for message, other in (
        ("NaN in absent values changes", model.prepare(_with_nan_in_absent(rows)).index(picked)),
        ("absent values affect", _swapped(model, part)),
    ):
        again = _step(model, stage, other, state)
        same = _equal(step.terms.values(), again.terms.values()) and _equal(step.gradients.values(), again.gradients.values())
        assert same, f"{where}: {message} the loss or its gradients: use self.inputs() and self.log_prob(), and mask by batch.present"
    model.load_state_dict(state)


def _step(model: MultimodalVAE, stage: Stage, batch: Batch, state: Mapping[str, Tensor], seed: int = 0) -> _Step:
    model.load_state_dict(state)
    model.zero_grad()
    terms = _loss(model, stage, batch, seed)
    total = torch.stack(list(terms.values())).sum()
    if total.requires_grad:
        total.backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return _Step({name: term.detach() for name, term in terms.items()}, gradients)


def _loss(model: MultimodalVAE, stage: Stage, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    """The loss as in training, from precomputed features."""
    features = _features(stage, batch)
    model.eval()
    for module in stage.modules:
        module.train()
    torch.manual_seed(seed)
    terms = stage.loss(batch, features, 1.0)
    assert terms, f"stage {stage.name}: the loss has no terms"
    for name, term in terms.items():
        scalar = isinstance(term, Tensor) and term.shape == ()
        assert scalar, f"stage {stage.name}: term {name!r} of the loss is not a scalar tensor"
    return terms


@torch.no_grad()
def _features(stage: Stage, batch: Batch) -> Features:
    torch.manual_seed(0)
    return {} if stage.features is None else stage.features(batch)


def _check_terms(where: str, terms: Mapping[str, Tensor]) -> None:
    for name, term in terms.items():
        assert term.isfinite(), f"{where}: term {name!r} of the loss is not finite"


def _check_features(model: MultimodalVAE, stage: Stage, part: Batch) -> None:
    if stage.features is None:
        return
    model.eval()
    live, whole = stage.features(part), _features(stage, part)
    reverse = torch.arange(len(part), device=part.device).flip(0)
    flipped = _features(stage, part.index(reverse))
    for name, feature in whole.items():
        which = f"stage {stage.name}: feature {name!r}"
        assert len(feature) == len(part), f"{which} has {len(feature)} rows for {len(part)}"
        assert not live[name].requires_grad, f"{which} depends on parameters that the stage trains, but it is computed only once"
        torch.testing.assert_close(flipped[name][reverse], feature, rtol=1e-4, atol=1e-5, msg=f"{which} of a row depends on the other rows")


def _checked_step(model: MultimodalVAE, stage: Stage, part: Batch, state: Mapping[str, Tensor]) -> _Step:
    """Computes a step and checks its side effects: batch, parameters, frozen modules, requires_grad and modes must be unchanged."""
    where, before = f"stage {stage.name}", _copied_batch(part)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    step = _step(model, stage, part, state)
    trained = {module for top in stage.modules for module in top.modules()}
    assert _equal_batches(part, before), f"{where}: the loss changes its batch in place"
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == trainable[name], f"{where}: the loss leaves requires_grad of {name} changed"
        assert parameter.grad is None or trainable[name], f"{where}: {name} gets a gradient, though the stage does not train it"
        assert torch.equal(parameter, state[name]), f"{where}: the loss changes {name} in place"
    for path, module in model.named_modules():
        assert module.training == (module in trained), f"{where}: the loss leaves {path or 'the model'} in another mode"
        for name, buffer in () if module in trained else module.named_buffers(path, recurse=False):
            if name in state:
                assert torch.equal(buffer, state[name]), f"{where}: the loss changes {name}, which the stage does not train"
    return step


def _check_gradients_of_stage(model: MultimodalVAE, stage: Stage, part: Batch, state: Mapping[str, Tensor], step: _Step) -> None:
    missing = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # An objective may sample what it trains on, so a parameter counts as trained if any of several draws gives it a gradient.
    for seed in range(1, DRAWS):
        for name, gradient in step.gradients.items():
            if gradient is not None:
                assert gradient.isfinite().all(), f"stage {stage.name}: the gradient of {name} is not finite"
                missing.discard(name)
        if not missing:
            return
        step = _step(model, stage, part, state, seed)
    raise AssertionError(
        f"stage {stage.name}: no gradient for {', '.join(sorted(missing))}; remove what it does not train from its modules"
    )


def _check_validation(model: MultimodalVAE, stage: Stage, part: Batch, names: set[str]) -> None:
    model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        terms = stage.loss(part, _features(stage, part), 1.0)
    assert set(terms) == names, f"stage {stage.name}: terms {sorted(terms)} in eval mode, {sorted(names)} in training"
    _check_terms(f"stage {stage.name} in eval mode", terms)
