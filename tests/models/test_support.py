"""Values outside a likelihood's support are told by modality, row, value and what was expected; what is absent may be anything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.models.support import check_support, describe_support
from nbridge.nn.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Likelihood, NegativeBinomial, Normal, Poisson

LIKELIHOODS: dict[str, tuple[Likelihood, list[float], str]] = {
    "bernoulli": (Bernoulli((2,)), [0.0, 0.3, 1.0], "numbers from 0 to 1"),
    "categorical": (Categorical((3,)), [0, 1, 2], "whole numbers from 0 to 2"),
    "normal": (Normal((2,)), [-1e30, 0.0, 2.5], "finite numbers"),
    "laplace": (Laplace((2,)), [-1e30, 0.0, 2.5], "finite numbers"),
    "discretized_logistic": (DiscretizedLogistic((2,), low=-1, high=1), [-1.0, 0.5, 1.0], "numbers from -1 to 1"),
    "discretized_logistic of 8 bits": (DiscretizedLogistic((2,), high=255), [0, 128, 255], "numbers from 0 to 255"),
    "poisson": (Poisson((2,)), [0, 1, 1e6], "whole numbers from 0"),
    "negative_binomial": (NegativeBinomial((2,)), [0, 1, 1e6], "whole numbers from 0"),
}
OUTSIDE = [
    ("bernoulli", 1.5, "value 1.5 is outside the support of Bernoulli, numbers from 0 to 1"),
    ("bernoulli", -0.001, "value -0.001 is outside the support of Bernoulli, numbers from 0 to 1"),
    ("categorical", 3, "value 3 is outside the support of Categorical, whole numbers from 0 to 2"),
    ("categorical", -1, "value -1 is outside the support of Categorical, whole numbers from 0 to 2"),
    ("discretized_logistic", 1.01, "value 1.01 is outside the support of DiscretizedLogistic, numbers from -1 to 1"),
    ("discretized_logistic of 8 bits", 256, "value 256 is outside the support of DiscretizedLogistic, numbers from 0 to 255"),
    ("poisson", -3, "value -3 is outside the support of Poisson, whole numbers from 0"),
    ("poisson", 2.5, "value 2.5 is outside the support of Poisson, whole numbers from 0"),
    ("negative_binomial", 0.1, "value 0.1 is outside the support of NegativeBinomial, whole numbers from 0"),
]


def rows(likelihood: Likelihood, values: list[float]) -> Tensor:
    """A row for each value, with the value in its last cell and a value that is always inside in the others."""
    if not likelihood.elementwise:
        return torch.tensor(values)
    x = torch.zeros(len(values), *likelihood.shape)
    x[:, -1] = torch.tensor(values)
    return x


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_values_of_the_support_pass_and_it_is_put_in_words(kind: str):
    likelihood, inside, words = LIKELIHOODS[kind]
    check_support({"x": likelihood}, Batch.complete({"x": rows(likelihood, inside)}))
    assert describe_support(likelihood.support) == words


@pytest.mark.parametrize(("kind", "value", "message"), OUTSIDE)
def test_the_first_value_outside_is_named_with_its_row(kind: str, value: float, message: str):
    likelihood, inside, _ = LIKELIHOODS[kind]
    batch = Batch.complete({"x": rows(likelihood, [*inside, value, inside[0], value])})
    with pytest.raises(DataError) as caught:
        check_support({"x": likelihood}, batch)
    assert (
        str(caught.value) == f"modality 'x', row {len(inside)}: {message} (2 such rows). Rescale the values or choose another likelihood."
    )


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, value, _ in OUTSIDE] + [("poisson", float("nan")), ("normal", float("inf"))]
)
def test_what_an_absent_row_holds_does_not_matter(kind: str, value: float):
    likelihood, inside, _ = LIKELIHOODS[kind]
    x = rows(likelihood, [inside[0], value])
    check_support({"x": likelihood}, Batch({"x": x}, {"x": torch.tensor([True, False])}))


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, value, _ in OUTSIDE if kind != "categorical"])
def test_what_an_absent_cell_holds_does_not_matter(kind: str, value: float):
    likelihood, inside, _ = LIKELIHOODS[kind]
    x, cells = rows(likelihood, [inside[0], value]), torch.tensor([[True, True], [True, False]])
    present = torch.tensor([True, True])
    check_support({"x": likelihood}, Batch({"x": x}, {"x": present}, {"x": cells}))
    with pytest.raises(DataError, match=r"modality 'x', row 1: value .* \(1 such row\)"):
        check_support({"x": likelihood}, Batch({"x": x}, {"x": present}, {"x": ~cells | cells}))


@pytest.mark.parametrize("kind", ["normal", "laplace"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_likelihood_has_a_density_at_infinity(kind: str, value: float):
    likelihood = LIKELIHOODS[kind][0]
    with pytest.raises(DataError) as caught:
        check_support({"x": likelihood}, Batch.complete({"x": rows(likelihood, [0.0, value])}))
    assert str(caught.value) == (
        f"modality 'x', row 1: value {value:g} is outside the support of {type(likelihood).__name__}, finite numbers (1 such row). "
        "Rescale the values or choose another likelihood."
    )


ONE_HOT = "modality 'x', row 1: expected a class index or a one-hot row, with a single 1 among 0s"


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.0], [2.0, 0.0, 0.0], [1.0, -1.0, 1.0]])
def test_a_row_that_is_not_one_hot_is_named(row: list[float]):
    x = torch.tensor([[0.0, 1.0, 0.0], row])
    with pytest.raises(DataError) as caught:
        check_support({"x": Categorical((3,))}, Batch.complete({"x": x}))
    assert str(caught.value) == ONE_HOT
    check_support({"x": Categorical((3,))}, Batch({"x": x}, {"x": torch.tensor([True, False])}))


@pytest.mark.parametrize("index", [0.5, 1.999, float("nan")])
def test_an_index_between_classes_is_no_class(index: float):
    with pytest.raises(DataError) as caught:
        check_support({"x": Categorical((3,))}, Batch.complete({"x": torch.tensor([1.0, index])}))
    assert str(caught.value) == ONE_HOT


def test_one_hot_rows_are_whole_or_absent():
    x, present = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([True, True])
    cells = torch.tensor([[True] * 3, [False, True, True]])
    with pytest.raises(DataError) as caught:
        check_support({"x": Categorical((3,))}, Batch({"x": x}, {"x": present}, {"x": cells}))
    assert str(caught.value) == "modality 'x': row 1 is NaN in part, expected a whole row of class values, or NaN throughout"


@pytest.mark.parametrize(
    ("likelihood", "shape", "expected"),
    [(Normal((2,)), (4, 3), "2"), (Bernoulli((1, 2, 2)), (4, 4), "1, 2, 2"), (Categorical((3,)), (4, 3, 2), "3")],
)
def test_a_row_of_another_shape_is_named_before_its_values(likelihood: Likelihood, shape: tuple[int, ...], expected: str):
    with pytest.raises(DataError) as caught:
        check_support({"x": likelihood}, Batch.complete({"x": torch.full(shape, 7.0)}))
    assert str(caught.value) == f"modality 'x': values of shape {shape}, expected (rows, {expected})"


def test_modalities_that_a_batch_lacks_are_passed_over():
    check_support({"x": Normal((2,)), "y": Poisson((2,))}, Batch.complete({"x": torch.zeros(3, 2)}))
