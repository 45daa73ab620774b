"""Each likelihood against scipy's density of the same family, in the units in which the values came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from torch import Tensor
from torch.distributions import Distribution

from nbridge.nn.decoders import Decoder, MLPDecoder
from nbridge.nn.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
)

SEEDS = st.integers(0, 2**31)
SHAPE = (2, 3)
# Densities are computed in float64, so all that is lost is rounding.
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


def fit(likelihood: Likelihood, x: torch.Tensor) -> None:
    """Statistics of rows that are observed whole."""
    likelihood.fit(x, torch.ones_like(x, dtype=torch.bool))


def raw_numbers(likelihood: Likelihood, *lead: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, *likelihood.raw_shape, generator=generator, dtype=torch.float64)


def each(shape: tuple[int, ...] = SHAPE) -> dict[str, Likelihood]:
    """Every built-in likelihood, in every form."""
    return {
        "bernoulli": Bernoulli(shape),
        "categorical": Categorical((5,)),
        "normal, learned": Normal(shape),
        "normal, predicted": Normal(shape, scale="predicted"),
        "normal, fixed": Normal(shape, scale=0.5),
        "normal, as it is": Normal(shape, standardize=False),
        "laplace, learned": Laplace(shape),
        "laplace, predicted": Laplace(shape, scale="predicted"),
        "discretized_logistic": DiscretizedLogistic(shape),
        "discretized_logistic of bytes": DiscretizedLogistic(shape, high=255.0),
        "discretized_logistic of few levels": DiscretizedLogistic(shape, levels=3, low=0.1, high=0.7),
        "poisson": Poisson(shape),
        "negative_binomial": NegativeBinomial(shape),
    }


def some_values(likelihood: Likelihood, rows: int, seed: int = 0) -> Tensor:
    """Rows inside the support."""
    torch.manual_seed(seed)
    if isinstance(likelihood, Categorical):
        return torch.randint(likelihood.shape[0], (rows,))
    if isinstance(likelihood, Poisson | NegativeBinomial):
        return torch.poisson(torch.full((rows, *likelihood.shape), 3.0))
    if isinstance(likelihood, DiscretizedLogistic):
        step = (likelihood.high - likelihood.low) / (likelihood.levels - 1)
        levels = likelihood.low + step * torch.randint(likelihood.levels, (rows, *likelihood.shape))
        return levels.clamp(likelihood.low, likelihood.high)
    return torch.rand(rows, *likelihood.shape)


everything = pytest.mark.parametrize("name", each())


# Densities


@given(x=hnp.arrays(np.float64, (4, *SHAPE), elements=st.floats(0, 1)), seed=SEEDS)
def test_bernoulli_with_soft_targets_is_the_cross_entropy(x: np.ndarray, seed: int) -> None:
    likelihood = Bernoulli(SHAPE)
    raw = raw_numbers(likelihood, 4, seed=seed)
    p = special.expit(raw.numpy())
    expected = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum((1, 2))
    np.testing.assert_allclose(likelihood(raw).log_prob(torch.as_tensor(x)), expected, **CLOSE)


@given(classes=st.integers(2, 7), seed=SEEDS)
def test_categorical_serves_indices_and_one_hot_rows_alike(classes: int, seed: int) -> None:
    likelihood = Categorical((classes,))
    raw = raw_numbers(likelihood, 6, seed=seed)
    labels = torch.randint(classes, (6,), generator=torch.Generator().manual_seed(seed))
    expected = np.log(special.softmax(raw.numpy(), -1))[np.arange(6), labels]
    forms = [labels, labels.int(), labels.float(), torch.eye(classes)[labels], torch.eye(classes, dtype=torch.uint8)[labels]]
    for form in forms:
        canonical = likelihood.canonical(form)
        assert torch.equal(canonical, labels)
        assert torch.equal(likelihood.canonical(canonical), canonical)
        np.testing.assert_allclose(likelihood(raw).log_prob(canonical), expected, **CLOSE)
        restored = likelihood.restore(canonical, form)
        assert restored.dtype == form.dtype
        assert torch.equal(restored, form)
        draws = likelihood.restore(canonical.expand(3, 6), form)
        assert torch.equal(draws, form.expand(3, *form.shape))
    assert torch.equal(likelihood.standardize(labels), torch.eye(classes)[labels])


def laplace_log_density(x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """scipy's own is the log of a density that has underflowed."""
    return -np.abs(x - loc) / scale - np.log(2 * scale)


