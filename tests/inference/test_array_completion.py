"""Arrays go out as they came in, in type, layout and every observed bit, with the holes filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from completing import impute_rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nbridge
from nbridge.data.output_names import IMPUTED
from nbridge.inference.served import Served

SHAPES = {"x": (3,), "count": (2,), "image": (1, 2, 2), "label": (3,)}
LIKELIHOODS = {"x": "normal", "count": "poisson", "image": "bernoulli", "label": "categorical"}


@pytest.fixture(scope="module")
def model() -> nbridge.MultimodalVAE:
    """Fresh weights will do: what is tested is what happens to the arrays."""
    torch.manual_seed(0)
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {name: {**part, "shape": list(shape), "likelihood": LIKELIHOODS[name]} for name, shape in SHAPES.items()}
    return nbridge.build_model(
        nbridge.Spec.model_validate({"latent_dim": 2, "modalities": modalities, "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]}})
    ).eval()


def floating(low: float, high: float) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(low, high, width=16), st.just(float("nan")))


FLOATS = st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8"])
WHOLE = st.sampled_from(["u1", "i1", "i2", ">i4", "i8"])


@st.composite
def columns(draw: st.DrawFn, name: str, rows: int) -> np.ndarray:
    """An array that fits a modality: any layout, any type, absent values among the floats."""
    if name == "x":
        return draw(hnp.arrays(draw(FLOATS), (rows, 3), elements=floating(-100, 100)))
    if name == "count":
        if draw(st.booleans()):
            return draw(hnp.arrays(draw(WHOLE), (rows, 2), elements=st.integers(0, 100)))
        return draw(hnp.arrays(draw(FLOATS), (rows, 2), elements=st.sampled_from([0.0, 1.0, 7.0, np.nan])))
    if name == "image":
        layout = draw(st.sampled_from([(rows, 1, 2, 2), (rows, 2, 2), (rows, 4)]))
        image = draw(hnp.arrays(draw(FLOATS), layout, elements=floating(0, 1)))
        return np.asfortranarray(image) if draw(st.booleans()) else image
    classes = draw(hnp.arrays(draw(WHOLE), (rows,), elements=st.integers(0, 2)))
    if draw(st.booleans()):
        one_hot = np.eye(3)[classes].astype(draw(st.one_of(FLOATS, WHOLE, st.just("?"))))
        if one_hot.dtype.kind == "f":
            one_hot[draw(hnp.arrays(bool, (rows,)))] = np.nan
        return one_hot
    return classes


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rows = draw(st.integers(1, 5))
    names = draw(st.sets(st.sampled_from(sorted(SHAPES)), min_size=1))
    given = {name: draw(columns(name, rows)) for name in sorted(names)}
    for name in sorted(names):
        if draw(st.booleans()):
            some = ~np.isnan(given[name].reshape(rows, -1).astype(np.float64)).all(1)
            given[f"{name}__present"] = some & draw(hnp.arrays(bool, (rows,)))
    return {**given, "id": np.arange(rows), "note": np.array("kept")}


def absent(given: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Which cells of an array are absent."""
    array = given[name]
    missing = np.isnan(array.astype(np.float64))
    return missing | ~given.get(f"{name}__present", np.ones(len(array), bool)).reshape(-1, *(1 for _ in array.shape[1:]))


def in_support(name: str, values: np.ndarray) -> bool:
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        return False
    if name == "count":
        return bool((values >= 0).all() and (values == values.round()).all())
    if name == "image":
        return bool(((values >= 0) & (values <= 1)).all())
    return name == "x" or bool(np.isin(values, [0, 1, 2]).all())


@given(arrays=arrays(), samples=st.sampled_from([None, 1, 3]), noise=st.booleans())
def test_holes_are_filled_and_nothing_else_is_touched(
    model: nbridge.MultimodalVAE, arrays: dict[str, np.ndarray], samples: int | None, noise: bool
):
    before = {name: array.copy() for name, array in arrays.items()}
    done = impute_rows(Served(model), arrays, samples=samples, noise=noise).result
    assert set(done) == {"id", "note", *SHAPES, *(name + IMPUTED for name in SHAPES)}
    assert np.array_equal(done["id"], arrays["id"])
    assert done["note"] == "kept"
    draws, rows = () if samples is None else (samples,), len(arrays["id"])
    for name, shape in SHAPES.items():
        values, imputed = done[name], done[name + IMPUTED]
        if name not in arrays:
            assert values.shape == (*draws, rows, *(shape if name != "label" else ()))
            assert imputed.shape == (rows,)
            assert imputed.all()
            # Without noise a draw is an expectation, which is no whole count.
            assert in_support("x" if name == "count" and not noise else name, values)
            continue
        holes, given = absent(arrays, name), arrays[name]
        assert values.dtype == given.dtype
        assert values.shape == (*draws, *given.shape)
        assert imputed.dtype == bool
        assert np.array_equal(
            np.broadcast_to(imputed.reshape(*imputed.shape, *(1 for _ in given.shape[imputed.ndim :])), given.shape), holes
        )
        for draw in values if draws else [values]:
            assert draw[~holes].tobytes() == given[~holes].tobytes()
        assert in_support("x" if name == "count" and not noise else name, values)
    for name, array in before.items():
        assert arrays[name].tobytes() == array.tobytes()


