"""In csv files some words mark absent cells, and drafts name them; in typed data only null and NaN do, and every text is a value."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nbridge
from nbridge.data.batch import Batch
from nbridge.data.omics.source import H5MU
from nbridge.data.tables.frame_source import FrameSource
from nbridge.data.tables.source import Table
from nbridge.sklearn import NBridgeImputer

REGIONS = ["EU", "NA", "ZA", None] * 15
SHAPES = {"region": (3,)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns() -> pd.DataFrame:
    return pd.DataFrame({"region": REGIONS, "x": np.linspace(0, 1, len(REGIONS)) ** 2})


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(lambda table: table, id="pandas"),
        pytest.param(lambda table: table.astype({"region": "category"}), id="categories"),
        pytest.param(lambda table: table.astype({"region": "string"}), id="strings"),
        pytest.param(pl.from_pandas, id="polars"),
        pytest.param(pa.Table.from_pandas, id="arrow"),
    ],
)
def test_a_text_of_typed_data_is_a_value(here: Path, frame):
    rows = frame(columns())
    found = nbridge.init(rows)
    (table,) = found.spec.modalities.values()
    assert table.likelihood.kwargs["columns"]["region"].classes == 3
    assert list(found.spec.data.source.kwargs["classes"]["region"]) == ["EU", "NA", "ZA"]
    assert found.empty == {"region": 15}
    assert not found.spec.data.source.kwargs["missing"]
    assert any('"NA" in 15 rows is a class' in remark for remark in found.remarks)
    pq.write_table(pa.Table.from_pandas(columns()), here / "rows.parquet")
    for source in (Table(path="rows.parquet"), FrameSource.over(rows, None)):
        batch = source.load(SHAPES).batch
        assert isinstance(batch, Batch)
        assert batch.values["region"][:4].tolist()[:3] == [0, 1, 2]
        assert (~batch.present["region"]).nonzero().flatten().tolist() == list(range(3, 60, 4))


def test_imputation_leaves_a_class_spelt_like_absence_as_it_is():
    rows = columns()
    found = nbridge.init(rows)
    model = nbridge.train({**found.spec.as_dict(), "training": {"updates": 2}}, data=rows).model
    done = model.impute(rows)
    known = rows["region"].notna()
    assert (done["region"][known] == rows["region"][known]).all()
    assert done["region"].notna().all()


def test_words_that_mark_absence_in_csv_are_named_with_their_columns(here: Path):
    rows = columns().assign(y=[*["n/k"] * 5, *range(55)])
    rows.to_csv("rows.csv", index=False)
    found = nbridge.init("rows.csv")
    assert list(found.spec.data.source.kwargs["missing"]) == ["NA", "n/k"]
    text = " ".join(found.text.replace("#", " ").split())
    assert 'words taken for absent cells, with the number of rows: "NA" in region (15); "n/k" in y (5)' in text
    assert 'region: "NA" in 15 rows is taken for absent; if it is a class, add it to data.classes' in found.remarks
    # Two regions and empty cells are left, until NA is listed.
    assert found.empty["region"] == 30
    listed = Table(path="rows.csv", classes={"region": ("EU", "NA", "ZA")}).load(SHAPES).batch
    assert int(listed.present["region"].sum()) == 45


def test_a_column_whose_only_other_word_marks_absence_is_left_out_with_that_reason(here: Path):
    Path("rows.csv").write_text("use,x\n" + "".join(f"{'NA' if row % 3 else 'yes'},{row / 7}\n" for row in range(60)))
    (remark,) = [remark for remark in nbridge.init("rows.csv").remarks if "use" in remark]
    assert remark == "left out: use: holds 'yes' alone, beside \"NA\", taken for absent cells"


@pytest.mark.parametrize("word", ["None", "n/a", "<NA>", "?", "missing"])
def test_classes_that_often_mark_absence_are_doubted(here: Path, word: str):
    rows = pd.DataFrame({"stage": ["a", "b", word] * 20, "x": np.linspace(0, 1, 60) ** 2})
    rows.to_csv("rows.csv", index=False)
    expected = f'stage: "{word}" in 20 rows is a class; if it marks absent cells, data.missing: ["{word}"]'
    assert expected in nbridge.init("rows.csv").remarks
    assert expected in nbridge.init(rows).remarks
    data = anndata.AnnData(np.linspace(0, 1, 120).reshape(60, 2), obs=rows[["stage"]].set_index(pd.Index(map(str, range(60)))))
    assert any(f'"{word}" is a class' in remark for remark in nbridge.init(data).remarks)


def test_categories_named_like_absence_are_classes_of_omics(here: Path):
    obs = pd.DataFrame({"region": pd.Categorical(REGIONS)}, index=pd.Index(map(str, range(60))))
    anndata.AnnData(np.linspace(0, 1, 120).reshape(60, 2), obs=obs).write_h5ad("rows.h5ad")
    found = nbridge.init("rows.h5ad")
    assert list(found.spec.data.source.kwargs["classes"]["region"]) == ["EU", "NA", "ZA"]
    batch = H5MU(path="rows.h5ad", keys={"region": "obs/region"}).load(SHAPES).batch
    assert int(batch.present["region"].sum()) == 45


def test_words_that_mark_absence_in_arrays_of_text_are_named(here: Path):
    texts = np.array(["" if text is None else text for text in REGIONS], dtype="U4")
    texts[2::8] = "None"
    np.savez("rows.npz", region=texts, x=np.linspace(0, 1, 60) ** 2)
    found = nbridge.init("rows.npz")
    taken = 'region: "NA" in 15 rows is taken for absent; if it is a class, add it to data.classes'
    doubted = 'region: "None" in 8 rows is a class; if it marks absent cells, write an empty text in its place'
    assert found.remarks == (taken, doubted)
    assert found.empty == {"region": 30}
    content = found.spec.as_dict()
    content["data"]["classes"], content["modalities"]["region"]["shape"] = {"region": ["EU", "NA", "None", "ZA"]}, 4
    model = nbridge.train({**content, "training": {"updates": 2}}).model
    done = model.impute(dict(np.load("rows.npz")))["region"]
    assert (done[texts != ""] == texts[texts != ""]).all()


@pytest.mark.parametrize("frame", [lambda table: table, pl.from_pandas, pa.Table.from_pandas], ids=["pandas", "polars", "arrow"])
def test_empty_texts_of_typed_data_are_absent_and_said_so(here: Path, frame):
    rows = columns().assign(region=["EU", "", "ZA", None] * 15)
    expected = "region: an empty text in 15 rows is taken for absent; if it is a class, write a word in its place"
    assert expected in nbridge.init(frame(rows)).remarks
    rows.to_parquet("rows.parquet")
    found = nbridge.init("rows.parquet")
    assert expected in found.remarks
    assert not found.spec.data.source.kwargs["missing"]
    rows.to_csv("rows.csv", index=False)
    assert not any("empty text" in remark for remark in nbridge.init("rows.csv").remarks)


@pytest.mark.parametrize("frame", [lambda table: table, pl.from_pandas], ids=["pandas", "polars"])
def test_the_imputer_leaves_a_class_of_a_frame_as_it_is(frame):
    rows = columns()
    known = rows["region"].notna().to_numpy()
    done = NBridgeImputer(epochs=1, random_state=0).fit_transform(frame(rows))
    assert done[known, 0].tolist() == rows["region"][known].tolist()


def test_the_imputer_names_the_words_of_arrays_that_it_takes_for_missing():
    rows = columns().to_numpy(dtype=object)
    rows[3, 1] = "null"
    with pytest.warns(nbridge.NBridgeWarning) as caught:
        done = NBridgeImputer(epochs=1, random_state=0).fit_transform(rows)
    keep = "if it is a class, pass a data frame, in which only NaN and empty texts are missing"
    said = {str(one.message) for one in caught}
    assert {f'column 0: "NA" in 15 rows is taken for missing; {keep}', 'column 1: "null" in 1 row is taken for missing; write NaN'} <= said
    assert set(done[:, 0]) == {"EU", "ZA"}