@pytest.mark.parametrize(("build", "log_density"), [(Normal, stats.norm.logpdf), (Laplace, laplace_log_density)])
@pytest.mark.parametrize("scale", ["learned", "predicted", 0.3, 2])
@pytest.mark.parametrize("standardize", [True, False])
@settings(max_examples=8)
@given(seed=SEEDS, offset=st.sampled_from([0.0, -3.0, 1e6]), spread=st.sampled_from([1e-3, 1.0, 1e4]))
def test_location_scale_densities_are_in_the_units_of_the_values(
    build: Callable[..., Likelihood],
    log_density: Callable[..., np.ndarray],
    scale: object,
    standardize: bool,
    seed: int,
    offset: float,
    spread: float,
) -> None:
    likelihood = build(SHAPE, scale=scale, standardize=standardize).double()
    rng = np.random.default_rng(seed)
    # A spread that float64 tells from an offset; what is nearly constant is tested below.
    spread = max(spread, 1e-5 * abs(offset))
    x = offset + spread * rng.normal(size=(50, *SHAPE)) * rng.uniform(0.5, 2, SHAPE)
    fit(likelihood, torch.as_tensor(x))
    if scale == "learned":
        torch.nn.init.normal_(likelihood.log_scale, generator=torch.Generator().manual_seed(seed))
    raw = raw_numbers(likelihood, 50, seed=seed)
    m, s = (x.mean(0), x.std(0)) if standardize else (0.0, 1.0)
    loc, *predicted = np.split(raw.numpy(), likelihood.parameters_per_element, 1)
    sigma = np.exp(predicted[0]) if predicted else scale if isinstance(scale, float | int) else likelihood.log_scale.detach().exp().numpy()
    expected = log_density(x, m + s * loc, s * sigma).sum((1, 2))
    # An offset of 1e6 leaves 10 of 16 digits for the spread of 10.
    np.testing.assert_allclose(likelihood(raw).log_prob(torch.as_tensor(x)).detach(), expected, rtol=1e-6, atol=1e-6)
    # Change of variables: the density of standardised values, less the log of the unit for each element.
    standard = likelihood.standardize(torch.as_tensor(x)).numpy()
    changed = log_density(standard, loc, sigma).sum((1, 2)) - np.log(np.broadcast_to(s, SHAPE)).sum()
    np.testing.assert_allclose(changed, expected, rtol=1e-6, atol=1e-6)
    if standardize:
        np.testing.assert_allclose(standard.mean(0), 0, atol=1e-8)
        np.testing.assert_allclose(standard.std(0), 1, rtol=1e-8)


@given(seed=SEEDS, mean=st.sampled_from([0.01, 1.0, 300.0]))
def test_poisson_is_poisson_about_the_training_rows_mean(seed: int, mean: float) -> None:
    likelihood = Poisson(SHAPE).double()
    x = np.random.default_rng(seed).poisson(mean, (40, *SHAPE)).astype(float)
    fit(likelihood, torch.as_tensor(x))
    raw = raw_numbers(likelihood, 40, seed=seed)
    rate = (x.sum(0) + 0.5) / 40 * np.exp(raw.numpy())
    np.testing.assert_allclose(likelihood(raw).log_prob(torch.as_tensor(x)), stats.poisson(rate).logpmf(x).sum((1, 2)), **CLOSE)
    np.testing.assert_allclose(likelihood(raw).mean, rate, rtol=1e-10)


