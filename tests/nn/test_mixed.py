"""Mixed likelihoods: each column has the distribution that its kind names, and nothing of another column."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import distributions

import nbridge
from nbridge.models.holes import columns_of, random_holes
from nbridge.nn.encoders import TableEncoder
from nbridge.nn.mixed import Mixed
from nbridge.testing import check_encoder, check_likelihood, check_model

COLUMNS: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 4}, "bili": "lognormal",
    "visits": {"type": "poisson", "zero_inflated": True}, "falls": "negative_binomial", "edema": {"type": "ordinal", "classes": 3},
    "year": {"type": "normal", "whole": True, "low": 1990, "high": 2000}, "twice": {"type": "categorical", "classes": 2},
}  # fmt: skip
WIDTH = 14


def rows(number: int = 200) -> torch.Tensor:
    """Rows of all columns, from known distributions."""
    draw = torch.Generator().manual_seed(0)

    def one_hot(classes: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.randint(classes, (number,), generator=draw), classes).float()

    return torch.cat([
        50 + 10 * torch.randn(number, 1, generator=draw), (torch.rand(number, 1, generator=draw) < 0.3).float(), one_hot(4),
        torch.randn(number, 1, generator=draw).exp(), torch.poisson(torch.full((number, 1), 2.0), generator=draw),
        torch.poisson(torch.full((number, 1), 5.0), generator=draw), one_hot(3),
        torch.randint(1990, 2001, (number, 1), generator=draw).float(), (torch.rand(number, 1, generator=draw) < 0.5).float(),
    ], 1)  # fmt: skip


def fitted() -> Mixed:
    likelihood = Mixed((WIDTH,), columns=COLUMNS)
    x = rows()
    likelihood.fit(likelihood.canonical(x), torch.ones_like(x, dtype=torch.bool))
    return likelihood


def test_it_meets_the_contract_of_likelihoods() -> None:
    check_likelihood(Mixed((WIDTH,), columns=COLUMNS))
    check_likelihood(Mixed((WIDTH,), columns=COLUMNS, scale="predicted"), rows())


def test_a_model_of_it_meets_the_contract_of_models() -> None:
    other = {"shape": 3, "encoder": "mlp", "likelihood": "normal"}
    check_model(nbridge.build_model(nbridge.Spec.model_validate({"modalities": {"clinical": {"columns": COLUMNS}, "rna": other}})))
    check_model(nbridge.build_model(nbridge.Spec.model_validate({"modalities": {"clinical": {"columns": COLUMNS}}})))


def test_a_fitted_likelihood_starts_at_the_distribution_of_the_training_rows() -> None:
    likelihood, x = fitted(), rows()
    mean = likelihood.expectation(likelihood(torch.zeros(likelihood.raw_shape)))
    logged = [likelihood.columns.index("bili") + 3]
    others = [element for element in range(WIDTH) if element not in logged]
    # Counts and shares have half an observation more.
    torch.testing.assert_close(mean[others], x.mean(0)[others], rtol=0.45, atol=0.01)
    plain = [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13]
    torch.testing.assert_close(mean[plain], x.mean(0)[plain], rtol=0.01, atol=0.01)


def test_each_column_has_the_density_of_its_kind() -> None:
    likelihood, x = fitted(), rows(30)
    raw = torch.randn(30, *likelihood.raw_shape)
    each = likelihood(raw).base_dist.log_prob(likelihood.canonical(x))
    real, flags, classes, ordinal, poisson, binomial = likelihood.families
    loc = real.shift + real.unit * raw[:, :3]
    scale = real.unit * real.log_scale.exp()
    torch.testing.assert_close(each[:, 0], distributions.Normal(loc[:, 0], scale[0]).log_prob(x[:, 0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(each[:, 6], distributions.LogNormal(loc[:, 1], scale[1]).log_prob(x[:, 6]), rtol=1e-4, atol=1e-4)
    logits = flags.log_odds + raw[:, 3:5]
    expected = distributions.Bernoulli(logits=logits[:, 0]).log_prob(x[:, 1])
    torch.testing.assert_close(each[:, 1], expected, rtol=1e-4, atol=1e-4)
    stage = distributions.Categorical(logits=classes.log_shares + raw[:, 5:9]).log_prob(x[:, 2:6].argmax(1))
    torch.testing.assert_close(each[:, 2:6].sum(1), stage, rtol=1e-4, atol=1e-4)
    level = torch.tensor([-1.0, 0.0, 1.0])
    scores = ordinal.log_shares + raw[:, [9]] * level + raw[:, [10]] * level.square()
    edema = distributions.Categorical(logits=scores).log_prob(x[:, 9:12].argmax(1))
    torch.testing.assert_close(each[:, 9:12].sum(1), edema, rtol=1e-4, atol=1e-4)
    rate = (raw[:, 11] + poisson.log_mean).exp()
    zero = torch.sigmoid(raw[:, 12] - 1)
    mass = zero * (x[:, 7] == 0) + (1 - zero) * distributions.Poisson(rate).log_prob(x[:, 7]).exp()
    torch.testing.assert_close(each[:, 7], mass.log(), rtol=1e-4, atol=1e-4)
    theta = binomial.log_dispersion.exp()
    mean = (raw[:, 13] + binomial.log_mean).exp()
    falls = distributions.NegativeBinomial(theta, logits=(mean / theta).log()).log_prob(x[:, 8])
    torch.testing.assert_close(each[:, 8], falls, rtol=1e-4, atol=1e-4)


def test_probabilities_of_the_classes_of_a_column_sum_to_1() -> None:
    likelihood = fitted()
    mean = likelihood.expectation(likelihood(5 * torch.randn(50, *likelihood.raw_shape)))
    for start, stop in ((2, 6), (9, 12)):
        torch.testing.assert_close(mean[:, start:stop].sum(1), torch.ones(50))


def test_draws_and_points_are_one_class_whole_where_whole_and_within_bounds() -> None:
    likelihood = fitted()
    distribution = likelihood(3 * torch.randn(500, *likelihood.raw_shape))
    for x in (distribution.sample(), likelihood.point(likelihood.expectation(distribution))):
        for start, stop in ((2, 6), (9, 12)):
            assert torch.equal(x[:, start:stop].sum(1), torch.ones(500))
            assert set(x[:, start:stop].unique().tolist()) <= {0.0, 1.0}
        year = x[:, 12]
        assert torch.equal(year, year.round())
        assert year.min() >= 1990
        assert year.max() <= 2000
        assert set(x[:, [1, 13]].unique().tolist()) <= {0.0, 1.0}
        assert (x[:, 6] > 0).all()


def test_draws_of_a_class_have_its_probabilities() -> None:
    likelihood = fitted()
    raw = torch.randn(likelihood.raw_shape)
    distribution = likelihood(raw.expand(20_000, -1))
    torch.manual_seed(0)
    torch.testing.assert_close(distribution.sample().mean(0)[2:6], distribution.mean[0, 2:6], rtol=0, atol=0.02)


def test_a_column_does_not_depend_on_the_raw_parameters_of_another() -> None:
    likelihood = fitted()
    raw = torch.zeros(likelihood.raw_shape, requires_grad=True)
    for column, (start, stop) in zip(likelihood.columns, likelihood.spans, strict=True):
        (gradient,) = torch.autograd.grad(likelihood(raw).base_dist.log_prob(likelihood.canonical(rows(1)[0]))[start:stop].sum(), raw)
        assert 0 < int((gradient != 0).sum()) <= 4, column


def test_the_order_of_columns_does_not_matter() -> None:
    columns = {"a": "normal", "b": {"type": "categorical", "classes": 3}, "c": "bernoulli"}
    one, other = Mixed((5,), columns=columns), Mixed((5,), columns={name: columns[name] for name in ("b", "c", "a")})
    order = [1, 2, 3, 4, 0]
    x, raw = torch.tensor([[0.3, 0.0, 1.0, 0.0, 1.0]]), torch.randn(1, 5)
    # Raw parameters are by family, so they are the same.
    torch.testing.assert_close(one.log_prob(raw, x), other.log_prob(raw, x[:, order]))


def test_a_temperature_by_element_scales_each_column_alone() -> None:
    likelihood = fitted()
    raw, factor = torch.randn(6, *likelihood.raw_shape), torch.ones(WIDTH)
    factor[0] = 2.0
    before, after = likelihood(raw).base_dist, likelihood(raw, factor.expand(6, -1)).base_dist
    torch.testing.assert_close(after.variance[:, 0], 4 * before.variance[:, 0])
    torch.testing.assert_close(after.variance[:, 1:], before.variance[:, 1:])


@pytest.mark.parametrize(
    ("shape", "columns", "message"),
    [
        (3, {"a": "normal"}, "1 columns of 1 elements with classes one-hot; write shape: 1"),
        (1, {"a": "categorical"}, "columns: a of unknown classes; write {type: categorical, classes: NUMBER}"),
    ],
)
def test_columns_that_do_not_match_are_refused(shape: int, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="columns") as error:
        Mixed((shape,), columns=columns)
    assert str(error.value) == message


def test_two_thousand_columns_take_a_few_operations() -> None:
    columns = {f"c{i}": ("normal", "bernoulli", {"type": "categorical", "classes": 5})[i % 3] for i in range(2000)}
    likelihood = Mixed((667 + 667 + 666 * 5,), columns=columns)
    assert len(likelihood.families) == 3
    assert likelihood.log_prob(torch.randn(4, *likelihood.raw_shape), likelihood.blank(4)).isfinite().all()


# The encoder, and cells hidden in training


def test_the_table_encoder_meets_the_contract_of_encoders() -> None:
    check_encoder(TableEncoder((5,), 8), (5,))


def test_the_encoder_sees_which_cells_are_missing() -> None:
    encoder = TableEncoder((3,), 8).eval()
    observed, missing = torch.tensor([[0.0, 1.0, 2.0, 1.0, 1.0, 1.0]]), torch.tensor([[0.0, 1.0, 2.0, 0.0, 1.0, 1.0]])
    assert not torch.equal(encoder(observed), encoder(missing))


def test_the_encoder_hides_whole_columns_in_training_and_none_in_serving() -> None:
    encoder = TableEncoder((4,), 8, (0, 1, 1, 1), hide=0.5)
    inputs: list[torch.Tensor] = []
    encoder.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    x = torch.ones(2000, 8)
    encoder(x)
    seen = inputs[-1].view(2000, 2, 4)
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[:, 0, 1:], seen[:, 0, 1:2].expand(-1, 3))
    hidden = 1 - seen[:, 0, :2].mean(0)
    assert ((hidden - 0.5).abs() < 0.05).all(), hidden
    encoder.eval()(x)
    assert torch.equal(inputs[-1], x)


def test_holes_hide_a_share_of_the_observed_columns_never_all() -> None:
    likelihood = Mixed((WIDTH,), columns=COLUMNS)
    observed = torch.ones(3000, WIDTH, dtype=torch.bool)
    observed[:, 9:12] = False
    observed[0] = False
    observed[1, 1:] = False
    torch.manual_seed(0)
    holes = random_holes(likelihood, observed, 0.25)
    columns = columns_of(likelihood)
    by_column = torch.stack([holes[:, columns == column].any(1) for column in range(len(COLUMNS))], 1)
    assert not holes[0].any()
    assert not holes[1].any()
    assert not (holes & ~observed).any()
    assert (by_column[2:].sum(1) >= 1).all()
    assert math.isclose(by_column[2:].float().sum(1).mean().item(), 0.25 * 8, rel_tol=0.05)
    for column in range(len(COLUMNS)):
        own = holes[:, columns == column]
        assert torch.equal(own.any(1), own.all(1))
