"""Products of Gaussians and discretised logistics, held against closed forms in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian
from scipy import stats
from torch.distributions import kl_divergence

from nbridge.nn.distributions import DiscretizedLogistic, diagonal_kl, diagonal_normal, product_of_experts, product_of_posteriors

SEEDS = st.integers(0, 2**31)
NAMES = ("a", "b", "c", "d", "e")


def experts(oracle: LinearGaussian, x: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log-variances, shape (M, 1, D), of the oracle's unimodal posteriors of one row."""
    posteriors = [oracle.posterior({name: value}) for name, value in x.items()]
    loc = torch.as_tensor(np.stack([mean for mean, _ in posteriors]))
    log_variance = torch.as_tensor(np.stack([np.log(np.diag(covariance)) for _, covariance in posteriors]))
    return loc[:, None], log_variance[:, None]


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), latent_dim=st.integers(1, 4), seed=SEEDS, data=st.data())
def test_product_of_posteriors_is_the_posterior_of_a_linear_gaussian_model(
    sizes: list[int], latent_dim: int, seed: int, data: st.DataObject
) -> None:
    oracle = LinearGaussian.random(dict(zip(NAMES, sizes, strict=False)), latent_dim, seed)
    x = {name: value[0] for name, value in oracle.sample(1, seed + 1).items()}
    present = data.draw(hnp.arrays(bool, len(sizes)))
    mean, covariance = oracle.posterior({name: value for (name, value), here in zip(x.items(), present, strict=True) if here})
    loc, log_variance = product_of_posteriors(*experts(oracle, x), torch.as_tensor(present)[:, None])
    # Float64 throughout: all that is lost is the rounding of a few sums and inverses.
    np.testing.assert_allclose(loc[0], mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_variance[0], np.log(np.diag(covariance)), rtol=1e-9, atol=1e-9)


