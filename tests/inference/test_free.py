"""The free baseline: closed forms against oracles, units, and weights of evidence that do not depend on them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, distributions
from torch.distributions import constraints

from nbridge.inference.free import fit_marginal, marginal_nats
from nbridge.nn.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Likelihood, NegativeBinomial, Normal, Poisson

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_normal_has_the_mean_and_the_deviation_of_each_column():
    x = 5 + torch.tensor([0.1, 30.0]) * torch.randn(400, 2, generator=drawn())
    new = 5 + torch.randn(7, 2, generator=drawn(1))
    expected = sum(stats.norm.logpdf(new[:, j].double(), x[:, j].double().mean(), x[:, j].double().std(correction=0)) for j in range(2))
    torch.testing.assert_close(fit_marginal(Normal((2,)), x).log_prob(new), torch.as_tensor(expected))


def test_a_laplace_has_the_median_and_the_mean_absolute_deviation():
    x = torch.randn(401, 1, generator=drawn()).double()
    median = x.median()
    expected = stats.laplace.logpdf(x[:, 0], median, (x - median).abs().mean())
    torch.testing.assert_close(fit_marginal(Laplace((1,)), x).log_prob(x), torch.as_tensor(expected))


def test_classes_have_their_frequencies_and_one_never_seen_is_not_impossible():
    x = torch.tensor([0] * 30 + [1] * 10)
    marginal = fit_marginal(Categorical((3,)), x)
    log_probs = marginal.log_prob(torch.arange(3))
    assert log_probs.exp().sum().item() == pytest.approx(1)
    assert log_probs[:2].exp().tolist() == pytest.approx([0.75, 0.25], abs=0.01)
    assert -6 < log_probs[2] < -4
    assert marginal_nats(Categorical((3,)), x) == pytest.approx(stats.entropy([0.75, 0.25]), abs=0.02)


def test_binary_columns_have_their_frequencies():
    x = (torch.rand(1000, 2, generator=drawn()) < torch.tensor([0.2, 0.5])).float()
    expected = sum(stats.entropy([p, 1 - p]) for p in x.mean(0).tolist())
    assert marginal_nats(Bernoulli((2,)), x) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("likelihood", [Poisson((1,)), NegativeBinomial((1,))])
def test_overdispersed_counts_have_their_mean_and_their_variance(likelihood: Likelihood):
    rate = torch.as_tensor(stats.gamma.rvs(2, scale=5, size=(5000, 1), random_state=0))
    x = torch.poisson(rate, generator=drawn())
    mean, variance = x.double().mean().item(), x.double().var(correction=0).item()
    theta = mean**2 / (variance - mean)
    expected = stats.nbinom.logpmf(x[:, 0], theta, theta / (theta + mean)).mean()
    assert marginal_nats(likelihood, x) == pytest.approx(-expected, rel=1e-3)


def test_counts_that_are_not_overdispersed_are_poisson():
    x = torch.tensor([2.0, 3.0, 4.0] * 20)[:, None]
    expected = stats.poisson.logpmf(x[:, 0], 3 + 0.5 / 60)
    torch.testing.assert_close(fit_marginal(Poisson((1,)), x).log_prob(x), torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


def test_pixels_have_a_rounded_logistic_of_their_mean_and_deviation():
    x = (torch.rand(500, 1, 2, 2, generator=drawn()) * 255).round() / 255
    x[:, 0, 0, 0] = 0.0
    scores = fit_marginal(DiscretizedLogistic((1, 2, 2)), x).log_prob(x)
    mean, scale = x.double().mean(0), x.double().std(0, correction=0) * math.sqrt(3) / math.pi
    above = torch.where(x == 1, 1.0, torch.as_tensor(stats.logistic.cdf(x + 0.5 / 255, mean, scale.clamp(min=1e-9))))
    below = torch.where(x == 0, 0.0, torch.as_tensor(stats.logistic.cdf(x - 0.5 / 255, mean, scale.clamp(min=1e-9))))
    expected = (above - below).log().flatten(1)[:, 1:].sum(1)
    # The pixel that never varies costs next to nothing.
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.02)


def test_nats_of_real_columns_do_not_depend_on_their_unit_and_a_constant_column_has_none():
    x = torch.randn(2000, 3, generator=drawn())
    x[:, 2] = 7.0
    for unit in (1e-6, 1.0, 1e9):
        assert marginal_nats(Normal((3,)), x * unit) == pytest.approx(2 * ENTROPY, rel=1e-3)


def test_cells_that_are_not_observed_do_not_count():
    x = torch.randn(3000, 2, generator=drawn())
    cells = torch.rand(3000, 2, generator=drawn(1)) < 0.5
    wild = torch.where(cells, x, 1e20)
    marginal = fit_marginal(Normal((2,)), wild, cells)
    alone = fit_marginal(Normal((1,)), x[:, :1][cells[:, 0]])
    only = torch.tensor([[True, False]]).expand(3000, 2)
    torch.testing.assert_close(marginal.log_prob(x, only), alone.log_prob(x[:, :1]))
    assert marginal_nats(Normal((2,)), wild, cells) == pytest.approx(2 * ENTROPY * cells.double().mean().item(), rel=1e-3)


class Exponential(Likelihood):
    """A likelihood without a closed form here."""

    support = constraints.nonnegative

    def forward(self, raw: Tensor) -> distributions.Distribution:
        return self._independent(distributions.Exponential(raw.exp(), validate_args=False))


def test_a_likelihood_of_ones_own_is_fitted_by_gradient_and_left_alone():
    likelihood = Exponential((2,))
    x = torch.as_tensor(stats.expon.rvs(scale=[2, 0.25], size=(2000, 2), random_state=0)).float()
    scores = fit_marginal(likelihood, x).log_prob(x)
    expected = stats.expon.logpdf(x.double(), scale=x.double().mean(0)).sum(1)
    assert scores.mean().item() == pytest.approx(expected.mean(), abs=1e-3)
    assert not scores.requires_grad


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_no_rows_have_no_log_likelihoods(shape: tuple[int, ...]):
    class OwnNormal(Normal):
        """A likelihood without a closed form, because it is none of the library's own."""

    for likelihood in (Normal(shape), OwnNormal(shape)):
        found = fit_marginal(likelihood, torch.randn(9, *shape)).log_prob(torch.zeros(0, *shape))
        assert (found.shape, found.dtype) == ((0,), torch.float64)


def test_a_marginal_without_rows_is_refused():
    with pytest.raises(ValueError, match="a marginal needs at least one row"):
        fit_marginal(Normal((2,)), torch.zeros(0, 2))