@given(seed=SEEDS, mean=st.sampled_from([0.01, 1.0, 300.0]), log_dispersion=st.floats(-3, 5))
def test_negative_binomial_has_the_mean_and_the_dispersion_it_names(seed: int, mean: float, log_dispersion: float) -> None:
    likelihood = NegativeBinomial(SHAPE).double()
    x = np.random.default_rng(seed).poisson(mean, (40, *SHAPE)).astype(float)
    fit(likelihood, torch.as_tensor(x))
    torch.nn.init.constant_(likelihood.log_dispersion, log_dispersion)
    raw = raw_numbers(likelihood, 40, seed=seed)
    mu, theta = (x.sum(0) + 0.5) / 40 * np.exp(raw.numpy()), np.exp(log_dispersion)
    got = likelihood(raw)
    # torch takes log-gamma in its own series.
    expected = stats.nbinom(theta, theta / (theta + mu)).logpmf(x).sum((1, 2))
    np.testing.assert_allclose(got.log_prob(torch.as_tensor(x)).detach(), expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(got.mean.detach(), mu, rtol=1e-9)
    np.testing.assert_allclose(got.variance.detach(), mu + mu**2 / theta, rtol=1e-9)


@given(seed=SEEDS, levels=st.integers(2, 256), bounds=st.sampled_from([(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)]))
def test_discretized_logistic_is_a_difference_of_distribution_functions(seed: int, levels: int, bounds: tuple[float, float]) -> None:
    low, high = bounds
    likelihood = DiscretizedLogistic(SHAPE, levels=levels, low=low, high=high).double()
    raw = raw_numbers(likelihood, 6, seed=seed)
    torch.nn.init.normal_(likelihood.log_scale, -2, generator=torch.Generator().manual_seed(seed))
    step = (high - low) / (levels - 1)
    x = low + step * np.random.default_rng(seed).integers(levels, size=(6, *SHAPE))
    # The raw numbers are in units of a quarter of the range, about its middle; the scale in units of the range.
    scale = (high - low) * likelihood.log_scale.detach().exp().numpy()
    logistic = stats.logistic((low + high) / 2 + raw.numpy() * (high - low) / 4, np.broadcast_to(scale, (6, *SHAPE)))
    upper = np.where(x > high - step / 2, 1.0, logistic.cdf(x + step / 2))
    lower = np.where(x < low + step / 2, 0.0, logistic.cdf(x - step / 2))
    got = likelihood(raw)
    # Differences of distribution functions near 1 are good to 1e-16 absolutely.
    np.testing.assert_allclose(got.base_dist.log_prob(torch.as_tensor(x)).detach().exp(), upper - lower, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(got.log_prob(torch.as_tensor(x)), got.base_dist.log_prob(torch.as_tensor(x)).sum((1, 2)))


# The short way to a density


@everything
@pytest.mark.parametrize("in_part", [False, True])
def test_the_short_way_to_a_density_and_its_gradient_is_the_distributions_own(name: str, in_part: bool) -> None:
    likelihood = each()[name].double()
    if in_part and not likelihood.elementwise:
        return
    x = some_values(likelihood, 4)
    x = x.double() if x.is_floating_point() else x
    fit(likelihood, x)
    cells = torch.rand(4, *SHAPE) < 0.5 if in_part else None
    raw = (3 * raw_numbers(likelihood, 5, 4)).requires_grad_()
    inputs = [raw, *likelihood.parameters()]
    short, long = likelihood.log_prob(raw, x, cells), Likelihood.log_prob(likelihood, raw, x, cells)
    assert short.shape == (5, 4)
    torch.testing.assert_close(short, long, rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)
    for got, expected in zip(
        torch.autograd.grad((weight * short).sum(), inputs), torch.autograd.grad((weight * long).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@given(size=st.sampled_from([1.0, 30.0, 1e4]), seed=SEEDS, rows=st.integers(1, 3), soft=st.booleans())
def test_bernoulli_is_as_exact_as_its_elements_however_sure_the_network_is(size: float, seed: int, rows: int, soft: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    likelihood, raw = Bernoulli((784,)), size * torch.randn(5, rows, 784, generator=generator)
    x = torch.rand(rows, 784, generator=generator)
    x = x if soft else x.round()
    raw.requires_grad_()
    short = likelihood.log_prob(raw, x)
    expected = likelihood(raw.double()).log_prob(x.double())
    assert short.isfinite().all()
    # One rounding of a logit for each element and one of the sum: nothing cancels late.
    torch.testing.assert_close(short.double(), expected, rtol=1e-5, atol=size * 784 * 2e-7)
    gradient = torch.autograd.grad(short.sum(), raw)[0]
    torch.testing.assert_close(gradient, x - raw.sigmoid(), rtol=1e-5, atol=1e-6)


def test_bernoulli_is_exactly_certain_of_what_it_is_sure_of() -> None:
    x = torch.rand(3, 784).round()
    assert (Bernoulli((784,)).log_prob(1e4 * (2 * x - 1), x) == 0).all()


def test_autocast_does_not_round_a_density() -> None:
    torch.manual_seed(0)
    likelihood, raw, x = Bernoulli((784,)), 3 * torch.randn(4, 2, 784), torch.rand(2, 784)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = likelihood.log_prob(raw, x)
    assert torch.equal(rounded, likelihood.log_prob(raw, x))


def test_a_subclass_with_a_distribution_of_its_own_keeps_its_density() -> None:
    class Tempered(Bernoulli):
        def forward(self, raw: Tensor) -> Distribution:
            return super().forward(raw / 2)

    torch.manual_seed(0)
    raw, x = torch.randn(4, 3, *SHAPE), torch.rand(3, *SHAPE)
    assert torch.equal(Tempered(SHAPE).log_prob(raw, x), Tempered(SHAPE)(raw).log_prob(x))


def test_one_draw_serves_many_rows_and_many_draws_one_row() -> None:
    torch.manual_seed(0)
    for name, likelihood in each().items():
        raw, x = torch.randn(5, 1, *likelihood.raw_shape), some_values(likelihood, 3)
        assert likelihood.log_prob(raw, x).shape == (5, 3), name
        assert likelihood.log_prob(raw, x[:1]).shape == (5, 1), name


# What every likelihood keeps


@everything
def test_shapes_of_batches_events_and_samples(name: str) -> None:
    likelihood = each()[name].double()
    distribution = likelihood(raw_numbers(likelihood, 7, 4))
    assert distribution.batch_shape == (7, 4)
    draws = distribution.sample((3,))
    assert draws.shape == (3, 7, 4, *likelihood.blank(0).shape[1:])
    assert distribution.log_prob(draws).shape == (3, 7, 4)


@everything
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_samples_and_points_lie_in_the_support_whatever_the_network_says(name: str, size: float) -> None:
    torch.manual_seed(0)
    likelihood = each()[name]
    fit(likelihood, some_values(likelihood, 20))
    distribution = likelihood(size * torch.randn(6, 5, *likelihood.raw_shape))
    expectation = likelihood.expectation(distribution)
    for x in (distribution.sample(), likelihood.point(expectation), likelihood.point(expectation.mean(0))):
        assert likelihood.support.check(x).all()
        assert likelihood.canonical(x).dtype == x.dtype


@everything
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_densities_and_their_gradients_are_finite_whatever_the_network_says(name: str, size: float) -> None:
    torch.manual_seed(0)
    likelihood = each()[name]
    x = some_values(likelihood, 6)
    fit(likelihood, x)
    raw = (size * torch.randn(6, *likelihood.raw_shape)).requires_grad_()
    log_prob = likelihood.log_prob(raw, x)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert raw.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in likelihood.parameters())


@everything
def test_canonical_values_stay_as_they_are_and_come_back_in_their_own_type(name: str) -> None:
    likelihood = each()[name]
    x = some_values(likelihood, 6)
    canonical = likelihood.canonical(x)
    assert torch.equal(likelihood.canonical(canonical), canonical)
    for like in (x.double(), x.float()):
        restored = likelihood.restore(likelihood.canonical(like), like)
        assert restored.dtype == like.dtype
        # Canonical values are float32.
        torch.testing.assert_close(restored, like, rtol=1e-6, atol=1e-6)
    whole = x.round().int()
    assert torch.equal(likelihood.restore(likelihood.canonical(whole), whole), whole)


@everything
def test_what_stands_in_for_absent_values_is_harmless(name: str) -> None:
    likelihood = each()[name]
    fit(likelihood, some_values(likelihood, 20))
    blank = likelihood.blank(3)
    assert likelihood.support.check(blank).all()
    standard = likelihood.standardize(blank)
    assert standard.shape == (3, *likelihood.shape)
    assert standard.is_floating_point()
    assert standard.isfinite().all()
    torch.manual_seed(0)
    assert likelihood(torch.randn(3, *likelihood.raw_shape)).log_prob(blank).isfinite().all()


@everything
def test_an_encoder_sees_numbers_of_moderate_size(name: str) -> None:
    likelihood = each()[name]
    x = some_values(likelihood, 200)
    fit(likelihood, x)
    standard = likelihood.standardize(likelihood.canonical(x))
    assert standard.abs().max() < 10
    assert standard.shape == (200, *likelihood.shape)


@everything
def test_statistics_are_kept_with_the_weights(name: str) -> None:
    likelihood, other = each()[name], each()[name]
    fit(likelihood, some_values(likelihood, 20))
    other.load_state_dict(likelihood.state_dict())
    torch.manual_seed(0)
    raw, x = torch.randn(4, *likelihood.raw_shape), some_values(likelihood, 4, seed=1)
    assert torch.equal(likelihood(raw).log_prob(x), other(raw).log_prob(x))


# Odd columns


@pytest.mark.parametrize("build", [Normal, Laplace])
@pytest.mark.parametrize("value", [0.0, 1.0, -1e6, 1e-20, 1e20])
def test_a_column_that_never_varies_does_not_blow_up(build: Callable[..., Likelihood], value: float) -> None:
    likelihood = build((2,))
    x = torch.stack([torch.full((9,), value), torch.arange(9.0)], 1)
    fit(likelihood, x)
    assert likelihood.unit[0] == 1
    assert likelihood.standardize(x)[:, 0].abs().max() <= 1e-6 * max(abs(value), 1)
    raw = torch.zeros(9, 2, requires_grad=True)
    log_prob = likelihood(raw).log_prob(x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("build", [Normal, Laplace])
@pytest.mark.parametrize("spread", [1e-25, 1e-12, 1e12, 1e25])
def test_units_of_any_size_change_the_density_by_their_log_alone(build: Callable[..., Likelihood], spread: float) -> None:
    x = torch.linspace(-1, 1, 9)[:, None]
    raw = torch.zeros(9, 1)
    plain, scaled = build((1,)), build((1,))
    fit(plain, x)
    fit(scaled, x * spread)
    torch.testing.assert_close(scaled.standardize(x * spread), plain.standardize(x), rtol=1e-5, atol=1e-6)
    got = scaled(raw).log_prob(x * spread) + np.log(spread)
    # Float32, with the log of the unit up to 60.
    torch.testing.assert_close(got, plain(raw).log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [Normal, Laplace])
def test_a_huge_offset_is_taken_away_before_anything_else(build: Callable[..., Likelihood]) -> None:
    x = 1e6 + 1000 * torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    likelihood = build((1,))
    fit(likelihood, x)
    standard = likelihood.standardize(likelihood.canonical(x))
    # Float32 resolves 1e6 to 0.06, a ten-thousandth of the spread of 600.
    np.testing.assert_allclose(standard, (x - x.mean()) / x.std(correction=0), atol=3e-4)
    assert likelihood(torch.zeros(21, 1)).log_prob(likelihood.canonical(x)).isfinite().all()


@pytest.mark.parametrize("build", [Poisson, NegativeBinomial])
def test_counts_that_are_always_zero_keep_a_finite_rate(build: Callable[..., Likelihood]) -> None:
    likelihood = build((2,))
    fit(likelihood, torch.zeros(10, 2))
    assert likelihood.log_mean.isfinite().all()
    assert likelihood(torch.zeros(3, 2)).log_prob(torch.tensor([[0.0, 0.0], [1.0, 5.0], [100.0, 0.0]])).isfinite().all()


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (1.0, 0.0)])
def test_levels_need_a_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"high \(.*\) must be above low \(1.0\)"):
        DiscretizedLogistic((2,), low=low, high=high)


# The head belongs to the likelihood


@pytest.mark.parametrize(
    ("likelihood", "x"), [(Categorical((10,)), torch.full((8,), 3)), (Bernoulli((10,)), torch.eye(10)[torch.full((8,), 3)])]
)
def test_training_can_make_a_class_nearly_certain(likelihood: Likelihood, x: Tensor) -> None:
    # With a sigmoid in front of a softmax over ten classes, none could exceed e / (e + 9) = .232.
    torch.manual_seed(0)
    decoder = Decoder(MLPDecoder(2, likelihood.raw_shape, hidden=(8,)), likelihood)
    z = torch.randn(8, 2)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        (-decoder.log_prob(z, x).mean()).backward()
        optimiser.step()
    probability = likelihood.expectation(decoder(z))[:, 3]
    assert probability.min() > 0.99


def test_bernoulli_elements_are_discrete_where_they_are_said_to_be_attributes() -> None:
    assert Bernoulli((18,), attributes=True).discrete
    assert not Bernoulli((784,)).discrete
    assert Categorical((3,)).discrete
    assert not Normal((3,)).discrete
