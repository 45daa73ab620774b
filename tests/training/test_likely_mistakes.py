"""What is doubtful about rows is said alike by `validate`, by `train` from files, frames and arrays, by the imputer, and by imputation."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pandas as pd
import pytest

import nbridge
from nbridge import NBridgeWarning
from nbridge.draft.checks import check_data
from nbridge.sklearn import NBridgeImputer
from nbridge.spec.reader import spec_from_dict

ROWS = 60
FAR = "modality 'lab': a: 9999 in row 7, far outside the interquartile range"
NEVER = "modality 'lab': b: no value in any row; leave it out"
HELD_OUT = "modality 'lab': c: no value in any training row, so that nothing is learnt about it; leave it out"
EMPTY = "nothing is observed in row 59"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows() -> pd.DataFrame:
    """Rows with all kinds of doubt: the last six are for tests, and c is observed in one of these alone."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(ROWS, 5)).round(3), columns=pd.Index(["a", "b", "c", "d", "other"]))
    table.loc[7, "a"] = 9999
    table["b"] = np.nan
    table.loc[[row for row in range(ROWS) if row != 57], "c"] = np.nan
    table.loc[:9, "other"] = np.nan
    table.loc[59] = np.nan
    table["part"] = ["train"] * 54 + ["test"] * 6
    return table


def document(**data: Any) -> dict[str, Any]:
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal"}
    modalities = {"lab": {**part, "shape": 4}, "other": {**part, "shape": 1}}
    training = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
    return {"data": {"split": "part", **data}, "modalities": modalities, "latent_dim": 2, "training": training}


def of_table(**options: Any) -> dict[str, Any]:
    return document(columns={"lab": ["a", "b", "c", "d"]}, **options)


def heard(call: Any) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NBridgeWarning)
        result = call()
    return result, "\n".join(str(one.message) for one in caught)


def test_every_way_to_train_says_what_validate_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    table = rows()
    table.to_csv("rows.csv", index=False)
    source = of_table(source="table", path="rows.csv")
    said = {"validate": "\n".join(check_data(spec_from_dict(source)).warnings)}
    Path("spec.yaml").write_text(json.dumps(source))
    code, out, err = commands.in_this_process(monkeypatch, capsys, 400)("train", "spec.yaml", "--out", "run")
    assert code == 0
    said["command line"] = out + err
    _, said["file"] = heard(lambda: nbridge.train("spec.yaml"))
    _, said["frame"] = heard(lambda: nbridge.train(of_table(source="frame"), data=table))
    arrays = {"lab": table[["a", "b", "c", "d"]].to_numpy(), "other": table[["other"]].to_numpy(), "part": table["part"].to_numpy()}
    _, said["arrays"] = heard(lambda: nbridge.train(document(), data=arrays))
    for name, place in zip("abc", "012", strict=True):
        said["arrays"] = said["arrays"].replace(f"modality 'lab': {place}:", f"modality 'lab': {name}:")
    for door, text in said.items():
        for line in (FAR, NEVER, HELD_OUT, EMPTY):
            assert line in text, f"{door} does not say: {line}\n{text}"


def test_imputation_names_what_training_never_saw(here: Path):
    table = rows()
    run, _ = heard(lambda: nbridge.train(of_table(source="frame"), data=table, out=here / "run"))
    expected = "modality 'lab': b, c: no training row had a value; what is imputed is not learnt"
    for model in (run.model, nbridge.load(here / "run")):
        done, text = heard(lambda model=model: model.impute(table))
        assert expected in text
        assert (done["a"][table["a"].notna()] == table["a"][table["a"].notna()]).all()
    known = table.assign(b=1.0, c=np.arange(ROWS))
    run, text = heard(lambda: nbridge.train(of_table(source="frame"), data=known))
    assert "no value" not in text
    assert run.model.patterns is not None
    assert "never" not in run.model.patterns.as_dict()


def test_the_imputer_warns_of_outliers_too():
    table = np.random.default_rng(0).normal(size=(ROWS, 3))
    table[7, 0] = 9999
    table[20:30, 1] = np.nan
    imputer = NBridgeImputer(groups={"x": [0, 1], "y": [2]}, epochs=1)
    assert "9999 in row 7, far outside the interquartile range" in heard(lambda: imputer.fit(table))[1]


def test_warnings_point_at_the_line_of_the_caller_and_are_not_repeated_for_a_finished_run(here: Path):
    table = rows()
    with pytest.warns(NBridgeWarning) as caught:
        run = nbridge.train(of_table(source="frame"), data=table, out=here / "run")
    with pytest.warns(NBridgeWarning) as later:
        run.model.impute(table)
    assert {one.filename for one in (*caught, *later)} == {__file__}
    again, text = heard(lambda: nbridge.resume(here / "run", table))
    assert FAR not in text
    assert any(finding.text.startswith(FAR) for finding in again.warnings)