@given(arrays=arrays())
def test_what_an_absent_row_holds_does_not_matter(model: nbridge.MultimodalVAE, arrays: dict[str, np.ndarray]):
    other = dict(arrays)
    for name in SHAPES:
        if name in arrays and f"{name}__present" in arrays:
            away = ~arrays[f"{name}__present"].reshape(-1, *(1 for _ in arrays[name].shape[1:])) & np.ones(arrays[name].shape, bool)
            other[name] = np.where(away, np.ones((), arrays[name].dtype), arrays[name])
    first, second = impute_rows(Served(model), arrays).result, impute_rows(Served(model), other).result
    for name in SHAPES:
        assert np.array_equal(first[name], second[name])


def test_draws_follow_the_seed(model: nbridge.MultimodalVAE):
    rows = {"x": [[0.1, 0.2, 0.3], [np.nan] * 3]}
    first, again, other = (impute_rows(Served(model), rows, samples=5, seed=seed).result["x"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:, 1], other[:, 1])
    assert len(np.unique(first[:, 1, 0])) == 5


@pytest.mark.parametrize("shift", [-1e6, 1e6])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u8", "i8", "f2"])
def test_guesses_past_the_bounds_of_a_type_stop_there(dtype: str, shift: float):
    model = nbridge.build_model(
        nbridge.Spec.model_validate({"modalities": {name: {"shape": 2, "encoder": "mlp", "likelihood": "normal"} for name in ("a", "b")}})
    )
    likelihood: Any = model.likelihoods["a"]
    likelihood.shift.fill_(shift * (1e15 if dtype in ("u8", "i8") else 1))
    rows = {"a": np.array([[1, 2], [3, 4]], dtype), "a__present": [True, False], "b": [[0.0, 1.0], [1.0, 0.0]]}
    done = impute_rows(Served(model), rows).result["a"]
    assert done[0].tolist() == [1, 2]
    limits = np.finfo(dtype) if dtype == "f2" else np.iinfo(dtype)
    bound = limits.min if shift < 0 else limits.max
    # Between the two greatest float64 below 2^63 lie 1024 whole numbers.
    assert np.abs(done[1].astype(np.float64) - float(bound)).max() <= (2048 if dtype in ("u8", "i8") else 0)


@pytest.mark.parametrize("tensor", [torch.ones(2, 3), torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, dtype=torch.bfloat16)])
def test_tensors_serve_as_arrays(model: nbridge.MultimodalVAE, tensor: torch.Tensor):
    done = impute_rows(Served(model), {"x": tensor, "extra": tensor}).result
    assert done["x"].dtype == np.float32
    assert np.array_equal(done["x"], np.ones((2, 3)))
    assert np.array_equal(done["extra"], np.ones((2, 3)))


def test_masked_arrays_are_filled_under_their_mask(model: nbridge.MultimodalVAE):
    rows = np.ma.masked_array([[1.0, 2.0, 99.0], [1.0, 2.0, 3.0]], [[False, False, True], [False] * 3])
    done = impute_rows(Served(model), {"x": rows}).result
    assert done["x__imputed"].tolist() == [[False, False, True], [False] * 3]
    assert done["x"][0, 2] != 99.0
    assert done["x"][1].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": [[1.0, 2.0]]}, "modality 'x': array of shape (1, 2), expected (rows, 3) or class indices (rows,)"),
        ({"y": [[1.0, 2.0]]}, "no array for any modality (x, count, image, label). Found: y"),
        ({"x__present": [True]}, "modality 'x': x__present is given without an array 'x'"),
        ({"x": [[1.0] * 3], "label": [0, 1]}, "modality 'label': 2 rows, but 'x' has 1; expected one row for each, NaN where it is absent"),
        (
            {"label": [[0.0, 1.0, 0.0], [np.nan, 1.0, 0.0]]},
            "modality 'label': row 1 is NaN in part, expected a whole row of class values, or NaN throughout",
        ),
        (
            {"count": [[1, 2], [0, -1]]},
            "modality 'count', row 1: value -1 is outside the support of Poisson, whole numbers from 0 (1 such row). "
            "Rescale the values or choose another likelihood.",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(model: nbridge.MultimodalVAE, rows: dict[str, Any], message: str):
    with pytest.raises(nbridge.DataError) as caught:
        impute_rows(Served(model), rows)
    assert str(caught.value) == message
