"""What an earlier imputation filled stays marked when a file is completed again, and is said wherever it counts as observed."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from commands import in_this_process
from omics import SHAPES, study, study_model, write
from pyarrow import parquet

import nbridge
from nbridge.data.marks import either
from nbridge.data.omics.container import copied
from nbridge.draft.checks import check_data
from nbridge.errors import DataError, NBridgeWarning
from nbridge.evaluation.suite import Settings
from nbridge.training.build import source_of

ROWS = 20
PARTS = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
MODALITIES = {
    "x": {"shape": 2, "likelihood": "normal", **PARTS},
    "y": {"shape": 3, "likelihood": "categorical", **PARTS},
}
BEFORE = {"x": 6, "y": 4}
TEXT = r"these rows hold values that an earlier imputation filled: x \(6 rows\), y \(4 rows\); "
STAGES = {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}


class Format(NamedTuple):
    """How rows of a format are written and read, as a frame with x_1, x_2 and y, and where its marks are."""

    source: dict[str, Any]
    name: str
    write: Callable[[Path, pd.DataFrame], None]
    read: Callable[[Path], pd.DataFrame]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"id": [f"p{row}" for row in range(ROWS)], "x_1": rng.normal(size=ROWS), "x_2": rng.normal(size=ROWS)})
    rows["y"] = rng.integers(0, 3, ROWS).astype(float)
    rows.loc[2:4, "x_1"], rows.loc[4:7, "x_2"], rows.loc[9:12, "y"] = np.nan, np.nan, np.nan
    return rows


def arrays_of(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    found = {"x": np.ascontiguousarray(rows[["x_1", "x_2"]]), "y": rows["y"].to_numpy(), "id": rows["id"].to_numpy().astype("U")}
    if "y__imputed" in rows:
        found |= {"x__imputed": np.ascontiguousarray(rows[["x_1__imputed", "x_2__imputed"]]), "y__imputed": rows["y__imputed"].to_numpy()}
    return found


def frame_of(arrays: Any) -> pd.DataFrame:
    x, marks = np.asarray(arrays["x"]), np.asarray(arrays["x__imputed"])
    marks = np.broadcast_to(marks.reshape(ROWS, -1), (ROWS, 2))
    marks_of = {"x_1__imputed": marks[:, 0], "x_2__imputed": marks[:, 1], "y__imputed": arrays["y__imputed"]}
    return pd.DataFrame({"id": arrays["id"], "x_1": x[:, 0], "x_2": x[:, 1], "y": arrays["y"], **marks_of})


def read_table(rows: pd.DataFrame) -> pd.DataFrame:
    if "x__imputed" in rows:
        rows = rows.assign(x_1__imputed=rows["x__imputed"], x_2__imputed=rows["x__imputed"]).drop(columns="x__imputed")
    return rows.astype({column: bool for column in rows if column.endswith("__imputed")})


def write_folder(path: Path, rows: pd.DataFrame) -> None:
    path.mkdir()
    for key, array in arrays_of(rows).items():
        np.save(path / f"{key}.npy", array)


def write_lists(path: Path, rows: pd.DataFrame) -> None:
    pd.DataFrame({key: list(array) if array.ndim > 1 else array for key, array in arrays_of(rows).items()}).to_parquet(path)


def read_lists(path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path)
    return frame_of({key: np.stack(rows[key].tolist()) for key in rows})


def read_csv(path: Path) -> pd.DataFrame:
    return read_table(pd.read_csv(path))


def read_npz(path: Path) -> pd.DataFrame:
    return frame_of(np.load(path))


def read_folder(path: Path) -> pd.DataFrame:
    return frame_of({file.stem: np.load(file) for file in path.glob("*.npy")})


COLUMNS = {"columns": {"x": ["x_1", "x_2"]}, "classes": {"y": ["0", "1", "2"]}}
FORMATS = {
    "csv": Format({"source": "table", **COLUMNS}, "rows.csv", lambda path, rows: rows.to_csv(path, index=False), read_csv),
    "table": Format(
        {"source": "table", **COLUMNS},
        "rows.parquet",
        lambda path, rows: rows.to_parquet(path),
        lambda path: read_table(pd.read_parquet(path)),
    ),
    "lists": Format({"source": "parquet"}, "lists.parquet", write_lists, read_lists),
    "npz": Format({"source": "npz"}, "rows.npz", lambda path, rows: np.savez(path, **arrays_of(rows)), read_npz),
    "npy": Format({"source": "npy"}, "rows", write_folder, read_folder),
}


def spec(source: dict[str, Any], path: Path) -> dict[str, Any]:
    data = {**source, "path": str(path)}
    return {"latent_dim": 2, "data": data, "modalities": MODALITIES, "training": {"stages": STAGES, "batch_size": 8}}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 4)
    monkeypatch.setattr("nbridge.inference.complete.BLOCK", 8)


@pytest.fixture
def model() -> nbridge.Model:
    return nbridge.Model.from_spec(nbridge.Spec.model_validate(spec({"source": "table", **COLUMNS}, Path("rows.csv"))))


def marks(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.filter(like="__imputed").astype(bool)


@pytest.mark.parametrize("kind", FORMATS)
def test_marks_stay_and_new_ones_are_added(kind: str, tmp_path: Path):
    """Cells that were imputed before keep marks and values; those emptied since are marked as well, and nothing else."""
    form, given = FORMATS[kind], frame()
    path, once, twice, last = (tmp_path / folder / form.name for folder in ("in", "once", "twice", "last"))
    for place in (path, once, twice, last):
        place.parent.mkdir()
    form.write(path, given)
    own = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec(form.source, path)))
    first = own.impute(path, once)
    assert not first.earlier
    with pytest.warns(NBridgeWarning, match=TEXT + "they count as observed in this imputation, and stay marked"):
        second = own.impute(once, twice)
    assert (second.imputed, second.earlier) == ({"x": 0, "y": 0}, BEFORE)
    done = form.read(once)
    pd.testing.assert_frame_equal(form.read(twice), done)
    expected = given[["x_1", "x_2", "y"]].isna().to_numpy()
    np.testing.assert_array_equal(marks(done), expected)

    emptied = done.copy()
    emptied.loc[[0, 3], "x_1"], emptied.loc[15:16, "x_2"], emptied.loc[9, "y"] = np.nan, np.nan, np.nan
    shutil.rmtree(once.parent)
    once.parent.mkdir()
    form.write(once, emptied)
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        own.impute(once, last)
    now = emptied[["x_1", "x_2", "y"]].isna().to_numpy()
    found = form.read(last)
    np.testing.assert_array_equal(marks(found), expected | now)
    np.testing.assert_array_equal(found[["x_1", "x_2", "y"]].to_numpy()[~now], done[["x_1", "x_2", "y"]].to_numpy()[~now])


@pytest.mark.parametrize("kind", FORMATS)
def test_marks_of_rows_and_of_cells_go_together(kind: str, tmp_path: Path):
    """A file whose marks are by row gets cells to impute, and marks by cell, of which whole rows have all."""
    form, given = FORMATS[kind], frame()
    given.loc[2:7, ["x_1", "x_2"]] = np.nan
    for folder in ("in", "once", "twice"):
        (tmp_path / folder).mkdir()
    form.write(tmp_path / "in" / form.name, given)
    own = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec(form.source, tmp_path / form.name)))
    own.impute(tmp_path / "in" / form.name, tmp_path / "once" / form.name)
    done = form.read(tmp_path / "once" / form.name)
    done.loc[0, "x_2"] = np.nan
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()
    form.write(tmp_path / "in" / form.name, done)
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        own.impute(tmp_path / "in" / form.name, tmp_path / "twice" / form.name)
    expected = given[["x_1", "x_2", "y"]].isna().to_numpy()
    expected[0, 1] = True
    np.testing.assert_array_equal(marks(form.read(tmp_path / "twice" / form.name)), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_training_on_a_completed_file_says_so(kind: str, tmp_path: Path):
    form = FORMATS[kind]
    form.write(tmp_path / form.name, frame())
    own = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec(form.source, tmp_path / form.name)))
    own.impute(tmp_path / form.name, tmp_path / f"done_{form.name}")
    for path, heard in ((tmp_path / form.name, False), (tmp_path / f"done_{form.name}", True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NBridgeWarning)
            run = nbridge.train(spec(form.source, path))
        assert any(re.match(TEXT + "they are trained on as if they were observed", str(one.message)) for one in caught) == heard
        found = [finding for finding in run.warnings if finding.kind == "imputed"]
        assert [finding.details for finding in found] == [{"rows": BEFORE}] * heard


def test_data_in_memory_says_the_same(model: nbridge.Model):
    """Arrays by modality and data frames, in training and imputation; flags count what was imputed before."""
    given = frame()
    done = nbridge.Model(model.network).impute({key: array for key, array in arrays_of(given).items() if key != "id"})
    own = {"latent_dim": 2, "modalities": MODALITIES, "training": {"stages": STAGES, "batch_size": 8}}
    with pytest.warns(NBridgeWarning, match=TEXT):
        nbridge.train(own, done)
    table = given.assign(y=given["y"].map({0: "0", 1: "1", 2: "2"}))
    filled, flags = model.impute(table, mask=True)
    marked = filled.assign(**{f"{column}__imputed": flags[column].astype(int) for column in ("x_1", "x_2", "y")})
    marked.loc[19, "x_1"] = np.nan
    with pytest.warns(NBridgeWarning, match=TEXT + "they count as observed"):
        again, both = model.impute(marked, mask=True)
    expected = flags[["x_1", "x_2", "y"]].copy()
    expected.loc[19, "x_1"] = True
    pd.testing.assert_frame_equal(both[["x_1", "x_2", "y"]], expected)
    np.testing.assert_array_equal(marks(again), expected)
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        nbridge.train({**own, "data": {"source": "frame", **COLUMNS}}, again)


def test_joined_tables_keep_the_marks_of_each(tmp_path: Path, model: nbridge.Model):
    given = frame()
    for column in ("x_1", "y"):
        rows = given[["id", "x_1", "x_2"] if column == "x_1" else ["id", "y"]]
        rows.iloc[: -2 if column == "y" else None].to_csv(tmp_path / f"{column}.csv", index=False)
    names = ("x_1.csv", "y.csv")
    model.impute([tmp_path / name for name in names], tmp_path / "once")
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        done = model.impute([tmp_path / "once" / name for name in names], tmp_path / "twice")
    assert done.earlier == {"x": 6, "y": 6}
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    paths = [str(tmp_path / "once" / name) for name in names]
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        nbridge.train(spec({"source": "table", **COLUMNS}, tmp_path) | {"data": {"source": "table", **COLUMNS, "path": paths}})


def test_a_modality_over_two_tables_is_completed_twice(tmp_path: Path, model: nbridge.Model):
    given = frame()
    given.loc[4, ["x_1", "x_2"]] = given.loc[[2, 3, 5, 6, 7], ["x_1", "x_2"]] = np.nan
    given[["id", "x_1", "y"]].to_csv(tmp_path / "one.csv", index=False)
    given[["id", "x_2"]].to_csv(tmp_path / "two.csv", index=False)
    names = ("one.csv", "two.csv")
    model.impute([tmp_path / name for name in names], tmp_path / "once")
    with pytest.warns(NBridgeWarning, match="imputation filled"):
        assert model.impute([tmp_path / "once" / name for name in names], tmp_path / "twice").earlier == BEFORE
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_shards_keep_marks_and_count_their_own(tmp_path: Path, model: nbridge.Model):
    frame().to_csv(tmp_path / "rows.csv", index=False)
    model.impute(tmp_path / "rows.csv", tmp_path / "once.csv")
    with pytest.warns(NBridgeWarning):
        parts = [model.impute(tmp_path / "once.csv", tmp_path / f"{number}.csv", shard=(number, 3)) for number in (1, 2)]
    rows = {"x": {*range(2, 8)}, "y": {*range(9, 13)}}
    own = [{name: len(there & {*range(part.start, part.stop)}) for name, there in rows.items()} for part in parts]
    assert [part.earlier for part in parts] == [{name: number for name, number in found.items() if number} for found in own]
    again = pd.concat([pd.read_csv(tmp_path / f"{number}.csv") for number in (1, 2)])
    np.testing.assert_array_equal(marks(again), marks(pd.read_csv(tmp_path / "once.csv"))[: len(again)])


def test_marks_of_modalities_that_a_model_lacks_pass_through(tmp_path: Path, model: nbridge.Model):
    frame().to_csv(tmp_path / "rows.csv", index=False)
    model.impute(tmp_path / "rows.csv", tmp_path / "once.csv")
    only = spec({"source": "table", **COLUMNS}, tmp_path / "rows.csv") | {"model": {"type": "vae", "modality": "x"}}
    own = nbridge.Model.from_spec(nbridge.Spec.model_validate(only))
    with pytest.warns(NBridgeWarning, match=r"filled: x \(6 rows\); "):
        own.impute(tmp_path / "once.csv", tmp_path / "twice.csv")
    once, twice = pd.read_csv(tmp_path / "once.csv"), pd.read_csv(tmp_path / "twice.csv")
    pd.testing.assert_frame_equal(twice[list(once)], once)


def test_omics_keep_marks_of_cells_and_rows(tmp_path: Path):
    """In MuData, where matrices, columns of obs and observations are marked in different places."""
    own, path = study_model(), write(tmp_path / "in.h5mu", study())
    once = own.impute(study())
    emptied = copied(once)
    emptied.mod["prot"].X[3, 0] = np.nan
    emptied.obs.loc[emptied.obs_names[~once.obs["age__imputed"]][:2], "age"] = np.nan
    with pytest.warns(NBridgeWarning, match=r"prot \(17 rows\), stage \(5 rows\), age \(6 rows\); they count"):
        twice = own.impute(emptied)
    assert twice.obs["age__imputed"].sum() == once.obs["age__imputed"].sum() + 2
    assert (twice.obs["stage__imputed"] == once.obs["stage__imputed"]).all()
    layers = [np.asarray(done.mod["prot"].layers["prot__imputed"].todense()) for done in (once, twice)]
    expected = layers[0].copy()
    expected[3, 0] = True
    np.testing.assert_array_equal(layers[1], expected)
    own.impute(path, out=tmp_path / "once.h5mu")
    assert own.spec is not None
    given = own.spec.as_dict()
    given["data"] = {**given["data"], "source": "h5mu", "path": str(tmp_path / "once.h5mu")}
    counted = source_of(nbridge.Spec.model_validate(given)).load({name: (size,) for name, size in SHAPES.items()}).imputed
    assert counted == {"rna": 0, "prot": 17, "stage": 5, "age": 6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x_1,x_2,y,y__imputed\n1,2,0,maybe\n", "column 'y__imputed': row 0 (line 2) holds \"maybe\", expected 1 or 0"),
        ("x_1,x_2,y,x__imputed\n1,2,0,0\n1,2,0,7\n", "column 'x__imputed': row 1 (line 3) holds \"7\", expected 1 or 0"),
    ],
)
def test_a_column_that_holds_no_marks_is_refused(text: str, message: str, tmp_path: Path, model: nbridge.Model):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        model.impute(tmp_path / "rows.csv", tmp_path / "done.csv")
    assert not (tmp_path / "done.csv").exists()


@pytest.mark.parametrize("marks", [np.zeros(ROWS - 1, bool), np.zeros((ROWS, 3), bool), np.full(ROWS, 2), np.array(["a"] * ROWS)])
def test_an_array_that_holds_no_marks_is_refused(marks: np.ndarray, model: nbridge.Model):
    with pytest.raises(DataError, match=r"^x__imputed: .*; rename it if it is something else$"):
        nbridge.Model(model.network).impute({"x": np.zeros((ROWS, 2)), "x__imputed": marks})


def test_marks_as_other_programs_write_them_are_read(tmp_path: Path, model: nbridge.Model):
    """True and False, and empty cells for rows that were appended from elsewhere, which are not marked."""
    (tmp_path / "rows.csv").write_text("x_1,x_2,y,y__imputed\n1,2,0,True\n1,2,0,False\n1,2,1,\n1,2,1,1.0\n")
    with pytest.warns(NBridgeWarning, match=r"filled: y \(2 rows\)"):
        model.impute(tmp_path / "rows.csv", tmp_path / "done.csv")
    assert pd.read_csv(tmp_path / "done.csv")["y__imputed"].tolist() == [1, 0, 0, 1]


def test_a_row_stands_for_all_its_cells():
    rng = np.random.default_rng(0)
    rows, cells = rng.random(9) > 0.5, rng.random((9, 2, 3)) > 0.5
    expected = np.stack([cells[row] | rows[row] for row in range(9)])
    np.testing.assert_array_equal(either(rows, cells), expected)
    np.testing.assert_array_equal(either(cells, rows), expected)


def test_embeddings_and_summaries_of_a_completed_file_say_so(
    tmp_path: Path, model: nbridge.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    frame().to_csv(tmp_path / "rows.csv", index=False)
    model.impute(tmp_path / "rows.csv", tmp_path / "once.csv")
    for use in (model.embed, model.summarise):
        with pytest.warns(NBridgeWarning, match=TEXT + "they count as observed$"):
            use(tmp_path / "once.csv")
    model.save(tmp_path / "model")
    code, _, error = in_this_process(monkeypatch, capsys, 200)(
        "embed", f"{tmp_path}/model", f"{tmp_path}/once.csv", "--out", f"{tmp_path}/codes.npz"
    )
    assert code == 0
    assert re.search(TEXT + "they count as observed\n", " ".join(error.split()) + "\n")


def test_evaluation_of_a_completed_file_says_so(tmp_path: Path, model: nbridge.Model):
    frame().to_csv(tmp_path / "rows.csv", index=False)
    model.impute(tmp_path / "rows.csv", tmp_path / "once.csv")
    with pytest.warns(NBridgeWarning, match=TEXT + "they are evaluated as if they were observed"):
        model.evaluate(tmp_path / "once.csv", Settings(metrics=("imputation",)))


def test_validation_of_data_says_the_same(tmp_path: Path, model: nbridge.Model):
    frame().to_csv(tmp_path / "rows.csv", index=False)
    model.impute(tmp_path / "rows.csv", tmp_path / "once.csv")
    found = check_data(nbridge.Spec.model_validate(spec({"source": "table", **COLUMNS}, tmp_path / "once.csv")))
    assert [text for text in found.warnings if re.match(TEXT, text)]


def test_schema_of_marks_is_stable_in_parquet(tmp_path: Path, model: nbridge.Model):
    frame().assign(y=["0", "1"] * (ROWS // 2)).to_parquet(tmp_path / "rows.parquet")
    model.impute(tmp_path / "rows.parquet", tmp_path / "once.parquet")
    with pytest.warns(NBridgeWarning):
        model.impute(tmp_path / "once.parquet", tmp_path / "twice.parquet")
    assert parquet.read_table(tmp_path / "once.parquet").equals(parquet.read_table(tmp_path / "twice.parquet"), check_metadata=True)


def test_an_array_named_like_a_modality_of_columns_is_refused(model: nbridge.Model):
    arrays = {name: array for name, array in arrays_of(frame()).items() if name != "id"}
    with pytest.raises(DataError, match=re.escape("'x': expected the columns of modality 'x' one by one (x_1, x_2), or rename it")):
        model.impute(arrays)


def test_drafts_take_nothing_that_an_earlier_imputation_wrote_for_data(tmp_path: Path):
    rows, model = frame(), nbridge.Model.from_spec(nbridge.Spec.model_validate(spec({"source": "npz"}, Path("rows.npz"))))
    arrays = {name: array for name, array in arrays_of(rows).items() if name != "id"}
    np.savez(tmp_path / "rows.npz", **model.impute(arrays, intervals=(0.5, 0.9)))
    found = nbridge.init(tmp_path / "rows.npz")
    assert list(found.spec.modalities) == ["x", "y"]
    added = "x__imputed, x__mean, x__sd, x__lower, x__upper, y__imputed, y__probability"
    assert found.remarks == (f"left out: {added}: describes other arrays",)
    table = rows[["x_1", "x_2"]].assign(**{"x_1__lower_0.9": rows["x_2"] - 1, "x_1__imputed": 0, "x_1__low": rows["x_2"]})
    table.to_csv(tmp_path / "rows.csv", index=False)
    modalities = nbridge.init(tmp_path / "rows.csv").spec.modalities.values()
    assert sorted(column for one in modalities for column in one.likelihood.kwargs["columns"]) == ["x_1", "x_1__low", "x_2"]
