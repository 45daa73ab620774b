"""A mixture in the place of the prior of a product: a proper posterior, served where it predicts better, and kept with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nbridge
from nbridge.data.batch import Batch
from nbridge.evaluation.importance import log_likelihood
from nbridge.inference.impute import embed
from nbridge.inference.product_prior import _better, _Trial, choose_prior, reset_prior
from nbridge.inference.served import Served
from nbridge.models.bridged import BridgedVAE, draw_component
from nbridge.models.mixture_prior import DiagonalMixture
from nbridge.nn.distributions import product_of_posteriors, product_with_mixture
from nbridge.sharing.onnx import export_model
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import load_model

SEEDS = st.integers(0, 2**31)
CLUSTERS = 6


def mixture_of(weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> DiagonalMixture:
    found = DiagonalMixture(means.shape[1], components=len(means)).to(means.dtype)
    found.weights.copy_(weights), found.means.copy_(means), found.scales.copy_(variances.sqrt())
    found.fitted = True
    return found


@given(variances=hnp.arrays(np.float64, (3, 5, 2), elements=st.floats(0.01, 0.99)), seed=SEEDS)
def test_with_one_standard_normal_component_it_is_the_product_with_the_prior(variances: np.ndarray, seed: int):
    loc = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    present = torch.tensor([[True] * 5, [True, False] * 2 + [True], [False] * 5])
    log_variance = torch.as_tensor(variances).log()
    mean, got = product_of_posteriors(loc, log_variance, present)
    one = (torch.ones(1).double(), torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    log_weights, precision, natural = product_with_mixture(loc, log_variance, present, None, one)
    torch.testing.assert_close(log_weights, torch.zeros(5, 1, dtype=torch.float64))
    torch.testing.assert_close((1 + precision).reciprocal(), got.exp(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(natural / (1 + precision), mean, rtol=1e-7, atol=1e-9)


@given(
    variances=hnp.arrays(np.float64, (2, 1, 1), elements=st.floats(0.05, 0.5)),
    exponents=hnp.arrays(np.float64, (2, 1, 1), elements=st.floats(0.2, 2)),
    seed=SEEDS,
)
# Wider than the mixture, which adds nothing.
@example(variances=np.array([[[0.2]], [[9.0]]]), exponents=np.ones((2, 1, 1)), seed=0)
def test_it_has_the_density_of_mixture_times_tempered_evidence(variances: np.ndarray, exponents: np.ndarray, seed: int):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.randn(3, 1, generator=generator, dtype=torch.float64)
    spreads = 0.3 + torch.rand(3, 1, generator=generator, dtype=torch.float64)
    loc, a = torch.randn(2, 1, 1, generator=generator, dtype=torch.float64), torch.as_tensor(exponents)
    log_variance = torch.as_tensor(variances).log()
    present = torch.ones(2, 1, dtype=torch.bool)
    log_weights, precision, natural = product_with_mixture(loc, log_variance, present, a, (weights, means, spreads))
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    total = 1 / spreads + precision[0]
    each = torch.distributions.Normal((means / spreads + natural[0]) / total, total.rsqrt())
    got = (log_weights[0].exp()[:, None] * each.log_prob(grid).exp()).sum(0)
    normal = torch.distributions.Normal
    prior = (weights[:, None] * normal(means, spreads.sqrt()).log_prob(grid).exp()).sum(0)
    centre = (weights @ means).item()
    whole = normal(centre, float((weights @ (spreads + (means - centre).square())).sqrt()))
    expected = prior.clone()
    for i in range(2):
        if log_variance[i].exp() < whole.variance:
            evidence = normal(loc[i, 0], (log_variance[i, 0] / 2).exp()).log_prob(grid) - whole.log_prob(grid)
            expected = expected * (a[i, 0] * evidence).exp()
    torch.testing.assert_close(got, expected / (expected.sum() * (grid[1] - grid[0])), rtol=1e-4, atol=1e-6)


def test_components_are_drawn_by_their_weights():
    weights = torch.tensor([0.1, 0.6, 0.3])
    mixture = mixture_of(weights, torch.tensor([[-9.0], [0.0], [9.0]]), torch.full((3, 1), 0.1))
    noise = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    q = draw_component(weights.log()[None], torch.zeros(1, 1), torch.zeros(1, 1), mixture, noise)
    shares = [(q.mean[:, 0, 0] == mean).float().mean().item() for mean in (-9.0, 0.0, 9.0)]
    assert shares == pytest.approx([0.1, 0.6, 0.3], abs=0.02)


def rows(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Two views of one of a few places in the plane, which ``a`` tells up to a sign that ``b`` shows."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, CLUSTERS, number)
    centres = np.random.default_rng(7).normal(size=(CLUSTERS, 8)) * 3
    sign = rng.choice([-1.0, 1.0], number)[:, None]
    a = centres[place] + 0.1 * rng.normal(size=(number, 8))
    b = sign * centres[place] + 0.1 * rng.normal(size=(number, 8))
    return {"a": a.astype(np.float32), "b": b.astype(np.float32)}


def spec_with(prior: str, updates: int = 300) -> Spec:
    views = {name: {"shape": 8, "encoder": {"type": "mlp", "hidden": [32]}, "likelihood": "normal"} for name in ("a", "b")}
    training = {"updates": updates, "batch_size": 64}
    return Spec.model_validate({"latent_dim": 4, "modalities": views, "bridges": {"prior": prior}, "training": training})


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    return nbridge.train(spec_with("mixture"), rows(600), device="cpu", out=tmp_path_factory.mktemp("always") / "run")


def bridged(run: nbridge.Run) -> BridgedVAE:
    assert isinstance(run.model.network, BridgedVAE)
    return run.model.network


def test_a_mixture_serves_where_it_was_asked_for_and_never_where_it_was_not(always: nbridge.Run):
    model = bridged(always)
    assert model.codes is not None
    assert model.codes.fitted
    assert model.noise_width == 1
    q = model.posterior(Batch.complete({"a": torch.as_tensor(rows(5, 1)["a"])}), 50)
    assert (q.mean.std(0) > 0).any(), "every draw has a component of its own"
    plain = bridged(nbridge.train(spec_with("normal", 20), rows(200), device="cpu"))
    assert plain.codes is None
    assert plain.noise_width == 0


def test_complete_rows_have_the_joint_posterior_and_rows_with_nothing_the_standard_normal(always: nbridge.Run):
    model = bridged(always)
    values = {name: torch.as_tensor(x) for name, x in rows(4, 1).items()}
    whole = model.posterior(Batch.complete(values), 3)
    joint = model.fusion(model.encode(model.prepare(Batch.complete(values))))
    with torch.no_grad():
        torch.testing.assert_close(whole.mean, joint.mean.expand(3, -1, -1))
        nothing = model.posterior(Batch(values, {name: torch.zeros(4, dtype=torch.bool) for name in values}), 3)
    assert (nothing.mean == 0).all()
    assert (nothing.stddev == 1).all()


def test_embeddings_are_the_exact_moments_of_what_is_drawn(always: nbridge.Run):
    batch = Batch.complete({"a": torch.as_tensor(rows(6, 1)["a"])})
    exact = embed(always.model.network, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = always.model.network.posterior(batch, 20_000).sample()
    torch.testing.assert_close(z.mean(0), exact.mean, rtol=0.05, atol=0.05)
    torch.testing.assert_close(z.std(0), exact.stddev, rtol=0.05, atol=0.03)


def test_importance_sampling_draws_from_the_product_with_the_standard_normal(always: nbridge.Run):
    """A component covers little of what goes with a view: a few draws would have all the weight."""
    model = bridged(always)
    batch = Batch.complete({name: torch.as_tensor(x) for name, x in rows(40, 1).items()}).only("a")
    with torch.no_grad():
        q, product = model.proposal(batch, 2), model.infer(model.prepare(batch))
    torch.testing.assert_close(q.mean, product.mean.expand(2, -1, -1))
    torch.testing.assert_close(q.stddev, product.stddev.expand(2, -1, -1))
    found = log_likelihood(model, batch, ("a",), samples=4000), log_likelihood(model, batch, ("a",), (), samples=4000)
    assert found[0].log_likelihood == pytest.approx(found[1].log_likelihood, abs=0.3)


def test_it_is_kept_with_the_model_and_exported_as_it_serves(always: nbridge.Run, tmp_path: Path):
    assert always.folder is not None
    model = load_model(always.folder)[0]
    assert isinstance(model, BridgedVAE)
    assert model.codes is not None
    assert model.codes.fitted
    told = export_model(Served(model), tmp_path / "model.pt2")
    graph = torch.export.load(tmp_path / "model.pt2").module()
    values = {name: torch.as_tensor(x) for name, x in rows(9, 1).items()}
    present = {"a__present": torch.ones(9, dtype=torch.bool), "b__present": torch.arange(9) % 3 == 0}
    got = graph(**values, **present)["b__completed"]
    expected = nbridge.Model(model).impute(Batch(values, {name[0]: mask for name, mask in present.items()}))
    assert "b__completed" in told["outputs"]
    torch.testing.assert_close(got, expected.values["b"], rtol=1e-3, atol=1e-3)


def test_auto_keeps_the_better_one_on_validation_rows_with_the_exponents_it_had(always: nbridge.Run):
    model = bridged(always)
    train, validation = (
        Batch.complete({n: torch.as_tensor(x) for n, x in rows(number, seed).items()}) for number, seed in ((600, 0), (300, 2))
    )
    train, validation = model.prepare(train), model.prepare(validation)
    assert model.codes is not None
    assert model.exponents is not None
    before, exponents = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model.exponents.clone()
    model.codes.always = False
    try:
        model.exponents.fill_(1.0)
        served = choose_prior(model, train, validation, 0)
        # Exponents that make every expert worthless leave the mixture alone, which knows the places, against N(0, I), which does not.
        model.exponents.fill_(1e-3)
        assert choose_prior(model, train, validation, 0)
        model.exponents.fill_(1.0)
        assert choose_prior(model, train, None, 0) is False
        assert not model.codes.fitted
        assert (model.exponents == 1).all()
        assert served in (True, False)
    finally:
        model.codes.always = True
        model.load_state_dict(before)
    torch.testing.assert_close(model.exponents, exponents)
    assert model.codes.fitted


def test_with_a_contrast_a_choice_also_counts_what_tells_rows_apart(always: nbridge.Run, monkeypatch: pytest.MonkeyPatch):
    """Beside the scores of modalities, -InfoNCE times its weight, averaged over parts of one row: at best 0, at worst about a row in B."""
    model = bridged(always)
    validation = model.prepare(Batch.complete({name: torch.as_tensor(x) for name, x in rows(300, 2).items()}))
    trial = _Trial.of(model, validation, 0)
    assert trial is not None
    plain = trial.scores()
    assert plain.shape == (len(model.names), 300)
    monkeypatch.setattr("nbridge.inference.product_prior.contrast_weight", lambda _: 4.0)
    scores = trial.scores()
    assert scores.shape == (len(model.names) + 1, 300)
    torch.testing.assert_close(scores[:-1], plain, rtol=0, atol=0)
    assert (scores[-1] <= 0).all()
    assert -4 * np.log(300) < scores[-1].mean() < -0.1


def test_a_mixture_that_predicts_worse_is_not_kept(always: nbridge.Run, monkeypatch: pytest.MonkeyPatch):
    """Codes of other rows than the model knows: the mixture says where nothing is."""
    model = bridged(always)
    assert model.codes is not None
    assert model.exponents is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exponents = model.exponents.clone()
    validation = model.prepare(Batch.complete({name: torch.as_tensor(x) for name, x in rows(300, 2).items()}))
    monkeypatch.setattr(DiagonalMixture, "fit_rows", lambda self, *_: self.fit(50 + torch.randn(400, 4), 3) or 3)
    model.codes.always = False
    try:
        assert not choose_prior(model, validation, validation, 0)
        assert not model.codes.fitted
        torch.testing.assert_close(model.exponents, exponents, rtol=0, atol=0)
    finally:
        model.codes.always = True
        model.load_state_dict(before)


def test_a_reset_mixture_is_the_standard_normal_and_serves_nothing(always: nbridge.Run):
    model = bridged(always)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reset_prior(model)
    assert model.codes is not None
    assert not model.codes.fitted
    q = model.posterior(Batch.complete({"a": torch.as_tensor(rows(5, 1)["a"])}), 4)
    assert (q.mean == q.mean[:1]).all()
    model.load_state_dict(before)
    assert model.codes.fitted


@pytest.mark.parametrize(("gains", "better"), [((1.0, 1.0), True), ((1.0, -0.2), False), ((0.0, 0.0), False), ((3.0, -0.001), True)])
def test_a_mixture_must_help_on_the_whole_and_harm_no_modality(gains: tuple[float, float], better: bool):
    noise = torch.randn(2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert _better(torch.tensor(gains)[:, None] + (noise - noise.mean(1, keepdim=True))) is better


def test_rows_for_one_component_alone_leave_the_standard_normal_before_and_after_a_model_is_read_again():
    mixture = DiagonalMixture(2, components=5)
    mixture.fit(torch.randn(30, 2), 1)
    again = DiagonalMixture(2, components=5)
    again.load_state_dict(mixture.state_dict())
    assert (mixture.fitted, again.fitted) == (False, False)
