"""A spec against its data: every mistake at once, and each likely mistake in a line of its own."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from commands import Call

from nbridge.draft.checks import Checked, check_data
from nbridge.spec.reader import spec_from_dict

ROWS = 40


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def good() -> dict[str, list[Any]]:
    """A table with nothing wrong about it."""
    rng = np.random.default_rng(0)
    return {
        "id": [f"r{row}" for row in range(ROWS)],
        "x_1": rng.normal(size=ROWS).round(3).tolist(),
        "x_2": rng.normal(size=ROWS).round(3).tolist(),
        "n": rng.poisson(3, ROWS).tolist(),
        "sex": [("f", "m")[x] for x in rng.integers(0, 2, ROWS)],
        "grade": [("a", "b", "c")[row % 3] for row in range(ROWS)],
    }


LIKELIHOODS: dict[str, Any] = {"x": (2, "normal"), "n": (1, "negative_binomial"), "sex": (1, "bernoulli"), "grade": (3, "categorical")}


def checked(columns: Mapping[str, Sequence[Any]], likelihoods: Mapping[str, Any] | None = None, **options: Any) -> Checked:
    with Path("rows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {name: {**part, "shape": shape, "likelihood": kind} for name, (shape, kind) in (likelihoods or LIKELIHOODS).items()}
    source = {"source": "table", "path": "rows.csv", "columns": {"x": "x_*"}, "classes": {"sex": ["f", "m"]}, **options}
    return check_data(spec_from_dict({"data": source, "modalities": modalities, "latent_dim": 2}))


def changed(column: str, row: int, value: Any) -> dict[str, list[Any]]:
    columns = good()
    columns[column][row] = value
    return columns


def test_good_rows_have_no_errors_and_no_warnings():
    found = checked(good())
    assert (found.errors, found.warnings, found.rows) == ((), (), ROWS)
    assert {name: int(mask.sum()) for name, mask in found.present.items()} == dict.fromkeys(LIKELIHOODS, ROWS)


def test_every_mistake_is_told_at_once(here: Path):
    columns = changed("x_1", 3, "high")
    columns["x_2"][5] = "low"
    columns["sex"][7] = "x"
    columns["grade"][9] = "d"
    columns["id"][11] = "r1"
    finite = "expected a finite number, or data.classes to list the classes of this column; leave absent cells empty"
    assert checked(columns).errors == (
        f"{here / 'rows.csv'}: column 'x_1': row 3 (line 5) holds \"high\", {finite}",
        f"{here / 'rows.csv'}: column 'x_2': row 5 (line 7) holds \"low\", {finite}",
        f"{here / 'rows.csv'}: column 'sex': row 7 (line 9) holds \"x\", a class that data.classes does not list; it lists f, m. "
        "Leave absent cells empty.",
        f"{here / 'rows.csv'}: column 'grade' has 4 classes (a, b, c, d), but modality 'grade' is of shape (3,); write shape: 4, "
        "or list the classes in data.classes",
        f"{here / 'rows.csv'}: column 'id': duplicate 'r1' in row 1 (line 3) and row 11 (line 13)",
    )


def test_missing_columns_and_wrong_shapes_are_told_at_once(here: Path):
    columns = good()
    del columns["n"]
    found = checked(columns, {**LIKELIHOODS, "x": (3, "normal")})
    assert found.errors == (
        f"{here / 'rows.csv'}: no column 'n'. Found: x_1, x_2, sex, grade",
        "modality 'x': 2 columns (x_1, x_2), but its shape is (3,); write shape: 2",
    )


def test_values_outside_their_support_are_told_for_each_modality(here: Path):
    columns = changed("n", 4, -1)
    columns["n"][6] = 2.5
    columns["x_1"], columns["x_2"] = [0.5] * ROWS, [0.5, 0.5, 7] + [0.25] * (ROWS - 3)
    end = "Rescale the values or choose another likelihood."
    assert checked(columns, {**LIKELIHOODS, "x": (2, "bernoulli")}).errors == (
        f"{here / 'rows.csv'}: modality 'x', column 'x_2', row 2 (line 4): value 7 is outside the support of Bernoulli, numbers from 0 to "
        f"1 (1 such row). {end}",
        f"{here / 'rows.csv'}: modality 'n', column 'n', row 4 (line 6): value -1 is outside the support of NegativeBinomial, whole "
        f"numbers from 0 (2 such rows). {end}",
    )


WORDS = [f"v{row % 12}" for row in range(ROWS)]
DOUBTS: dict[str, tuple[dict[str, list[Any]], dict[str, Any], str]] = {
    "constant": (
        {"x_1": [5] * ROWS}, {}, "modality 'x': x_1: the same value in all rows; leave it out unless it varies in other data"
    ),
    "empty": ({"x_1": [""] * ROWS}, {}, "modality 'x': x_1: no value in any row; leave it out"),
    "identifiers": (
        {"x_1": list(range(100, 100 + ROWS))}, {}, "modality 'x': x_1: consecutive whole numbers; are they identifiers?"
    ),
    "twins": (
        {"n": [row % 7 for row in range(ROWS)], "x_1": [row % 7 for row in range(ROWS)]}, {},
        "modalities 'x' and 'n': x_1 and n are the same in all rows, which makes imputation look better than it is; "
        "leave one out",
    ),
    "one row": ({"grade": ["c"] + ["a", "b"] * 19 + ["a"]}, {}, "modality 'grade': one row of class c"),
    "no row": (
        {"grade": ["a", "b"] * 20}, {"classes": {"sex": ["f", "m"], "grade": ["a", "b", "c"]}},
        "modality 'grade': no row of class c",
    ),
    "far": (
        {"x_1": [*good()["x_1"][:-2], -999, -999]}, {},
        "modality 'x': x_1: -999 in rows 38, 39, far outside the interquartile range -0.658 to 0.386; is it an error, another unit, "
        "or a code for missing?",
    ),
    "binary": ({"x_1": [0, 1] * 20, "x_2": [0, 0, 1, 1] * 10}, {}, "modality 'x': x_1, x_2: only 0 and 1; use likelihood: bernoulli"),
    "nothing": (
        {column: ["", *cells[1:]] for column, cells in good().items() if column != "id"}, {},
        "nothing is observed in row 0; such rows are kept, but not trained on; data.empty_rows: drop removes them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_what_is_likely_a_mistake_is_a_warning(name: str):
    columns, options, message = DOUBTS[name]
    found = checked({**good(), **columns}, **options)
    assert found.errors == ()
    if name == "far":
        message = message.replace("-0.658 to 0.386", " to ".join(f"{x:g}" for x in np.quantile(columns["x_1"], [0.25, 0.75])))
    assert found.warnings == (message,)


def test_a_category_of_nearly_as_many_values_as_rows_is_a_warning():
    found = checked({**good(), "grade": WORDS}, {**LIKELIHOODS, "grade": (12, "categorical")})
    assert found.warnings == ("modality 'grade': 12 classes in 40 rows; is it a category at all?",)


def test_modalities_that_no_row_has_together_are_a_warning():
    columns = good()
    columns["n"] = ["" if row < 20 else cell for row, cell in enumerate(columns["n"])]
    columns["sex"] = [cell if row < 20 else "" for row, cell in enumerate(columns["sex"])]
    assert [line.partition(",")[0] for line in checked(columns).warnings] == ["no training row has both n and sex"]


def test_what_training_would_refuse_is_an_error():
    columns = {"x_1": [1.5, 2.5, 3.5, ""] * 10, "grade": ["", "", "", "a", *["", "", "", "b"] * 9]}
    found = checked({**columns, "x_2": columns["x_1"]}, {"x": (2, "normal"), "grade": (2, "categorical")}, classes={})
    assert found.errors == (
        "stage bridges: 0 training rows have the modalities that it needs, expected at least 2. Add rows in which they are present "
        "together.",
    )  # fmt: skip


def test_rows_of_other_sources_are_checked_as_well(here: Path):
    np.savez("rows.npz", x=np.c_[np.ones(ROWS), np.arange(ROWS) % 9 * 1.5], y=np.arange(ROWS) % 3)
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {"x": {**part, "shape": 2, "likelihood": "normal"}, "y": {**part, "shape": 2, "likelihood": "categorical"}}
    document = {"data": {"source": "npz", "path": "rows.npz"}, "modalities": modalities, "latent_dim": 2}
    message = f"{here / 'rows.npz'}: modality 'y': row 2 holds 2, expected a class index from 0 to 1"
    assert check_data(spec_from_dict(document)).errors == (message,)
    modalities["y"]["shape"] = 3
    assert check_data(spec_from_dict(document)).warnings == (
        "modality 'x': x[0]: the same value in all rows; leave it out unless it varies in other data",
    )
    assert check_data(spec_from_dict({"modalities": modalities})).errors[0].startswith("the spec names no data source")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return commands.in_this_process(monkeypatch, capsys, columns=80)


def test_the_command_parts_errors_from_warnings(call: Call, here: Path):
    checked({**good(), "x_1": [5] * ROWS})
    Path("spec.yaml").write_text(
        "latent_dim: 2\ndata: {source: table, path: rows.csv, columns: {x: x_*}}\n"
        "modalities:\n  x: {shape: 2, encoder: mlp, likelihood: normal}\n  grade: {shape: 3, encoder: mlp, likelihood: categorical}\n"
    )
    code, out, err = call("validate", "spec.yaml", "--data")
    assert code == 0
    assert out.splitlines()[-1] == "data: 40 rows, no errors, 1 warning"
    assert err == "warning: modality 'x': x_1: the same value in all rows; leave it out unless it varies in other data\n"
    code, out, err = call("validate", "spec.yaml", "--data", "--set", "modalities.grade.shape=2", "--set", "modalities.x.shape=3")
    assert (code, err.splitlines()) == (2, [
        "error: modality 'x': 2 columns (x_1, x_2), but its shape is (3,); write shape: 2",
        f"error: {here / 'rows.csv'}: column 'grade' has 3 classes (a, b, c), but modality 'grade' is of shape (2,); write shape: 3, "
        "or list the classes in data.classes",
    ])  # fmt: skip
    assert out.startswith("spec.yaml: valid. ")


ONE_HOT = np.eye(3)[np.arange(ROWS) % 3]


@pytest.mark.parametrize("classes", [ONE_HOT, np.where(np.arange(ROWS)[:, None] < 3, np.nan, ONE_HOT), np.arange(ROWS) % 3])
def test_classes_may_be_one_hot_or_numbers(classes: np.ndarray):
    assert checked_arrays(k=classes).errors == ()
    assert checked_arrays(k=classes).warnings == ()


def test_one_hot_classes_that_say_what_another_modality_says_are_doubted():
    found = checked_arrays(k=ONE_HOT, x=np.arange(ROWS) % 3 * 1.0)
    assert [line.partition(", which")[0] for line in found.warnings] == ["modalities 'k' and 'x': k and x are the same in all rows"]


def test_a_class_that_no_one_hot_row_has_is_doubted():
    assert checked_arrays(k=np.eye(3)[np.arange(ROWS) % 2]).warnings == ("modality 'k': no row of class 2 (counted from 0)",)


def checked_arrays(**arrays: np.ndarray) -> Checked:
    arrays = {"x": np.random.default_rng(0).normal(size=ROWS)} | arrays
    np.savez("rows.npz", **arrays)
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {"k": {**part, "shape": 3, "likelihood": "categorical"}, "x": {**part, "shape": 1, "likelihood": "normal"}}
    return check_data(spec_from_dict({"data": {"source": "npz", "path": "rows.npz"}, "modalities": modalities, "latent_dim": 2}))


@pytest.mark.parametrize("name", ["elsewhere", "p", "k"])
def test_rows_of_another_length_are_told_whatever_columns_there_are(here: Path, name: str):
    Path("ragged.csv").write_text("p,k\n1,u\n2\n3,v,w\n")
    kind = "categorical" if name == "k" else "normal"
    modalities = {name: {"shape": 2 if name == "k" else 1, "encoder": "mlp", "likelihood": kind}}
    found = check_data(spec_from_dict({"data": {"source": "table", "path": "ragged.csv"}, "modalities": modalities, "latent_dim": 2}))
    missing = [f"{here / 'ragged.csv'}: no column 'elsewhere'. Found: p, k"] if name == "elsewhere" else []
    assert found.errors == (*missing, f"{here / 'ragged.csv'}: row 1 (line 3) has 1 cell, expected 2, as the header has")
