"""Arrays become batches: presence is what was said, values are what was given, and what doesn't fit is named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbridge.data.arrays import require_whole, to_batch
from nbridge.data.batch import Batch
from nbridge.data.ids import check_ids
from nbridge.errors import DataError

NAN = float("nan")
SHAPES = [(3,), (1,), (2, 3), (1, 2, 3), (2, 1, 2)]
DTYPES = [np.float16, np.float32, np.float64, np.dtype(">f8")]


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@st.composite
def rows_with_holes(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray]:
    shape = draw(st.sampled_from(SHAPES))
    count = draw(st.integers(1, 6))
    numbers = st.one_of(st.just(0.0), st.just(NAN), st.floats(-100, 100, width=16))
    array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), (count, *shape), elements=numbers))
    array[draw(hnp.arrays(bool, count))] = NAN
    return shape, array


@given(rows_with_holes(), st.booleans())
def test_a_row_is_absent_when_it_is_all_nan_and_only_then(drawn: tuple[tuple[int, ...], np.ndarray], flat: bool) -> None:
    shape, array = drawn
    before = array.copy()
    batch = to_batch({"x": array.reshape(len(array), -1) if flat else array}, {"x": shape}, allow_missing=True)
    observed = ~np.isnan(array)
    present = observed.reshape(len(array), -1).any(1)

    np.testing.assert_array_equal(array, before)
    assert batch.values["x"].dtype == torch.float32
    np.testing.assert_array_equal(batch.present["x"].numpy(), present)
    np.testing.assert_array_equal(batch.values["x"].numpy(), np.where(observed, array, 0).astype(np.float32))
    cells = batch.cells["x"].numpy() if "x" in batch.cells else np.ones_like(observed)
    np.testing.assert_array_equal(cells[present], observed[present])
    assert ("x" in batch.cells) == (not observed[present].all())


@given(rows_with_holes(), st.data())
def test_a_row_declared_absent_may_hold_anything(drawn: tuple[tuple[int, ...], np.ndarray], data: st.DataObject) -> None:
    shape, array = drawn
    some = ~np.isnan(array).reshape(len(array), -1).all(1)
    mask = data.draw(hnp.arrays(bool, len(array))) & some
    garbage = array.copy()
    garbage[~mask] = data.draw(st.sampled_from([NAN, np.inf, -np.inf, 0, 7]))
    hidden = array.copy()
    hidden[~mask] = NAN
    with_mask = to_batch({"x": garbage, "x__present": mask}, {"x": shape}, allow_missing=True)
    without = to_batch({"x": hidden}, {"x": shape}, allow_missing=True)
    assert_same(with_mask, without)


@given(st.integers(2, 6), st.data())
def test_class_indices_come_through_in_any_dtype(classes: int, data: st.DataObject) -> None:
    labels = data.draw(hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, classes - 1)))
    absent = data.draw(hnp.arrays(bool, len(labels)))
    dtype = data.draw(st.sampled_from([np.uint8, np.int32, np.uint64, np.float32, np.float64]))
    array = labels.astype(dtype)
    arrays: dict[str, Any] = {"y": array, "y__present": ~absent}
    if array.dtype.kind == "f":
        arrays = {"y": np.where(absent, NAN, array)}
    batch = to_batch(arrays, {"y": (classes,)}, allow_missing=True)
    assert batch.values["y"].dtype == torch.int64
    assert batch.values["y"].tolist() == np.where(absent, 0, labels).tolist()
    assert batch.present["y"].tolist() == (~absent).tolist()


def assert_same(one: Batch, other: Batch) -> None:
    parts: list[tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]] = [
        (one.values, other.values),
        (one.present, other.present),
        (one.cells, other.cells),
    ]
    for a, b in parts:
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_zeros_are_values_and_never_absence() -> None:
    batch = to_batch(
        {"x": np.zeros((3, 4)), "y": np.zeros(3, np.int64), "onehot": np.zeros((3, 2))}, {"x": (4,), "y": (5,), "onehot": (2,)}
    )
    assert all(mask.all() for mask in batch.present.values())
    assert not batch.cells


@pytest.mark.parametrize(
    "given_rows",
    [
        np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3),
        np.arange(12).reshape(2, 6),
        np.arange(12.0).reshape(2, 2, 3),
        torch.arange(12.0, requires_grad=True).reshape(2, 1, 2, 3),
        torch.arange(12, dtype=torch.bfloat16).reshape(2, 6),
        np.arange(12).reshape(2, 6).tolist(),
        np.asfortranarray(np.arange(12.0).reshape(2, 6)),
        np.arange(12.0)[::-1].reshape(2, 6)[::-1, ::-1],
    ],
)
def test_rows_come_whole_or_flat_or_without_their_one_channel(given_rows: Any) -> None:
    batch = to_batch({"x": given_rows}, {"x": (1, 2, 3)})
    assert batch.values["x"].shape == (2, 1, 2, 3)
    assert batch.values["x"].dtype == torch.float32
    assert batch.values["x"].is_contiguous()
    assert not batch.values["x"].requires_grad
    torch.testing.assert_close(batch.values["x"], torch.arange(12.0).reshape(2, 1, 2, 3))


def test_read_only_arrays_are_read_and_not_shared() -> None:
    array = np.ones((2, 3), np.float32)
    array.setflags(write=False)
    mask = np.array([True, True])
    batch = to_batch({"x": array, "x__present": mask}, {"x": (3,)})
    batch.values["x"][:] = 5
    batch.present["x"][:] = False
    assert (array == 1).all()
    assert mask.all()


def test_cells_under_the_mask_of_a_masked_array_are_absent() -> None:
    array = np.ma.array([[1, 2], [3, 4]], mask=[[False, True], [True, True]])
    batch = to_batch({"x": array}, {"x": (2,)})
    assert batch.present["x"].tolist() == [True, False]
    assert batch.cells["x"].tolist() == [[True, False], [False, False]]


def test_scalars_and_truth_values() -> None:
    batch = to_batch({"age": [1.5, NAN], "sex": np.array([True, False])}, {"age": (1,), "sex": (2,)})
    assert batch.values["age"].tolist() == [[1.5], [0.0]]
    assert batch.values["sex"].tolist() == [1, 0]
    assert not batch.cells


def test_a_modality_may_be_missing_where_that_is_allowed() -> None:
    shapes = {"x": (2,), "y": (3,)}
    assert to_batch({"y": [0, 1]}, shapes, allow_missing=True).names == ("y",)
    assert not to_batch({"x": [[NAN, NAN]], "y": [0]}, shapes, allow_missing=True).present["x"].any()


def test_modalities_keep_the_order_of_the_shapes() -> None:
    assert to_batch({"b": [0], "a": [1]}, {"a": (2,), "b": (2,)}).names == ("a", "b")


def test_one_hot_rows_are_whole_or_absent() -> None:
    batch = to_batch({"y": [[1, 0], [NAN, NAN], [NAN, 1]], "x": [[NAN, 1]] * 3}, {"y": (2,), "x": (2,)})
    with refused("modality 'y': row 2 is NaN in part, expected a whole row of class values, or NaN throughout"):
        require_whole(batch, ["y"])
    require_whole(to_batch({"y": [[1, 0], [NAN, NAN]]}, {"y": (2,)}), ["y"])


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (np.zeros((10, 31)), (1, 4, 8), "array of shape (10, 31), expected (rows, 1, 4, 8) or (rows, 32)"),
        (np.zeros((10, 4)), (3,), "array of shape (10, 4), expected (rows, 3) or class indices (rows,)"),
        (np.zeros((10, 1)), (3,), "array of shape (10, 1), expected (rows, 3) or class indices (rows,)"),
        (np.zeros((10, 2)), (1,), "array of shape (10, 2), expected (rows, 1)"),
        (np.zeros(()), (3,), "array of shape (), expected (rows, 3) or class indices (rows,)"),
        (np.zeros((0, 3)), (3,), "no rows"),
        ([], (3,), "no rows"),
        (np.array(["a", "b"]), (3,), "array of dtype <U1, expected real numbers"),
        ([1, None], (3,), "array of dtype object, expected real numbers; use NaN, not None, for absent values"),
        (np.zeros((2, 3), complex), (3,), "array of dtype complex128, expected real numbers"),
        ([[0, 0, np.inf], [0, 0, 0]], (3,), "inf in row 0, cell (2,): values must be finite (NaN marks absent values)"),
        ([[NAN] * 3, [0, -np.inf, 0]], (1, 3), "-inf in row 1, cell (0, 1): values must be finite (NaN marks absent values)"),
        ([[0, 0, 0], [0, 1e39, 0]], (3,), "1e+39 in row 1, cell (1,): too large for float32"),
        ([0, 3, 1], (3,), "row 1 holds 3, expected a class index from 0 to 2"),
        ([1, 2, 3], (3,), "row 2 holds 3, expected a class index from 0 to 2; these labels seem to start at 1: subtract 1"),
        ([NAN, 1.0, 3.0], (3,), "row 2 holds 3.0, expected a class index from 0 to 2; these labels seem to start at 1: subtract 1"),
        ([0, -2], (3,), "row 1 holds -2, expected a class index from 0 to 2"),
        ([0, -1], (3,), "row 1 holds -1, expected a class index from 0 to 2; NaN or x__present marks absent values"),
        ([0, 0.5], (3,), "row 1 holds 0.5, expected a class index from 0 to 2"),
        ([0, np.inf], (3,), "row 1 holds inf, expected a class index from 0 to 2"),
        ([[NAN] * 3] * 2, (3,), "present in none of the 2 rows, expected at least one"),
    ],
)
def test_an_array_that_does_not_fit_is_named_with_its_row_and_value(array: Any, shape: tuple[int, ...], message: str) -> None:
    with refused(f"modality 'x': {message}"):
        to_batch({"x": array}, {"x": shape})


def test_rows_of_unequal_length_are_no_array() -> None:
    with pytest.raises(DataError, match=r"^modality 'x': not an array of numbers with rows of one shape \(.*\)$"):
        to_batch({"x": [[1, 2], [3]]}, {"x": (2,)})


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, True], "modality 'x': row 1 is all NaN, but x__present says that it is present"),
        ([1, 2], "x__present: row 1 holds 2, expected true or false (1 or 0)"),
        ([NAN, 1], "x__present: row 0 holds nan, expected true or false (1 or 0)"),
        ([True], "x__present: array of shape (1,), expected (2,), one boolean per row of 'x'"),
        (["yes", "no"], "x__present: array of dtype <U3, expected real numbers"),
        ([0, 0], "modality 'x': present in none of the 2 rows, expected at least one"),
    ],
)
def test_a_presence_mask_that_does_not_fit_is_named(mask: Any, message: str) -> None:
    with refused(message):
        to_batch({"x": [[1.0, NAN], [NAN, NAN]], "x__present": mask}, {"x": (2,)})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": [0], "image": [[0, 0]]}, "array 'labels': no such modality. Did you mean 'label'? Modalities: image, label"),
        ({"image": [[0, 0]]}, "modality 'label': no array of this name. Found: image"),
        (
            {"image": [[0, 0]], "label": [0, 1]},
            "modality 'label': 2 rows, but 'image' has 1; expected one row for each, NaN where it is absent",
        ),
        ({"image": [[0, 0]], "label__present": [True]}, "modality 'label': label__present is given without an array 'label'"),
    ],
)
def test_arrays_that_do_not_match_the_spec_are_named(arrays: dict[str, Any], message: str) -> None:
    with refused(message):
        to_batch(arrays, {"image": (2,), "label": (3,)})


def test_a_misspelled_array_is_suggested_and_other_arrays_can_be_passed_over() -> None:
    arrays = {"image": [[0, 0]], "Label": [0]}
    with refused("modality 'label': no array of this name. Did you mean 'Label'? Found: image, Label"):
        to_batch(arrays, {"image": (2,), "label": (3,)}, ignore_extra=True)
    assert to_batch(arrays, {"image": (2,)}, ignore_extra=True).names == ("image",)
    with refused("no array for any modality (text). Found: image, Label"):
        to_batch(arrays, {"text": (2,)}, ignore_extra=True, allow_missing=True)


@pytest.mark.parametrize("ids", [[3, 1, 2], ["a", "b", "c"], np.array([1.0, 2.0, 5.0]), np.array(["x", "y", 3], dtype=object)])
def test_ids_come_through(ids: Any) -> None:
    assert [str(value) for value in check_ids(ids, 3)] == [str(value).removesuffix(".0") for value in ids]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5, 3, 5], "ids: duplicate 5 in row 0 and row 2"),
        (["a", "b", "b"], "ids: duplicate 'b' in row 1 and row 2"),
        (["a", None, "b"], "ids: row 1 has none, expected an identifier in each row"),
        (["a", "", "b"], "ids: row 1 has none, expected an identifier in each row"),
        ([0.0, NAN, 1.0], "ids: row 1 has none, expected an identifier in each row"),
        ([0.0, 1.5, 1.0], "ids: row 1 holds 1.5, expected an integer or text"),
        ([[1], [2], [3]], "ids: array of shape (3, 1), expected (rows,)"),
        ([1, 2], "ids: 2 for 3 rows, expected one per row"),
        ([b"a", b"b", b"c"], "ids: dtype |S1, expected integers or text"),
        ([True, False, True], "ids: dtype bool, expected integers or text"),
    ],
)
def test_ids_that_do_not_serve_are_named(ids: Any, message: str) -> None:
    with refused(message):
        check_ids(ids, 3)
