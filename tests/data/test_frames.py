"""Data frames in memory: what comes back is what was given with its holes filled, by the values that a file of the same rows gets."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import nbridge
from nbridge.data.tables.source import Table
from nbridge.draft.draft import init
from nbridge.errors import DataError
from nbridge.inference.impute import decode, serving
from nbridge.inference.impute import impute as impute_batch
from nbridge.runs.run import open_run

NAN = float("nan")
COLUMNS: dict[str, Any] = {
    "clinical": ("age", "sex"),
    "stage": "stage",
    "look": ("colour", "size"),
    "lab": "lab_*",
    "seen": "seen",
    "v": "v",
}
CLASSES: dict[str, Any] = {"sex": ("f", "m"), "stage": ("I", "II", "III"), "colour": ("blue", "green", "red"), "size": ("L", "M", "S")}
SHAPES = {"clinical": 2, "stage": 3, "look": 6, "lab": 2, "seen": 1, "v": 3}
KINDS = {"clinical": "normal", "stage": "categorical", "look": "bernoulli", "lab": "laplace", "seen": "poisson", "v": "normal"}
TYPES = {
    "id": pa.string(), "stage": pa.string(), "lab_1": pa.float64(), "age": pa.float32(), "sex": pa.string(), "size": pa.string(),
    "note": pa.string(), "v": pa.list_(pa.float32(), 3), "colour": pa.string(), "seen": pa.int64(), "lab_2": pa.float64(),
}  # fmt: skip
HELD = [name for name in TYPES if name not in ("id", "note")]


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def spec_of(
    shapes: dict[str, Any], kinds: dict[str, Any], columns: Any = None, classes: Any = None, **data: Any
) -> nbridge.Spec:  # fmt: skip
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    return nbridge.Spec.model_validate({
        "latent_dim": 2, "modalities": {name: {**part, "shape": shape, "likelihood": kinds[name]} for name, shape in shapes.items()},
        "data": {"source": "frame", "columns": columns or {}, "classes": classes or {}, "validation": 0.0, "test": 0.0, **data},
        "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]},
        "training": {"batch_size": 8, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nbridge.Model:
    torch.manual_seed(0)
    return nbridge.Model.from_spec(spec_of(SHAPES, KINDS, {**COLUMNS, "lab": ("lab_1", "lab_2")}, CLASSES))


def told_by_place(model: nbridge.Model) -> nbridge.Model:
    """The same, whose rows have no identifiers."""
    assert model.spec is not None
    found = nbridge.Model(model.network, model.spec)
    found.binding = replace(model.binding, source="table", options={**model.binding.options, "path": "", "id": "no such column"})
    return found


def values(name: str) -> st.SearchStrategy[Any]:
    """Cells of a column, absent ones among them."""
    drawn: dict[str, st.SearchStrategy[Any]] = {column: st.sampled_from(classes) for column, classes in CLASSES.items()}
    drawn |= {name: st.floats(-50, 50) for name in ("lab_1", "lab_2")}
    drawn |= {
        "age": st.floats(-50, 50, width=32),
        "seen": st.integers(0, 9),
        "v": st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3),
    }
    return drawn.get(name, st.text("abc", max_size=2)) | st.none()


tables = st.integers(1, 6).flatmap(
    lambda rows: st.fixed_dictionaries({name: st.lists(values(name), min_size=rows, max_size=rows) for name in TYPES})
).map(lambda columns: pa.table({name: pa.array(columns[name], kind) for name, kind in TYPES.items()}))  # fmt: skip
"""Tables with holes."""


def lists(frame: Any) -> dict[str, list[Any]]:
    """The cells of any kind of frame, None where they are absent."""
    if isinstance(frame, pa.Table):
        return frame.to_pydict()
    if isinstance(frame, pl.DataFrame):
        return frame.to_dict(as_series=False)
    columns = {name: frame[name] for name in frame}
    return {name: [_plain(cell) for cell in cells] for name, cells in columns.items()}


def _plain(cell: Any) -> Any:
    if isinstance(cell, np.ndarray | list):
        row = [_plain(number) for number in cell]
        return None if row and all(number is None for number in row) else row
    cell = cell.item() if isinstance(cell, np.generic) else cell
    return None if cell is None or cell is pd.NA or cell != cell or cell == "" else cell  # noqa: PLR0124


def arrays_of(table: pa.Table) -> dict[str, np.ndarray]:
    """A dict of arrays with the holes that arrays have: NaN, and empty texts."""
    found: dict[str, np.ndarray] = {}
    for name in table.column_names:
        cells = table[name].to_pylist()
        if name == "v":
            found[name] = np.array([[NAN] * 3 if cell is None else cell for cell in cells], np.float32)
        else:
            text = TYPES[name] == pa.string()
            found[name] = np.array(["" if cell is None else cell for cell in cells]) if text else np.array(cells, dtype=float)
    return found


FROM: dict[str, Callable[[pa.Table], Any]] = {
    "pandas": lambda table: table.to_pandas().set_index(pd.Index([7] * len(table), name="again")),
    "pandas of its own types": lambda table: table.to_pandas(types_mapper={
        pa.string(): pd.StringDtype("python"), pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype()}.get),
    "pandas of arrow": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.from_arrow,
    "pyarrow": lambda table: table,
    "arrays": arrays_of,
}  # fmt: skip


def types_of(frame: Any) -> Any:
    if isinstance(frame, dict):
        # Text is as wide as its longest.
        return {name: (array.dtype.kind, array.shape) for name, array in frame.items()}
    return frame.dtypes.to_dict() if isinstance(frame, pd.DataFrame) else frame.schema


@settings(max_examples=12)
@given(table=tables, samples=st.sampled_from([None, None, 2]))
@pytest.mark.parametrize("kind", FROM)
def test_a_frame_comes_back_as_it_was_with_its_holes_filled(kind: str, model: Any, table: pa.Table, samples: int | None) -> None:
    frame = FROM[kind](table)
    before = lists(frame)
    done, mask = model.impute(frame, samples=samples, mask=True)
    assert type(done) is type(mask) is type(frame)
    copies = samples or 1
    after, filled = lists(done), lists(mask)
    assert lists(frame) == before
    assert list(after) == list(filled) == [*TYPES, *(["draw"] if samples else [])]
    for name, cells in before.items():
        for row, cell in enumerate(cells):
            for place in range(row * copies, (row + 1) * copies):
                fill_value = name in HELD and (cell is None or (name == "v" and None in cell))
                assert filled[name][place] == fill_value, (name, row)
                assert after[name][place] == cell if not fill_value else after[name][place] is not None
    for name, classes in CLASSES.items():
        assert set(after[name]) <= set(classes)
    if not samples:
        given, kept = types_of(frame), types_of(done)
        # A column of nothing takes the type of what is filled in where its own has no place for it.
        assert kept == given or (
            kind == "polars" and all(one in (other, pl.Null) for one, other in zip(given.values(), kept.values(), strict=True))
        )
    if isinstance(frame, pd.DataFrame):
        assert done.index.equals(frame.index.repeat(copies))
        assert done.index.equals(mask.index)
        assert done.index.names == frame.index.names


@settings(max_examples=10)
@given(table=tables, options=st.sampled_from([{}, {"samples": 3, "seed": 1}, {"intervals": (0.5, 0.9)}]))
def test_a_frame_gets_what_a_parquet_file_of_the_same_rows_gets(
    model: Any, tmp_path_factory: pytest.TempPathFactory, table: pa.Table, options: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    parquet.write_table(table, folder / "rows.parquet", row_group_size=2)
    told_by_place(model).impute(folder / "rows.parquet", out=folder / "out.parquet", **options)
    written = parquet.read_table(folder / "out.parquet")
    done = model.impute(table, **options)
    assert written.select([name for name in written.column_names if not name.endswith("__imputed")]).equals(done)


@settings(max_examples=6)
@given(table=tables)
def test_a_frame_gets_what_a_csv_file_of_the_same_rows_gets(model: Any, tmp_path_factory: pytest.TempPathFactory, table: pa.Table) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = table.drop_columns(["v"])
    with (folder / "rows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(rows.column_names)
        out.writerows(zip(*(["" if cell is None else cell for cell in rows[name].to_pylist()] for name in rows.column_names), strict=True))
    told_by_place(model).impute(folder / "rows.csv", out=folder / "out.csv")
    done = model.impute(rows).to_pydict()
    with (folder / "out.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert "v" not in written[0]
    for name in HELD:
        for row, cell in enumerate(done[name] if name != "v" else ()):
            text = written[row][name]
            if isinstance(cell, str):
                assert text == cell
            else:
                # A file has as many decimals as its neighbours, or seven digits.
                decimals = len(text.partition(".")[2]) if "e" not in text else 99
                assert float(text) == pytest.approx(cell, rel=5e-7, abs=0.51 * 10.0**-decimals)


def test_all_kinds_of_frames_get_the_same(model: Any) -> None:
    table = some_rows(9)
    expected = lists(model.impute(table))
    for kind, convert in FROM.items():
        found = lists(model.impute(convert(table)))
        for name in HELD:
            assert found[name] == expected[name], (kind, name)


def some_rows(rows: int = 24) -> pa.Table:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"id": [f"r{row}" for row in range(rows)], "note": ["x"] * rows}
    columns |= {name: rng.choice(classes, rows).tolist() for name, classes in CLASSES.items()}
    columns |= {name: rng.normal(size=rows).round(3).tolist() for name in ("lab_1", "lab_2")}
    columns |= {"age": rng.integers(20, 90, rows).tolist(), "seen": rng.poisson(3, rows).tolist()}
    columns["v"] = rng.normal(size=(rows, 3)).astype(np.float32).tolist()
    for place, name in enumerate(HELD):
        columns[name][place::5] = [None] * len(columns[name][place::5])
    return pa.table({name: pa.array(columns[name], kind) for name, kind in TYPES.items()})


# Types


def test_categories_indices_and_names_of_pandas_are_kept(model: Any) -> None:
    frame = pd.DataFrame(
        {
            "stage": pd.Categorical(["I", None, "III"], categories=["III", "I"], ordered=True),
            "sex": pd.Categorical([None, "m", None], categories=["m", "f", "x"]),
            "age": pd.array([None, 1, 2], dtype="Int16"),
            "when": pd.date_range("2020", periods=3, tz="UTC"),
            "mixed": [1, "a", None],
        },
        index=pd.Index(["a", "a", "b"], name="who"),
    )
    frame.attrs["from"] = "here"
    done = model.impute(frame[["sex", "when", "age", "mixed", "stage"]])
    assert list(done.columns[:5]) == ["sex", "when", "age", "mixed", "stage"]
    assert (done.index.tolist(), done.index.name, done.attrs) == (["a", "a", "b"], "who", {"from": "here"})
    assert done["when"].equals(frame["when"])
    assert done["mixed"].tolist() == [1, "a", None]
    assert done["sex"].dtype == frame["sex"].dtype
    assert done["age"].dtype == "Int16"
    # The class that was filled in may be one that the frame's own type has no place for.
    assert done["stage"].dtype.ordered
    assert done["stage"].dtype.categories.tolist()[:2] == ["III", "I"]
    assert done["stage"].iloc[[0, 2]].tolist() == ["I", "III"]
    assert done["stage"].iloc[1] in ("I", "II", "III")
    # Modalities that the frame lacks come last.
    assert list(done.columns[5:]) == ["colour", "size", "lab_1", "lab_2", "seen", "v"]


def test_columns_that_are_numbered_keep_their_labels() -> None:
    shapes = {"a": 2, "b": 1}
    model = nbridge.Model.from_spec(spec_of(shapes, dict.fromkeys(shapes, "normal"), {"a": ("0", "1"), "b": "2"}))
    done, mask = model.impute(pd.DataFrame(np.array([[1, NAN, 2], [3, 4, NAN]])), mask=True)
    assert done.columns.tolist() == mask.columns.tolist() == [0, 1, 2]
    assert mask.to_numpy().tolist() == [[False, True, False], [False, False, True]]
    assert not done.isna().any().any()


def test_truth_values_enumerations_and_decimals_stay_what_they_are() -> None:
    shapes = {"yes": 1, "kind": 3, "price": 1, "n": 1}
    classes = {"kind": ("a", "b", "c")}
    kinds = {"yes": "bernoulli", "kind": "categorical", "price": "normal", "n": "poisson"}
    model = nbridge.Model.from_spec(spec_of(shapes, kinds, {name: name for name in shapes}, classes))
    columns = {"yes": [True, None], "kind": ["a", None], "price": [1.25, None], "n": [3, None]}
    frame = pl.DataFrame(
        columns, schema={"yes": pl.Boolean, "kind": pl.Enum(["c", "b", "a"]), "price": pl.Decimal(9, 2), "n": pl.UInt8}
    )  # fmt: skip
    done = model.impute(frame)
    assert done.schema == frame.schema
    assert done.null_count().sum_horizontal().item() == 0
    narrow = frame.with_columns(pl.col("kind").cast(pl.Enum(["a"])))
    assert set(model.impute(narrow)["kind"].to_list()) <= set("abc")
    nothing = pl.DataFrame({name: [None, None] for name in shapes})
    assert [type(cell) for cell in model.impute(nothing).row(0)] == [float, str, float, float]
    table = frame.to_arrow()
    assert model.impute(table).schema == table.schema
    assert model.impute(table.to_batches()[0]).schema == table.schema


GRID = [[[1.0, 2.0], [3.0, 4.0]], None, [[1.0, None], [3.0, 4.0]]]
TENSOR = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.float32(), [2, 2]), pa.array([[1, 2, 3, 4], None, [5, 6, 7, 8]], pa.list_(pa.float32(), 4))
)
ODD: dict[str, tuple[str, Callable[[], Any]]] = {
    "sparse": ("a", lambda: pd.DataFrame({"a": pd.arrays.SparseArray([1.5, NAN, 3.0])})),
    "half": ("a", lambda: pd.DataFrame({"a": np.array([1.5, NAN, 3.0], dtype=np.float16)})),
    "Python's own decimals": ("a", lambda: pd.DataFrame({"a": [Decimal("1.25"), None, Decimal("3")]})),
    "arrays of two axes": ("v", lambda: pd.DataFrame({"v": [np.eye(2, dtype=np.float32), None, np.eye(2, dtype=np.float32)]})),
    "lists of lists": ("v", lambda: pd.DataFrame({"v": GRID})),
    "large lists": ("v", lambda: pa.table({"v": pa.array(GRID, pa.large_list(pa.list_(pa.float32(), 2)))})),
    "arrays of polars": ("v", lambda: pl.DataFrame({"v": pl.Series(GRID, dtype=pl.Array(pl.Float32, (2, 2)))})),
    "tensors": ("v", lambda: pa.table({"v": TENSOR})),
    "views": ("s", lambda: pa.table({"s": pa.array(["x", None, "z"]).cast(pa.string_view())})),
    "ordered": ("s", lambda: pa.table({"s": pa.array(["x", None, "z"]).cast(pa.dictionary(pa.int8(), pa.string(), ordered=True))})),
    "pieces with dictionaries": (
        "s",
        lambda: pa.table({"s": pa.chunked_array([pa.array(["x", None]).dictionary_encode(), pa.array(["z"]).dictionary_encode()])}),
    ),
    "metadata": (
        "a",
        lambda: pa.table({"a": [1.0, None, 2.0]}, schema=pa.schema([pa.field("a", pa.float64(), metadata={"unit": "mm"})], {"of": "me"})),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_types_that_are_seldom_are_kept(name: str) -> None:
    shapes, kinds = {"a": 1, "s": 3, "v": (2, 2)}, {"a": "normal", "s": "categorical", "v": "normal"}
    model = nbridge.Model.from_spec(spec_of(shapes, kinds, {name: name for name in shapes}, {"s": ("x", "y", "z")}))
    column, make = ODD[name]
    frame = make()
    for samples in (None, 2):
        done = model.impute(frame, samples=samples)
        own = done[[column]] if isinstance(frame, pd.DataFrame) else done.select([column])
        assert own.dtypes.equals(frame.dtypes) if isinstance(frame, pd.DataFrame) else own.schema == frame.schema
        if isinstance(frame, pa.Table):
            assert own.schema.equals(frame.schema, check_metadata=True)
        before, after = lists(frame)[column], lists(own)[column][:: samples or 1]
        assert str(before[0]) == str(after[0])
        assert None not in after
        assert np.shape(before[0]) == np.shape(after[1])


def test_numbers_that_mark_absent_cells_and_masked_arrays_are_holes() -> None:
    shapes = {"a": 1, "n": 1}
    model = nbridge.Model.from_spec(spec_of(shapes, {"a": "normal", "n": "poisson"}, missing=[-999]))
    frame = pd.DataFrame({"a": [1, -999, 3], "n": np.array([123456789, 2, -999], dtype=np.int32)})
    done, mask = model.impute(frame, mask=True)
    assert done.dtypes.equals(frame.dtypes)
    assert mask.to_numpy().tolist() == [[False, False], [True, False], [False, True]]
    assert done.where(~mask, -999).equals(frame)
    assert not (done == -999).any().any()
    masked = {"a": np.ma.array([1, 2, 3], mask=[False, True, False]), "n": np.array([1, 2, 3])}
    done, mask = model.impute(masked, mask=True)
    assert (mask["a"].tolist(), done["a"][[0, 2]].tolist()) == ([False, True, False], [1, 3])


def test_figures_of_an_earlier_time_are_replaced(model: Any) -> None:
    table = some_rows(4)
    figures = model.impute(table, intervals=(0.9,))
    for frame in (figures, figures.to_pandas(), pl.from_arrow(figures)):
        again = model.impute(frame, intervals=(0.9,), mask=True)
        assert list(lists(again[0])) == list(lists(frame))
        assert lists(again[0])["age__sd"] == [0.0] * 4
        assert not any(any(cells) for cells in lists(again[1]).values())
    with refused("table: column 'draw' would be written twice; rename the one in the file"):
        model.impute(table.append_column("draw", [[1] * 4]), samples=2)


def test_an_unknown_library_that_speaks_arrow_gets_a_table(model: Any) -> None:
    class Foreign:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return some_rows(5).__arrow_c_stream__(requested_schema)

    assert model.impute(Foreign()).equals(model.impute(some_rows(5)))


# What does not fit


def changed(**columns: Any) -> pd.DataFrame:
    return some_rows(4).to_pandas().assign(**columns)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another type": (
        lambda: changed(age=["old"] * 4),
        'data frame: column \'age\': row 0 holds "old", expected a finite number, or data.classes to list the classes of this column; '
        "leave absent cells empty",
    ),
    "single values for lists": (lambda: changed(v=[1.0] * 4), "data frame: column 'v' holds single values, expected lists of 3 numbers"),
    "lists for single values": (
        lambda: changed(age=[[1.0]] * 4),
        "data frame: modality 'clinical': column 'age' holds lists, expected one column of lists, or several of single values",
    ),
    "other lists": (lambda: changed(v=[[1.0, 2.0]] * 4), "data frame: column 'v': row 0 holds 2 values, expected 3"),
    "a column missing": (
        lambda: changed().drop(columns="lab_2"),
        "data frame: column 'lab_2' of modality 'lab' is missing. Add it, with empty cells for absent values; a file may lack all "
        "columns of a modality, not some",
    ),
    "an unseen class": (
        lambda: changed(stage=["I", "IV", "I", "I"]),
        "data frame: column 'stage': row 1 holds \"IV\", a class that data.classes does not list; it lists I, II, III. "
        "Leave absent cells empty.",
    ),
    "one name twice": (lambda: changed().set_axis([*TYPES][:-1] + ["id"], axis=1), "data frame: duplicate column 'id'"),
    "mixed": (
        lambda: changed(stage=[1, "I", 2.5, None]),
        "data frame: column 'stage' holds values of different types (int, str, float), expected one of them; row 1 is the first of another "
        "than int",
    ),
    "no rows": (lambda: changed().iloc[:0], "data frame: no rows"),
    "no rows of polars": (lambda: pl.DataFrame({"age": [], "sex": []}), "data frame: no rows"),
    "no columns": (
        pd.DataFrame, "data frame: no column of any modality (age, sex, stage, colour, size, lab_1, lab_2, seen, v). Found: nothing"
    ),
    "an index of several levels": (
        lambda: changed().set_index(["id", "note"]),
        "data frame: a MultiIndex of rows, expected one level; flatten it, or frame.reset_index() for rows",
    ),
    "columns of several levels": (
        lambda: pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
        "data frame: a MultiIndex of columns, expected one level; flatten it, or frame.reset_index() for rows",
    ),
    "dates": (
        lambda: changed(age=pd.date_range("2020", periods=4, tz="UTC").as_unit("ns")),
        "data frame: column 'age' holds dates or times (timestamp[ns, tz=UTC]), not numbers; convert them to days or seconds since one of "
        "them",
    ),
    "periods": (
        lambda: changed(age=pd.period_range("2020", periods=4)),
        "data frame: column 'age' is of type extension<pandas.period<ArrowPeriodType>..., expected numbers, text, truth values, or "
        "lists of numbers",
    ),
    "an infinite number": (
        lambda: changed(age=[1, 2, 3, float("inf")]),
        'data frame: column \'age\': row 3 holds "inf", expected a finite number; leave absent cells empty',
    ),
    "outside the support": (
        lambda: changed(seen=[1, 2, -3, -4]),
        "data frame: modality 'seen', column 'seen', row 2: value -3 is outside the support of Poisson, whole numbers from 0 (2 such "
        "rows). Rescale the values or choose another likelihood.",
    ),
    "a lazy frame": (
        lambda: pl.LazyFrame({"age": [1]}), "rows of type LazyFrame are lazy, expected a data frame in memory; load them first"
    ),
    "no frame": (
        lambda: [1, 2], "rows of type list, expected a data frame (pandas, polars, pyarrow, datasets) or a dict of arrays"
    ),
    "frames by name": (
        lambda: {"train": changed()}, "a dict of data frames (train), expected one of them, or a dict of arrays"
    ),
    "rows of several lengths": (
        lambda: {"age": [[1], [2, 3]]},
        "arrays: array 'age': not an array with rows of one shape (setting an array element with a sequence. The requested array has "
        "an inhomogeneous shape after 1 dim...)",
    ),
    "arrays of several lengths": (
        lambda: {"age": np.zeros(3), "sex": np.array(["f"])}, "array 'sex' of shape (1,), expected 3 rows, as 'age' has"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_does_not_fit_is_told_in_a_line(model: Any, name: str) -> None:
    make, message = REFUSED[name]
    with refused(message):
        model.impute(make())


def test_a_model_of_arrays_knows_no_columns_and_takes_arrays_by_modality() -> None:
    spec = spec_of({"x": 2}, {"x": "normal"}).as_dict()
    spec["data"] = {"source": "memory"}
    model = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec))
    with refused("this model was trained from arrays; pass a dict of arrays by modality, or train a model from a data frame"):
        model.impute(pd.DataFrame({"x": [1.0]}))
    assert not np.isnan(model.impute({"x": [[1.0, NAN]]})["x"]).any()
    with refused("mask is for data frames; an imputed batch has masks"):
        model.impute(nbridge.Batch.complete({"x": torch.zeros(1, 2)}), mask=True)


# Training


def test_training_from_a_frame_is_training_from_a_file_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = some_rows()
    parquet.write_table(table, "rows.parquet")
    spec = spec_of(SHAPES, KINDS, COLUMNS, {name: classes for name, classes in CLASSES.items() if name != "stage"})
    of_file = {**spec.as_dict(), "data": {**spec.as_dict()["data"], "source": "table", "path": "rows.parquet"}}
    expected = nbridge.train(of_file)
    for document in (spec, of_file):
        for rows in (table.to_pandas(), arrays_of(table)) if document is spec else (pl.from_arrow(table),):
            run = nbridge.train(document, rows)
            assert all(
                torch.equal(one, other)
                for one, other in zip(run.model.network.state_dict().values(), expected.model.network.state_dict().values(), strict=True)
            )
            assert run.spec.data.source.kwargs["columns"]["lab"] == ("lab_1", "lab_2")
            assert run.spec.data.source.kwargs["classes"]["stage"] == ("I", "II", "III")
            for binding in (run.model.binding, expected.model.binding):
                assert isinstance(binding.own, Table)
                assert binding.own.layout_of(binding.shapes).lists == {"v"}


def test_a_run_from_a_frame_is_kept_and_goes_on(tmp_path: Path) -> None:
    frame = some_rows().to_pandas()
    run = nbridge.train(spec_of(SHAPES, KINDS, COLUMNS, CLASSES), frame, out=tmp_path / "run")
    again = nbridge.resume(tmp_path / "run", frame)
    expected = run.model.impute(frame)
    assert again.model.impute(frame).equals(expected)
    assert nbridge.load(tmp_path / "run").impute(frame).equals(expected)
    assert open_run(tmp_path / "run", frame).spec == run.spec
    with pytest.raises(nbridge.RunError, match="the rows of this run came from Python; pass them again"):
        open_run(tmp_path / "run")
    with refused("the rows of this spec are a data frame: pass it from Python, nbridge.train(spec, data=frame)"):
        nbridge.train(run.spec)
    with pytest.raises(nbridge.RunError, match="the rows have changed since this run began"):
        nbridge.resume(tmp_path / "run", frame.iloc[::-1])


def test_a_spec_that_names_no_source_takes_a_frame_whose_columns_bear_its_names() -> None:
    spec = spec_of({"age": 1, "stage": 3}, {"age": "normal", "stage": "categorical"}).as_dict()
    spec["data"] = {"source": "memory", "validation": 0.0, "test": 0.0}
    run = nbridge.train(spec, some_rows().to_pandas())
    assert run.spec.data.source.type == "frame"
    assert not run.model.impute(some_rows())["stage"].null_count


def test_training_tells_of_a_frame_that_does_not_fit() -> None:
    spec = spec_of(SHAPES, KINDS, COLUMNS, CLASSES)
    with refused("data frame: modality 'seen', column 'seen', row 2: value -3 is outside the support of Poisson, whole numbers from 0 (2 "
                 "such rows). Rescale the values or choose another likelihood."):  # fmt: skip
        nbridge.train(spec, changed(seen=[1, 2, -3, -4]))
    with refused("data frame: no column 'lab_*' for modality 'lab'. Found: id, stage, age, sex, size, note, v, colour, seen"):
        nbridge.train(spec, changed().drop(columns=["lab_1", "lab_2"]))


# A first look


def test_a_first_look_at_a_frame_guesses_what_it_guesses_of_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "sample": [f"S{row}" for row in range(60)], "kind": rng.choice(["a", "b", "c"], 60),
        **{f"lab_{place}": rng.normal(size=60) for place in range(4)}, **{f"rna_{place}": rng.poisson(20, 60) for place in range(4)},
    })  # fmt: skip
    frame.loc[:9, "kind"] = None
    frame.to_csv(tmp_path / "rows.csv", index=False)
    of_file, of_frame = init([str(tmp_path / "rows.csv")]), nbridge.init(frame)
    one, other = of_file.spec.as_dict(), of_frame.spec.as_dict()
    assert one.pop("data") | {"source": "", "path": "", "id": ""} == {**other.pop("data"), "source": "", "path": "", "id": ""}
    assert {**one, "name": ""} == {**other, "name": ""}
    assert "# left out: sample: looks like identifiers: whole numbers in a row, or text, that differ in all rows" in of_frame.text
    assert "  # names begin with lab; 4 columns of numbers, standardised" in of_frame.text.splitlines()
    assert nbridge.init(tmp_path / "rows.csv").text == of_file.text
    assert {name: mask.sum() for name, mask in of_frame.present.items()} == {"lab": 60, "rna": 60, "kind": 50}


def test_classes_that_a_frame_declares_are_its_classes_and_dates_are_left_out() -> None:
    rows = 60
    frame = pd.DataFrame({
        "grade": pd.Categorical(["low", "high", "mid"] * 20, categories=["low", "mid", "high", "extreme"]),
        "when": pd.date_range("2020", periods=rows, tz="UTC").as_unit("ns"),
        "x": np.random.default_rng(0).normal(size=rows), "ragged": [[1.0], [1.0, 2.0]] * 30, "words": [["a"]] * rows,
        "v": list(np.random.default_rng(0).normal(size=(rows, 4))),
    })  # fmt: skip
    found = nbridge.init(frame)
    assert found.spec.data.source.kwargs["classes"] == {"grade": ("low", "mid", "high", "extreme")}
    assert {name: one.shape for name, one in found.spec.modalities.items()} == {"table": (5,), "v": (4,)}
    assert found.remarks == (
        "left out: when: holds dates or times (timestamp[ns, tz=UTC]), not numbers; convert them to days or seconds since one of them",
        "left out: words: holds lists that are not of numbers (list<item: string>)",
        "left out: ragged: holds lists of several lengths",
    )
    with refused(
        "data frame: column 'x' holds values of different types (int, str), expected one of them; row 1 is the first of another than int"
    ):
        nbridge.init(pd.DataFrame({"x": [1, "a"]}))
    with refused("data frame: no rows"):
        nbridge.init(frame.iloc[:0])
    with refused("id: rows of a data frame are identified by position; leave it out"):
        nbridge.init(frame, id="x")


# Draws of classes


def test_a_draw_of_one_hot_elements_is_one_class_as_often_as_it_is_probable(model: Any) -> None:
    batch = nbridge.Batch.complete({"seen": torch.tensor([[2.0]])})
    groups = {"look": ((0, 3), (3, 6))}
    draws = impute_batch(model.network, batch, samples=4000, seed=0, one_hot=groups).values["look"][:, 0]
    with serving(model.network, 1):
        z = model.network.posterior(batch, 4000).sample()
        means = decode(model.network, "look", z)[:, 0]
    for start, stop in groups["look"]:
        part = draws[:, start:stop]
        assert (part.sum(1) == 1).all()
        assert ((part == 0) | (part == 1)).all()
        expected = (means[:, start:stop] / means[:, start:stop].sum(1, keepdim=True)).mean(0)
        # Four standard errors of a share of 4,000.
        assert torch.allclose(part.mean(0), expected, atol=4 * 0.5 / 4000**0.5)
    # Elements drawn apart show no class, or several, in most of the draws.
    apart = impute_batch(model.network, batch, samples=200, seed=0).values["look"][:, 0, :3]
    assert (apart.sum(1) != 1).any()


def test_the_probability_of_a_class_is_of_the_one_that_is_written(model: Any) -> None:
    done = model.impute(some_rows(), intervals=(0.5,), draws=999)
    draws = model.impute(some_rows(), samples=400).to_pydict()
    for name in ("stage", "colour", "size"):
        for row, (text, probability, known) in enumerate(
            zip(done[name].to_pylist(), done[f"{name}__probability"].to_pylist(), some_rows()[name].to_pylist(), strict=True)
        ):
            share = draws[name][row * 400 : (row + 1) * 400].count(text) / 400
            assert probability == 1 if known is not None else abs(probability - share) < 0.15


# Hugging Face


@pytest.fixture(scope="module")
def pictures() -> Any:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    rng, rows = np.random.default_rng(0), 40
    codes = rng.integers(0, 3, rows)
    images: list[Any] = [Image.fromarray((rng.random((4, 5)) * 60 + 60 * code).astype(np.uint8)) for code in codes]
    labels: list[Any] = codes.tolist()
    images[3], labels[0], labels[1] = None, -1, None
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "emu", "fox"]),
        "grid": datasets.Array2D((2, 3), "float32"), "name": datasets.Value("string"),
        "v": datasets.Sequence(datasets.Value("int64"), length=2),
    })  # fmt: skip
    columns = {
        "image": images, "label": labels, "name": [f"r{row}" for row in range(rows)],
        "grid": [None if row == 6 else np.full((2, 3), code + row / 9).tolist() for row, code in enumerate(codes)],
        "v": [None if row == 4 else [int(code), row % 7] for row, code in enumerate(codes)],
    }  # fmt: skip
    return datasets.Dataset.from_dict(columns, features=features, split="train")


def test_a_dataset_of_hugging_face_comes_back_as_one(pictures: Any) -> None:
    found = nbridge.init(pictures)
    kinds = {name: (one.shape, one.likelihood.type) for name, one in found.spec.modalities.items()}
    assert kinds == {
        "label": ((4,), "categorical"), "image": ((1, 4, 5), "discretized_logistic"), "grid": ((1, 2, 3), "normal"),
        "v": ((2,), "negative_binomial"),
    }  # fmt: skip
    assert found.spec.data.source.kwargs["classes"] == {"label": ("cat", "dog", "emu", "fox")}
    stages = {stage: {"epochs": 1} for stage in ("joint", "bridges")}
    run = nbridge.train({**found.spec.as_dict(), "training": {"stages": stages}}, pictures)
    shuffled = pictures.shuffle(seed=1)
    for rows in (pictures, shuffled):
        done, mask = run.model.impute(rows, mask=True)
        assert type(done) is type(mask) is type(pictures)
        assert (done.features, done.split, done.column_names) == (rows.features, rows.split, rows.column_names)
        holes = {"image": [3], "label": [0, 1], "grid": [6], "v": [4], "name": []}
        for row, (before, after) in enumerate(zip(rows, done, strict=True)):
            number = int(before["name"][1:])
            for name, numbers in holes.items():
                assert mask[row][name] == (number in numbers)
                if number not in numbers:
                    assert np.array_equal(np.asarray(before[name]), np.asarray(after[name]))
            assert after["image"].size == (5, 4)
            assert after["label"] in range(4)
            assert np.isfinite(np.asarray(after["grid"])).all()
            assert len(after["v"]) == 2
    expected = run.model.impute(pictures)
    assert sorted(expected["label"]) == sorted(run.model.impute(shuffled)["label"])
    drawn = run.model.impute(pictures.select(range(5)), samples=2)
    assert (drawn["name"][:4], drawn["draw"][:4]) == (["r0", "r0", "r1", "r1"], [1, 2, 1, 2])
    figures = run.model.impute(pictures, intervals=(0.9,))
    assert np.asarray(figures[3]["image__lower"]).size == 20
    assert 0 < figures[0]["label__probability"] < 1 == figures[2]["label__probability"]


def test_images_that_do_not_fit_are_told(pictures: Any) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    def of(*images: Any) -> Any:
        return datasets.Dataset.from_dict({"image": list(images)}, features=datasets.Features({"image": datasets.Image()}))

    small, large, deep = Image.new("L", (2, 2)), Image.new("L", (3, 2)), Image.new("F", (2, 2))
    with refused("dataset: column 'image': the image in row 1 has shape (1, 2, 3), the first (1, 2, 2); make them equal"):
        nbridge.init(of(small, large))
    broken = of(small).cast_column("image", datasets.Image(decode=False)).map(lambda _: {"image": {"bytes": b"none", "path": None}})
    with pytest.raises(DataError, match=r"^dataset: column 'image': the image in row 0 can't be read \(not a PNG, JPEG"):
        nbridge.init(broken)
    assert deep.mode == "F"
    assert nbridge.init(of(*[Image.new("RGB", (2, 2), (row, 0, 0)) for row in range(30)])).spec.modalities["image"].shape == (3, 2, 2)
    assert nbridge.init(pictures.to_iterable_dataset()).text == nbridge.init(pictures).text
    with refused("a dict of data frames (train), expected one of them, or a dict of arrays"):
        nbridge.init(datasets.DatasetDict(train=pictures))


def test_a_stream_of_rows_is_read_once_and_learnt_from_like_a_dataset(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    kinds = [["a", "b", None][row % 3] for row in range(90)]
    rows = {"x": rng.normal(size=90).tolist(), "y": rng.normal(size=90).tolist(), "kind": kinds}
    whole = datasets.Dataset.from_dict(rows)
    read: list[int] = []

    def generated() -> Iterator[dict[str, object]]:
        for row in range(90):
            read.append(row)
            yield {name: values[row] for name, values in rows.items()}

    stream = datasets.IterableDataset.from_generator(generated)
    spec = nbridge.init(whole).spec.model_dump(mode="json") | {"training": {"updates": 6}}
    of_whole, of_stream = nbridge.train(spec, whole), nbridge.train(spec, stream)
    assert read == [*range(90)]
    for one, other in zip(of_whole.model.network.parameters(), of_stream.model.network.parameters(), strict=True):
        assert one.equal(other)
    done = of_stream.model.impute(stream.take(10))
    assert isinstance(done, datasets.Dataset)
    assert done["x"][:] == whole["x"][:10]
    assert None not in done["kind"][:]
    with refused("dataset: no rows"):
        nbridge.init(stream.take(0))
    monkeypatch.setattr("nbridge.data.tables.hub_frames.free_bytes", lambda: 100.0)
    with refused("dataset: the first 90 rows of the stream take half of the free memory; read fewer, with take(n)"):
        nbridge.init(stream)


def test_string_views_of_a_pandas_frame_are_text():
    rows = pa.table({"kind": pa.array(["a", "b", None] * 20, pa.string_view()), "x": np.linspace(0, 1, 60) ** 2})
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    done = nbridge.train({**nbridge.init(frame).spec.as_dict(), "training": {"updates": 2}}, frame).model.impute(frame)
    assert done.dtypes.equals(frame.dtypes)
    assert done["kind"].tolist()[:2] == ["a", "b"]
    assert set(done["kind"].tolist()) == {"a", "b"}
