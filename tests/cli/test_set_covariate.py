"""``--set-covariate`` of ``nbridge impute``, ``generate`` and ``embed``: fixed values in place of those of the rows, and the errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Call, in_this_process

import nbridge

ROWS = 40
COLUMNS = {"a": "a_*", "b": "b_*"}
PART = {"encoder": {"type": "mlp", "hidden": [8]}, "features": 8, "likelihood": "normal"}


def rows(count: int = ROWS) -> pd.DataFrame:
    """Two panels, a batch and an age."""
    rng = np.random.default_rng(0)
    panels = {f"{name}_{place}": rng.normal(size=count) for name in "ab" for place in range(2)}
    return pd.DataFrame({"batch": np.resize(["A", "B"], count), "age": rng.normal(50, 10, count), **panels})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Model:
    """A model of a table, saved as a folder named model."""
    folder = tmp_path_factory.mktemp("covariates")
    rows().to_csv(folder / "train.csv", index=False)
    spec = {
        "latent_dim": 2, "fusion": {"hidden": [8]}, "bridges": {"hidden": [8]}, "training": {"updates": 3},
        "covariates": {"batch": "categorical", "age": "normal"},
        "data": {"source": "table", "path": str(folder / "train.csv"), "columns": COLUMNS},
        "modalities": {"a": {"shape": 2, **PART}, "b": {"shape": 2, **PART}},
    }  # fmt: skip
    return nbridge.load(nbridge.train(spec).model.save(folder / "model"))


@pytest.fixture
def here(tmp_path: Path, model: nbridge.Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model.save("model")
    rows(6).assign(b_0=np.nan, b_1=np.nan).to_csv("new.csv", index=False)
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return in_this_process(monkeypatch, capsys, columns=120)


IMPUTE = ("impute", "model", "new.csv", "--out", "done.csv")
GENERATE = ("generate", "model", "--num", "5", "--out", "done.npz")
EMBED = ("embed", "model", "new.csv", "--out", "done.npz")


def test_imputations_are_those_of_the_model_at_the_fixed_values(call: Call, model: nbridge.Model):
    assert call(*IMPUTE, "--set-covariate", "batch=B", "--set-covariate", "age=61.5")[0] == 0
    done, new = pd.read_csv("done.csv"), rows(6)
    hidden = new.assign(b_0=np.nan, b_1=np.nan)
    expected = model.impute(hidden, covariates={"batch": "B", "age": 61.5})[["b_0", "b_1"]]
    np.testing.assert_allclose(done[["b_0", "b_1"]], expected, rtol=1e-3, atol=1e-3)
    assert not np.allclose(expected, model.impute(hidden)[["b_0", "b_1"]])
    # Covariates are copied, not overwritten: they are columns of the input.
    assert done["batch"].tolist() == new["batch"].tolist()


def test_a_fixed_value_replaces_a_column_or_cells_that_are_missing(call: Call):
    pd.read_csv("new.csv").drop(columns="batch").assign(age=[np.nan, *range(5)]).to_csv("new.csv", index=False)
    assert call(*IMPUTE, "--set-covariate", "batch=A", "--set-covariate", "age=50")[0] == 0
    assert pd.read_csv("done.csv")[["b_0", "b_1"]].notna().all(axis=None)


def test_generated_rows_and_embeddings_are_those_of_the_model_at_the_fixed_values(call: Call, model: nbridge.Model):
    assert call(*GENERATE, "--set-covariate", "batch=B", "--set-covariate", "age=40")[0] == 0
    expected = model.generate(5, covariates={"batch": "B", "age": 40})
    with np.load("done.npz") as done:
        np.testing.assert_allclose(done["a"], expected["a"], rtol=1e-4, atol=1e-5)
    assert call(*EMBED, "--set-covariate", "batch=B", "--overwrite")[0] == 0
    with np.load("done.npz") as done:
        fixed = model.embed("new.csv", covariates={"batch": "B"})
        np.testing.assert_allclose(done["mean"], fixed.mean, rtol=1e-4, atol=1e-5)
        assert not np.allclose(done["mean"], model.embed("new.csv").mean)


WRONG = {
    "unknown covariate": (["bach=A"], "no covariate 'bach' in this model. Did you mean 'batch'? Covariates: "),
    "unknown level": (["batch=D"], "covariate 'batch': 'D' is a level that no training row had. Levels: A, B"),
    "no number": (["age=old"], "covariate 'age': 'old' is not a number"),
    "not finite": (["age=inf"], "covariate 'age': 'inf': expected a finite number"),
    "given twice": (["batch=A", "batch=B"], "--set-covariate batch=B: covariate 'batch' is given twice"),
    "no value": (["batch="], "--set-covariate batch=: expected NAME=VALUE, such as batch=A"),
    "no name": (["=A"], "--set-covariate =A: expected NAME=VALUE, such as batch=A"),
}


@pytest.mark.parametrize("command", [IMPUTE, GENERATE, EMBED], ids=lambda command: command[0])
@pytest.mark.parametrize(("given", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_one_line_and_nothing_is_written(call: Call, here: Path, command: tuple[str, ...], given: list[str], text: str):
    before = sorted(here.iterdir())
    code, out, err = call(*command, *(word for one in given for word in ("--set-covariate", one)))
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert text in err
    assert "--set-covariate" in err
    assert sorted(here.iterdir()) == before


ROWS_WITHOUT = {
    "cell": ({"batch": ["A", "", "B", "", "A", "B"]}, "column 'batch' (covariate 'batch'): row 1 (line 3) has no value (1 more such row)"),
    "level": (
        {"batch": ["A", "A", "D", "A", "A", "B"]},
        "column 'batch' (covariate 'batch'): row 2 (line 4): 'D' is a level that no training row",
    ),
    "number": ({"age": ["1", "2", "3", "x", "5", "6"]}, "column 'age' (covariate 'age'): row 3 (line 5): 'x' is not a number"),
    "column": ({}, "no column 'batch'"),
}


@pytest.mark.parametrize("command", [IMPUTE, EMBED], ids=lambda command: command[0])
@pytest.mark.parametrize(("change", "text"), ROWS_WITHOUT.values(), ids=ROWS_WITHOUT)
def test_a_row_without_a_valid_covariate_is_one_line_and_nothing_is_written(
    call: Call, here: Path, command: tuple[str, ...], change: dict[str, list[str]], text: str
):
    new = pd.read_csv("new.csv")
    (new.assign(**change) if change else new.drop(columns="batch")).to_csv("new.csv", index=False)
    before = sorted(here.iterdir())
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "new.csv" in err
    assert text in err
    assert sorted(here.iterdir()) == before
