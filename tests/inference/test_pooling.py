"""Rubin's rules against their definition, their limits, and the coverage that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import norm, t

import nbridge
from nbridge.errors import DataError

FINITE = st.floats(-1e3, 1e3)


@given(st.data(), st.integers(2, 6), array_shapes(min_dims=0, max_dims=2, max_side=3), st.sampled_from([math.inf, 4.0, 300.0]))
def test_the_rules_are_those_of_rubin_and_barnard(data: st.DataObject, number: int, shape: tuple[int, ...], complete: float):
    estimates = data.draw(arrays(float, (number, *shape), elements=FINITE))
    variances = data.draw(arrays(float, (number, *shape), elements=st.floats(0.125, 1e3)))
    pooled = nbridge.pool(estimates, variances, complete_degrees_of_freedom=complete)
    for place in np.ndindex(*shape):
        q, u = [one[place] for one in estimates], [one[place] for one in variances]
        mean = sum(q) / number
        between = sum((one - mean) ** 2 for one in q) / (number - 1)
        within = sum(u) / number
        total = within + between + between / number
        assert pooled.estimate[place] == pytest.approx(mean)
        assert pooled.between[place] == pytest.approx(between)
        assert pooled.within[place] == pytest.approx(within)
        assert pooled.variance[place] == pytest.approx(total)
        r = (1 + 1 / number) * between / within
        if r < 1e-9:
            continue
        old, observed = (number - 1) * (1 + 1 / r) ** 2, math.inf
        if complete < math.inf:
            observed = (complete + 1) / (complete + 3) * complete * within / total
        df = 1 / (1 / old + 1 / observed)
        assert pooled.degrees_of_freedom[place] == pytest.approx(df)
        assert pooled.fraction_missing[place] == pytest.approx((r + 2 / (df + 3)) / (r + 1))
        lower, upper = pooled.interval(0.9)
        assert (lower[place], upper[place]) == pytest.approx(t.interval(0.9, df, mean, math.sqrt(total)))
        assert pooled.p_value()[place] == pytest.approx(2 * t.sf(abs(mean) / math.sqrt(total), df))


def test_nothing_missing_leaves_the_analysis_as_it_is():
    pooled = nbridge.pool(np.full((5, 2), [1.0, 2.0]), np.full((5, 2), [4.0, 9.0]))
    assert (pooled.standard_error.tolist(), pooled.fraction_missing.tolist()) == ([2.0, 3.0], [0.0, 0.0])
    np.testing.assert_allclose(pooled.interval(0.95), norm.interval(0.95, [1, 2], [2, 3]))
    few = nbridge.pool(np.full((5, 2), [1.0, 2.0]), np.full((5, 2), [4.0, 9.0]), complete_degrees_of_freedom=7)
    np.testing.assert_allclose(few.degrees_of_freedom, 7 * 8 / 10)


def test_intervals_of_proper_imputations_hold_what_they_promise():
    """The mean of a normal distribution of known variance, half of whose rows are missing: imputed from its posterior predictive."""
    generator, held = np.random.default_rng(0), 0
    rows, repeats, draws = 40, 2000, 10
    for _ in range(repeats):
        values = generator.normal(1, 2, rows)
        seen = values[: rows // 2]
        means = generator.normal(seen.mean(), 2 / math.sqrt(len(seen)), draws)
        completed = np.concatenate([np.tile(seen, (draws, 1)), generator.normal(means[:, None], 2, (draws, rows - len(seen)))], 1)
        pooled = nbridge.pool(completed.mean(1), completed.var(1, ddof=1) / rows)
        lower, upper = pooled.interval(0.9)
        held += bool(lower <= 1 <= upper)
    # Four standard errors of a proportion.
    assert abs(held / repeats - 0.9) < 4 * math.sqrt(0.09 / repeats)


def test_the_variance_of_many_imputations_is_that_of_the_posterior():
    """With a flat prior and the variance 1 known, the mean of n observed of N values has the posterior variance 1 / n."""
    generator, rows, seen, draws = np.random.default_rng(1), 50, 20, 20_000
    observed = generator.normal(size=seen)
    means = generator.normal(observed.mean(), 1 / math.sqrt(seen), draws)
    added = generator.normal(means * (rows - seen), math.sqrt(rows - seen))
    pooled = nbridge.pool((observed.sum() + added) / rows, np.full(draws, 1 / rows))
    assert pooled.variance == pytest.approx(1 / seen, rel=0.03)
    assert pooled.fraction_missing == pytest.approx(1 - seen / rows, rel=0.03)


MISTAKES = {
    "variances: shape (2,), expected (3,), that of the estimates": ([1, 2, 3], [1, 2]),
    "estimates: shape (1, 2), expected those of two imputations or more, (M, ...)": ([[1, 2]], [[1, 2]]),
    "estimates: shape (), expected those of two imputations or more, (M, ...)": (1, 2),
    "estimates and variances: expected finite numbers; did an analysis fail?": ([1, math.nan], [1, 2]),
    "variances: -2, expected squared standard errors of 0 or more": ([1, 3], [1, -2]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_refused(message: str):
    with pytest.raises(DataError) as caught:
        nbridge.pool(*MISTAKES[message])
    assert str(caught.value) == message


def test_levels_and_degrees_of_freedom_are_checked():
    with pytest.raises(DataError, match=r"^level 90: expected a probability between 0 and 1$"):
        nbridge.pool([1, 2], [1, 1]).interval(90)
    with pytest.raises(DataError, match=r"^complete_degrees_of_freedom: 0, expected a number above 0$"):
        nbridge.pool([1, 2], [1, 1], complete_degrees_of_freedom=0)
