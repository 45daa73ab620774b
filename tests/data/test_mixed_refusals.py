"""Mistakes in the tables and the spec of a mixed modality: one clear line each, with file, row and column where they exist."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbridge
from nbridge.draft.checks import check_data
from nbridge.draft.draft import init
from nbridge.errors import DataError, SpecError
from nbridge.spec.reader import spec_from_dict

ROWS = 60
COLUMNS: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": "ordinal", "town": "categorical", "bili": "lognormal", "visits": "poisson",
    "year": {"type": "normal", "whole": True, "low": 0},
}  # fmt: skip
CLASSES = {"sex": ["f", "m"], "stage": ["1", "2", "3", "4"], "town": ["A", "B", "C"]}


def cells() -> dict[str, list[Any]]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=ROWS)
    return {
        "age": (50 + 10 * z).round(1).tolist(), "sex": ["f", "m"] * (ROWS // 2), "stage": (np.arange(ROWS) % 4 + 1).tolist(),
        "town": ["A", "B", "C"] * (ROWS // 3), "bili": np.exp(z).round(3).tolist(), "visits": rng.poisson(3, ROWS).tolist(),
        "year": rng.integers(1990, 2020, ROWS).tolist(),
    }  # fmt: skip


def written(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def spec_of(path: Path, columns: Mapping[str, Any] = COLUMNS, classes: Mapping[str, Any] = CLASSES, /, **data: Any) -> nbridge.Spec:
    source = {"source": "table", "path": str(path), "id": "", "classes": dict(classes), "validation": 0.0, "test": 0.0, **data}
    stages = {stage: {"epochs": 1} for stage in ("joint", "bridges")}
    return spec_from_dict({
        "latent_dim": 2, "data": source, "modalities": {"clinical": {"columns": dict(columns)}}, "training": {"stages": stages},
    })  # fmt: skip


def spoilt(path: Path, **changes: tuple[int, object]) -> Path:
    columns = cells()
    for column, (row, value) in changes.items():
        columns[column][row] = value
    return written(path, columns)


def test_classes_are_refused_where_rows_stay_on_disk(tmp_path: Path):
    pd.DataFrame(cells()).to_parquet(tmp_path / "rows.parquet")
    spec = spec_of(tmp_path / "rows.parquet").model_dump(mode="json")
    spec["data"] = {"source": "parquet", "path": str(tmp_path / "rows.parquet"), "id": "id", "validation": 0.0, "test": 0.0}
    expected = "rows.parquet: modality 'clinical': column 'sex' has classes, and source: parquet reads numbers alone; use source: table"
    with pytest.raises(DataError, match=expected):
        nbridge.train(spec)
    numbers = {"age": "normal", "bili": "lognormal", "visits": "poisson"}
    spec["modalities"] = {"clinical": {"columns": numbers}}
    run = nbridge.train(spec)
    assert run.model.names == ("clinical",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Model:
    return nbridge.train(spec_of(written(tmp_path_factory.mktemp("mixed") / "good.csv", cells())), device="cpu").model


SUPPORT = "(1 such row). Rescale the values or choose another likelihood."
CELLS = {
    "class": ("town", "Z", "column 'town': row 5 (line 7) holds \"Z\", a class that data.classes does not list; it lists A, B, C. "),
    "level": ("stage", 9, "column 'stage': row 5 (line 7) holds \"9\", a class that data.classes does not list; it lists 1, 2, 3, 4. "),
    "flag": ("sex", "x", "column 'sex': row 5 (line 7) holds \"x\", a class that data.classes does not list; it lists f, m. "),
    "number": ("age", "old", "column 'age': row 5 (line 7) holds \"old\", expected a finite number, or data.classes to list the classes"),
    "fraction": (
        "visits", 2.5, "modality 'clinical', column 'visits', row 5 (line 7): value 2.5 is outside the support of visits (poisson), whole "
        f"numbers from 0 {SUPPORT}",
    ),
    "negative count": (
        "visits", -2, "modality 'clinical', column 'visits', row 5 (line 7): value -2 is outside the support of visits (poisson), whole "
        f"numbers from 0 {SUPPORT}",
    ),
    "zero": (
        "bili", 0, "modality 'clinical', column 'bili', row 5 (line 7): value 0 is outside the support of bili (lognormal), numbers "
        f"above 0 {SUPPORT}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CELLS)
def test_a_cell_that_its_column_does_not_admit_is_named_in_each_command(tmp_path: Path, trained: nbridge.Model, case: str):
    column, value, message = CELLS[case]
    path = spoilt(tmp_path / "bad.csv", **{column: (5, value)})
    (line,) = check_data(spec_of(path)).errors
    assert line.startswith(f"{path}: {message}")
    for act in (lambda: nbridge.train(spec_of(path), device="cpu"), lambda: trained.impute(str(path), out=tmp_path / "out.csv")):
        with pytest.raises(DataError) as error:
            act()
        assert str(error.value).startswith(f"{path}: {message}")
        assert "\n" not in str(error.value)


def test_validation_reports_a_mistake_of_each_column_at_once(tmp_path: Path):
    path = spoilt(tmp_path / "bad.csv", town=(5, "Z"), age=(7, "old"), stage=(9, 7))
    assert [line.partition("column ")[2][:7] for line in check_data(spec_of(path)).errors] == ["'age': ", "'stage'", "'town':"]
    path = spoilt(tmp_path / "bad.csv", visits=(5, 2.5), bili=(7, -1))
    assert [line.partition("column ")[2][:9] for line in check_data(spec_of(path)).errors] == ["'bili', r", "'visits',"]


@pytest.mark.parametrize("value", ["", "7"], ids=["empty", "constant"])
def test_columns_that_hold_nothing_are_findings_and_are_imputed_as_others(tmp_path: Path, value: str):
    for column in ("age", "visits"):
        path = written(tmp_path / "rows.csv", {**cells(), column: [value] * ROWS})
        (line,) = check_data(spec_of(path)).warnings
        what = (
            "no value in any row; leave it out" if not value else "the same value in all rows; leave it out unless it varies in other data"
        )
        assert line == f"modality 'clinical': {column}: {what}"
        nbridge.train(spec_of(path), device="cpu").model.impute(str(path), out=tmp_path / f"{column}.csv")
        with (tmp_path / f"{column}.csv").open(encoding="utf-8") as file:
            assert all(np.isfinite(float(row[column])) for row in csv.DictReader(file))
        reason = "holds '7' alone" if value else "is empty"
        assert f"left out: {column}: {reason}" in init([str(path)]).remarks


def test_columns_of_one_class_are_findings(tmp_path: Path):
    path = written(tmp_path / "rows.csv", {**cells(), "town": ["A"] * ROWS, "stage": [1, 2, 3] * (ROWS // 3)})
    assert check_data(spec_of(path)).warnings == (
        "modality 'clinical': town: the same value in all rows; leave it out unless it varies in other data",
        "modality 'clinical': stage: no row of class 4",
    )


def test_a_column_that_is_not_in_the_file_is_named_with_the_closest(tmp_path: Path, trained: nbridge.Model):
    columns = {"visit" if name == "visits" else name: column for name, column in cells().items()}
    path = written(tmp_path / "rows.csv", columns)
    message = f"{path}: no column 'visits' for modality 'clinical'. Did you mean 'visit'? Found: "
    (line,) = check_data(spec_of(path)).errors
    assert line.startswith(message)
    with pytest.raises(DataError) as error:
        nbridge.train(spec_of(path), device="cpu")
    assert str(error.value).startswith(message)
    with pytest.raises(
        DataError, match=r"column 'visits' of modality 'clinical' is missing\. Did you mean 'visit'\? Add it, with empty cells"
    ):
        trained.impute(str(path), out=tmp_path / "out.csv")


SPECS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    # Columns, classes and data options that differ; the message.
    "order": (
        {}, {"stage": ["1", "3", "2", "4"]}, {},
        "classes: column 'stage': ordinal levels out of order, 3 before 2; list them from lowest to highest",
    ),
    "number": (
        {"stage": {"type": "ordinal", "classes": 4}}, {"stage": ["1", "2", "3", "4", "5"]}, {},
        "classes: column 'stage' has 5 classes, but modality 'clinical' has a column of 4",
    ),
    "another number than the data": (
        {"town": {"type": "categorical", "classes": 4}}, {"town": None}, {},
        "column 'town' has 3 classes (A, B, C), but modality 'clinical' has a column of 4; write classes: 3, or list the classes in "
        "data.classes",
    ),
    "no number": (
        {}, {"town": None}, {},
        "column 'town' has 3 classes (A, B, C), but the spec does not say how many; write classes: 3, or list the classes in data.classes",
    ),
    "classes of numbers": (
        {"sex": "normal"}, {}, {},
        "classes: column 'sex' is normal in modality 'clinical'; make it categorical, ordinal or bernoulli, or remove its classes",
    ),
    "other columns": (
        {}, {}, {"columns": {"clinical": ["age", "sex"]}},
        "modality 'clinical': data.columns lists age, sex, but its likelihood is of age, sex, stage, town, bili, visits, year; leave it "
        "out of data.columns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
def test_a_spec_that_contradicts_itself_or_its_data_is_told(tmp_path: Path, case: str):
    columns, classes, data, message = SPECS[case]
    path = written(tmp_path / "rows.csv", cells())
    listed = {name: texts for name, texts in {**CLASSES, **classes}.items() if texts is not None}
    with pytest.raises(DataError) as error:
        nbridge.train(spec_of(path, {**COLUMNS, **columns}, listed, **data), device="cpu")
    assert str(error.value).endswith(message)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"columns": {"a": "norml"}}, "modalities.m.columns.a: expected 'normal', 'lognormal', 'bernoulli', 'categorical', 'ordinal', "),
        (
            {"columns": {"a": {"type": "normal", "classes": 3}}},
            "modalities.m.columns.a: 'classes' does not apply to a column of type normal",
        ),
        ({"columns": {}}, "modalities.m.columns: expected 1 or more entries, got 0"),
        (
            {"columns": {"a": "normal"}, "likelihood": "normal"},
            "modalities.m: 'columns' is for likelihood: mixed, not normal; remove one of them",
        ),
    ],
)
def test_columns_that_are_no_columns_are_told_in_one_line(modality: dict[str, Any], message: str):
    with pytest.raises(SpecError) as error:
        spec_from_dict({"modalities": {"m": modality}})
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_two_thousand_columns_of_several_kinds_are_one_modality(tmp_path: Path):
    rng = np.random.default_rng(0)
    make = (
        lambda: np.char.mod("%.2f", rng.normal(size=ROWS)).tolist(), lambda: rng.choice(["a", "b", "c"], ROWS).tolist(),
        (np.arange(ROWS) % 4 + 1).tolist, lambda: rng.choice(["no", "yes"], ROWS).tolist(),
    )  # fmt: skip
    # Fewer than a block of one kind that is a modality of its own, but for classes.
    numbers = [0] * 100 + [3] * 100 + [1] * 900 + [2] * 900
    names = [f"{'abcdefghijklmnop'[place % 16]}x{place // 16}y" for place in range(2000)]
    frame = {name: make[kind]() for name, kind in zip(names, numbers, strict=True)}
    path = written(tmp_path / "wide.csv", frame)
    found = init([str(path)])
    (modality,) = found.spec.modalities.values()
    assert len(modality.likelihood.kwargs["columns"]) == 2000
    assert check_data(found.spec).errors == ()
    quick = {"validation": 0.0, "test": 0.0}
    spec = found.spec.model_dump(mode="json")
    spec["data"] |= quick
    spec["training"]["stages"] = {stage: {"epochs": 1} for stage in spec["training"]["stages"]}
    model = nbridge.train(spec, device="cpu").model
    model.impute(str(path), out=tmp_path / "done.csv")
    assert (tmp_path / "done.csv").read_text(encoding="utf-8").count("\n") == 1 + ROWS