@given(lead=st.lists(st.integers(1, 3), max_size=2), width=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_the_divergence_of_gaussians_is_torchs_and_the_priors_where_none_is_named(lead: list[int], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, p = (diagonal_normal(3 * torch.randn(*lead, width).double(), torch.randn(*lead, width).double().exp()) for _ in range(2))
    prior = diagonal_normal(torch.zeros(*lead, width).double(), torch.ones(*lead, width).double())
    torch.testing.assert_close(diagonal_kl(q, p), kl_divergence(q, p))
    torch.testing.assert_close(diagonal_kl(q), kl_divergence(q, prior))


@given(n=st.integers(2, 5), seed=SEEDS)
def test_the_product_does_not_depend_on_the_order_of_modalities(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loc, log_variance = torch.randn(2, n, 7, 3, generator=generator, dtype=torch.float64)
    present = torch.rand(n, 7, generator=generator) < 0.6
    order = torch.randperm(n, generator=generator)
    once = product_of_posteriors(loc, log_variance, present)
    again = product_of_posteriors(loc[order], log_variance[order], present[order])
    torch.testing.assert_close(again, once, rtol=1e-12, atol=1e-12)


@given(n=st.integers(1, 5), seed=SEEDS)
def test_one_modality_gives_its_own_posterior_and_none_gives_the_prior_exactly(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loc, log_variance = torch.randn(2, n, n + 1, 3, generator=generator)
    log_variance = 4 * log_variance
    present = torch.cat([torch.eye(n, dtype=torch.bool), torch.zeros(n, 1, dtype=torch.bool)], 1)
    got_loc, got_log_variance = product_of_posteriors(loc, log_variance, present)
    for i in range(n):
        # Float32: exp, a product, a quotient and a log.
        torch.testing.assert_close(got_loc[i], loc[i, i], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got_log_variance[i], log_variance[i, i], rtol=1e-5, atol=1e-5)
    assert (got_loc[n] == 0).all()
    assert (got_log_variance[n] == 0).all()


@given(
    log_variances=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4), st.just(2)), elements=st.floats(-80, 80, width=32)),
    data=st.data(),
)
def test_the_product_of_posteriors_of_any_width_is_finite_and_no_wider_than_its_sharpest_factor(
    log_variances: np.ndarray, data: st.DataObject
) -> None:
    log_variance = torch.as_tensor(log_variances).requires_grad_()
    loc = torch.as_tensor(data.draw(hnp.arrays(np.float32, log_variances.shape, elements=st.floats(-10, 10, width=32)))).requires_grad_()
    present = torch.as_tensor(data.draw(hnp.arrays(bool, log_variances.shape[:2])))
    got_loc, got_log_variance = product_of_posteriors(loc, log_variance, present)
    assert got_loc.isfinite().all()
    assert got_log_variance.isfinite().all()
    sharpest = torch.where(present[..., None], log_variance, torch.inf).amin(0)
    # 80 in float32 is resolved to 8e-6.
    assert (got_log_variance <= sharpest + 1e-4)[present.any(0)].all()
    (got_loc.sum() + got_log_variance.sum()).backward()
    assert log_variance.grad.isfinite().all()
    assert loc.grad.isfinite().all()


def test_absent_experts_may_hold_anything_even_nan() -> None:
    loc, log_variance = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    present = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    once = product_of_posteriors(loc, log_variance, present)
    loc[1], log_variance[1] = float("nan"), float("nan")
    torch.testing.assert_close(product_of_posteriors(loc, log_variance, present), once, rtol=0, atol=0)


# Product of experts


@given(
    n=st.integers(1, 5),
    leading=st.sampled_from([(), (1,), (3,), (2, 3)]),
    seed=SEEDS,
    data=st.data(),
)
def test_product_of_experts_adds_precisions_to_the_priors(n: int, leading: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    loc, log_variance = 3 * rng.normal(size=(2, n, 4, 2))
    present = data.draw(hnp.arrays(bool, (*leading, n, 4)))
    precision = present[..., None] * np.exp(-log_variance)
    total = 1 + precision.sum(-3)
    got = product_of_experts(torch.as_tensor(loc), torch.as_tensor(log_variance), torch.as_tensor(present))
    # Float64 against float64.
    np.testing.assert_allclose(got[0], (precision * loc).sum(-3) / total, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got[1], -np.log(total), rtol=1e-10, atol=1e-12)


@given(n=st.integers(0, 4), seed=SEEDS)
def test_product_of_experts_is_the_normalised_product_of_densities_on_a_grid(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(size=4), rng.uniform(0.3, 3.0, size=4)
    z = np.linspace(-12, 12, 4001)
    density = stats.norm.pdf(z) * np.prod([stats.norm.pdf(z, m, s) for m, s in zip(loc[:n], scale[:n], strict=True)], axis=0)
    density /= density.sum()
    mean = (density * z).sum()
    present = torch.arange(4)[:, None] < n
    got = product_of_experts(torch.as_tensor(loc)[:, None, None], 2 * torch.as_tensor(scale).log()[:, None, None], present)
    # A sum over a fine grid that reaches twelve standard deviations of the prior, the widest factor that always counts.
    np.testing.assert_allclose(got[0].item(), mean, atol=1e-6)
    np.testing.assert_allclose(got[1].exp().item(), (density * (z - mean) ** 2).sum(), rtol=1e-6)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), latent_dim=st.integers(1, 3), seed=SEEDS, data=st.data())
def test_product_of_experts_is_the_posterior_where_experts_are_the_evidence(
    sizes: list[int], latent_dim: int, seed: int, data: st.DataObject
) -> None:
    oracle = LinearGaussian.random(dict(zip(NAMES, sizes, strict=False)), latent_dim, seed)
    x = {name: value[0] for name, value in oracle.sample(1, seed + 1).items()}
    present = data.draw(hnp.arrays(bool, len(sizes)))
    mean, covariance = oracle.posterior({name: value for (name, value), here in zip(x.items(), present, strict=True) if here})
    posterior_loc, posterior_log_variance = experts(oracle, x)
    # A posterior is the prior times its evidence, whose precision is less by one; where there is none, 1e-12 stands for it.
    evidence = (-posterior_log_variance).expm1().clamp(min=1e-12)
    loc = posterior_loc * (-posterior_log_variance).exp() / evidence
    got_loc, got_log_variance = product_of_experts(loc, -evidence.log(), torch.as_tensor(present)[:, None])
    np.testing.assert_allclose(got_loc[0], mean, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(got_log_variance[0], np.log(np.diag(covariance)), rtol=1e-7, atol=1e-7)


@given(n=st.integers(1, 4), magnitude=st.sampled_from([10.0, 40.0, 89.0, 100.0]), seed=SEEDS, data=st.data())
def test_product_of_experts_of_any_width_is_exact_and_its_gradients_are_finite(
    n: int, magnitude: float, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    signs = data.draw(hnp.arrays(np.float32, (n, 3, 2), elements=st.sampled_from([-1.0, 0.0, 1.0])))
    present = data.draw(hnp.arrays(bool, (2, n, 3)))
    loc = torch.as_tensor(rng.normal(size=(n, 3, 2)).astype(np.float32)).requires_grad_()
    log_variance = torch.as_tensor(magnitude * signs).requires_grad_()
    got_loc, got_log_variance = product_of_experts(loc, log_variance, torch.as_tensor(present))
    # Float64 holds precisions up to exp(700).
    precision = present[..., None] * np.exp(-magnitude * signs.astype(np.float64))
    total = 1 + precision.sum(-3)
    np.testing.assert_allclose(got_loc.detach(), (precision * loc.detach().double().numpy()).sum(-3) / total, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got_log_variance.detach(), -np.log(total), rtol=1e-6, atol=1e-6)
    scale = (got_log_variance / 2).exp()
    ((got_loc + scale * torch.as_tensor(rng.normal(size=got_loc.shape))).square().sum() + got_log_variance.sum()).backward()
    for gradient in (loc.grad, log_variance.grad):
        assert gradient.isfinite().all()
        assert (gradient[~torch.as_tensor(present).any(0)] == 0).all()


def test_with_no_expert_the_product_is_the_prior_exactly_and_gradients_are_zero() -> None:
    loc, log_variance = torch.randn(2, 3, 4, 2).requires_grad_().unbind()
    got_loc, got_log_variance = product_of_experts(loc, log_variance, torch.zeros(5, 3, 4, dtype=torch.bool))
    assert got_loc.shape == got_log_variance.shape == (5, 4, 2)
    assert (got_loc == 0).all()
    assert (got_log_variance == 0).all()
    for gradient in torch.autograd.grad(got_loc.sum() + got_log_variance.exp().sum(), (loc, log_variance)):
        assert (gradient == 0).all()


def test_absent_experts_of_a_product_may_hold_anything_even_nan() -> None:
    loc, log_variance = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    present = torch.tensor([[True] * 4, [False] * 4, [True, False, True, False]])
    once = product_of_experts(loc, log_variance, present)
    for junk in (math.nan, math.inf, -math.inf, 1e30):
        dirty = [torch.where(present[..., None], part, junk).requires_grad_() for part in (loc, log_variance)]
        again = product_of_experts(*dirty, present)
        torch.testing.assert_close(again, once, rtol=0, atol=0)
        gradients = torch.autograd.grad(sum(part.sum() for part in again), dirty)
        assert all(gradient.isfinite().all() for gradient in gradients)


@given(n=st.integers(2, 5), seed=SEEDS)
def test_the_product_of_experts_does_not_depend_on_their_order(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loc, log_variance = torch.randn(2, n, 7, 3, generator=generator, dtype=torch.float64)
    present = torch.rand(n, 7, generator=generator) < 0.6
    order = torch.randperm(n, generator=generator)
    again = product_of_experts(loc[order], log_variance[order], present[order])
    torch.testing.assert_close(again, product_of_experts(loc, log_variance, present), rtol=1e-12, atol=1e-12)


# Divergence


@given(seed=SEEDS, dims=st.integers(1, 5))
def test_the_divergence_of_diagonal_normals_is_the_closed_form(seed: int, dims: int) -> None:
    rng = np.random.default_rng(seed)
    m, l, m2, l2 = rng.normal(size=(4, 3, dims))  # noqa: E741 (log-variances)
    got = kl_divergence(
        diagonal_normal(*map(torch.as_tensor, (m, np.exp(l / 2)))), diagonal_normal(*map(torch.as_tensor, (m2, np.exp(l2 / 2))))
    )
    expected = 0.5 * (np.exp(l - l2) + (m - m2) ** 2 / np.exp(l2) - 1 - l + l2).sum(-1)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


# Discretised logistic

ranges = st.sampled_from([(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-3.0, 7.5), (0.1, 0.7)])


def all_levels(d: DiscretizedLogistic) -> torch.Tensor:
    return torch.linspace(d.low, d.high, d.levels, dtype=torch.float64)


def brute_force(d: DiscretizedLogistic) -> np.ndarray:
    """Probabilities of all levels, shape (levels, *shape), as plain differences of distribution functions."""
    logistic = stats.logistic(d.loc.double().numpy(), d.log_scale.double().exp().numpy())
    inner = (all_levels(d)[:-1] + d.step / 2).numpy()
    cdf = np.stack([logistic.cdf(edge) for edge in inner])
    zero = np.zeros_like(cdf[:1])
    return np.diff(np.concatenate([zero, cdf, zero + 1]), axis=0)


@given(bounds=ranges, levels=st.integers(2, 300), loc=st.floats(-0.2, 1.2), log_scale=st.floats(-4, 3))
def test_probabilities_of_the_levels_are_differences_of_distribution_functions_and_sum_to_one(
    bounds: tuple[float, float], levels: int, loc: float, log_scale: float
) -> None:
    low, high = bounds
    span = high - low
    d = DiscretizedLogistic(
        torch.tensor([low + loc * span], dtype=torch.float64),
        torch.tensor([log_scale], dtype=torch.float64) + np.log(span),
        levels,
        low,
        high,
    )
    got = torch.stack([d.log_prob(x) for x in all_levels(d)]).exp()
    # The brute force loses 16 digits to cancellation where the distribution function is near 1.
    np.testing.assert_allclose(got, brute_force(d), rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(got.sum(0), 1.0, rtol=1e-10)
    mean = (brute_force(d) * all_levels(d).numpy()[:, None]).sum(0)
    np.testing.assert_allclose(d.mean, mean, rtol=1e-9, atol=1e-9 * span)


@given(log_scale=st.floats(-15, 15, width=32), sign=st.sampled_from([-1.0, 1.0]))
def test_the_density_far_in_the_tails_is_finite_falls_steadily_and_has_finite_gradients(log_scale: float, sign: float) -> None:
    distance = torch.logspace(-3, 6, 60)
    loc = (0.5 + sign * distance).requires_grad_()
    scale = torch.full_like(loc, log_scale).requires_grad_()
    d = DiscretizedLogistic(loc, scale)
    for level in (0, 1, 100, 128, 254, 255):
        x = torch.tensor(level / 255)
        log_prob = d.log_prob(x)
        assert log_prob.isfinite().all()
        # Float32 knows the log-probability to about 1e-7 of its size.
        assert (log_prob <= 1e-6).all()
        away = distance > 1.0
        falls = log_prob.diff()[away[1:]]
        if 0 < level < 255:
            assert (falls <= 1e-5 * log_prob.detach().abs()[1:][away[1:]]).all()
        gradients = torch.autograd.grad(log_prob.sum(), (loc, scale))
        assert all(gradient.isfinite().all() for gradient in gradients)
        if 0 < level < 255 and log_scale < 5:
            # Far out, log P is linear with slope 1 / s: the gradient does not vanish, so training recovers from there.
            torch.testing.assert_close(gradients[0][-1].item(), -sign * float(np.exp(-log_scale)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("x", [0.0, 10 / 255, 128 / 255, 1.0])
def test_float32_log_probabilities_in_the_tails_agree_with_exact_ones(x: float) -> None:
    # log(F(b) - F(a)) = log F(b) + log S(a) + log(1 - exp(a - b)) in float64, with scipy's stable tails.
    loc, log_scale, step = np.array([-40.0, -3.0, 0.4, 3.0, 60.0]), -3.0, 1 / 255
    s = np.exp(log_scale)
    b, a = (x + step / 2 - loc) / s, (x - step / 2 - loc) / s
    inner = stats.logistic.logcdf(b) + stats.logistic.logsf(a) + np.log(-np.expm1(a - b))
    expected = {0.0: stats.logistic.logcdf(b), 1.0: stats.logistic.logsf(a)}.get(x, inner)
    got = DiscretizedLogistic(torch.tensor(loc, dtype=torch.float32), torch.tensor(log_scale)).log_prob(torch.tensor(x))
    # The argument, up to 1200, is known to 1e-7 of its size; a log-probability near 0 to about that much absolutely.
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)


@given(bounds=ranges, levels=st.one_of(st.integers(2, 300), st.sampled_from([1024, 65536])), seed=SEEDS)
def test_samples_and_the_mode_lie_on_levels_inside_the_support(bounds: tuple[float, float], levels: int, seed: int) -> None:
    low, high = bounds
    torch.manual_seed(seed)
    d = DiscretizedLogistic(low + (high - low) * torch.linspace(-1, 2, 50), torch.tensor(0.0), levels, low, high)
    for x in (d.sample((20,)), d.mode):
        assert d.support.check(x).all()
        index = (x.double() - low) / d.step
        # Levels are stored in float32: off by 1e-7 of their size, in units of a step.
        assert (index - index.round()).abs().max() < 1e-6 * max(abs(low), abs(high)) / d.step + 1e-9
    assert d.sample((20,)).shape == (20, 50)


def test_samples_come_with_the_frequencies_that_the_probabilities_promise() -> None:
    torch.manual_seed(0)
    d = DiscretizedLogistic(torch.tensor([0.1, 0.5, 0.95]), torch.tensor(-1.5), levels=5)
    draws = 20000
    index = (d.sample((draws,)) * 4).round().long()
    observed = torch.stack([torch.bincount(column, minlength=5) for column in index.T]).double().numpy()
    for counts, probabilities in zip(observed, brute_force(d).T, strict=True):
        # A chi-square test that a right sampler fails once in a million seeds.
        assert stats.chisquare(counts, draws * probabilities / probabilities.sum()).pvalue > 1e-6


def test_expanding_a_discretised_logistic_keeps_its_probabilities() -> None:
    d = DiscretizedLogistic(torch.tensor([0.2, 0.8]), torch.tensor(-1.0), levels=4)
    for x, shape in itertools.product((0.0, 1 / 3, 1.0), ((2,), (3, 2))):
        torch.testing.assert_close(d.expand(shape).log_prob(torch.tensor(x)), d.log_prob(torch.tensor(x)).expand(shape))
