"""Likely mistakes in mixed tables are those of each column's kind, and name columns and classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbridge
from nbridge import NBridgeWarning

COLUMNS: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "edema": {"type": "ordinal", "classes": 3},
    "visits": "poisson", "bili": "lognormal",
}  # fmt: skip


def frame(rows: int = 100) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame({
        "age": draw.normal(50, 10, rows).round(2), "sex": draw.integers(2, size=rows), "stage": draw.choice(["I", "II", "III"], rows),
        "edema": draw.choice(["0", "0.5", "1"], rows), "visits": draw.poisson(2, rows), "bili": draw.lognormal(size=rows).round(3),
    })  # fmt: skip


def said(folder: Path, rows: pd.DataFrame, **classes: list[str]) -> list[str]:
    """The doubts about rows when a model is trained on them."""
    rows.to_csv(folder / "rows.csv", index=False)
    spec = {
        "latent_dim": 2, "data": {"source": "table", "path": str(folder / "rows.csv"), "classes": classes, "test": 0, "validation": 0},
        "modalities": {"t": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [4]}}},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NBridgeWarning)
        nbridge.train(spec)
    return [text for one in caught if (text := str(one.message)).startswith("modality 't'") and "chance" not in text]


def test_columns_of_0_and_1_skewed_columns_and_all_others_that_fit_their_kind_are_no_mistake(tmp_path: Path):
    assert said(tmp_path, frame()) == []


@pytest.mark.parametrize(
    ("column", "values", "line"),
    [
        ("age", np.r_[9999.0, frame()["age"][1:]], "age: 9999 in row 0, far outside the interquartile range"),
        ("age", np.arange(100.0), "age: consecutive whole numbers; are they identifiers?"),
        ("age", np.full(100, 3.0), "age: the same value in all rows; leave it out unless it varies in other data"),
        ("sex", np.zeros(100), "sex: the same value in all rows"),
        ("sex", np.eye(100)[0], "sex: 1 in one row only"),
        ("visits", np.r_[10**9, frame()["visits"][1:]], "visits: 1e+09 in row 0, far outside"),
        ("stage", ["III"] + ["I", "II", "II"] * 33, "stage: one row of class III"),
        ("stage", ["I", "II"] * 50, "stage: no row of class III"),
        ("edema", ["0.5"] * 100, "edema: the same value in all rows"),
        ("stage", [None] * 100, "stage: no value in any row; leave it out"),
    ],
)
def test_a_mistake_names_its_column_and_class(tmp_path: Path, column: str, values: Any, line: str):
    lines = said(tmp_path, frame().assign(**{column: values}), stage=["I", "II", "III"], edema=["0", "0.5", "1"])
    assert len(lines) == 1
    assert lines[0].startswith(f"modality 't': {line}")


def test_arrays_are_told_by_the_names_of_columns_as_well():
    x = np.random.default_rng(0).normal(size=(60, 5))
    x[:, 1] = 7
    x[:, 2:] = np.eye(3)[np.arange(60) % 2]
    columns = {"age": "normal", "dose": "normal", "stage": {"type": "categorical", "classes": 3}}
    spec = {"latent_dim": 2, "modalities": {"t": {"columns": columns, "encoder": {"type": "table", "hidden": [4]}}},
            "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}  # fmt: skip
    with pytest.warns(NBridgeWarning) as caught:
        nbridge.train(spec, {"t": x})
    lines = [str(one.message) for one in caught]
    assert "modality 't': dose: the same value in all rows; leave it out unless it varies in other data" in lines
    assert "modality 't': stage: no row of class 2 (counted from 0)" in lines
