"""Classes whose accents are composed in some rows and decomposed in others: one class, wherever they are and whatever is done with them."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from completing import impute_rows
from pyarrow import parquet

import nbridge
from nbridge.data.numpy.npz import NPZ
from nbridge.data.omics.source import MuDataSource
from nbridge.data.source import open_data
from nbridge.data.tables.cells import MISSING, ordered_classes, read_cells
from nbridge.data.tables.source import Table
from nbridge.draft.checks import check_data
from nbridge.draft.draft import init
from nbridge.errors import DataError

ROWS = 60
CLASSES = ("na\u00efve", "treated", "\u00e9tude")
FEW = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
KINDS = np.arange(ROWS) % 3


def apart(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def spelt() -> list[str]:
    """A class in each row, spelt in both ways; the first two rows have none."""
    return ["", "", *(CLASSES[kind] if row % 2 else apart(CLASSES[kind]) for row, kind in enumerate(KINDS))][:ROWS]


def columns() -> dict[str, Any]:
    return {"kind": spelt(), "x": np.random.default_rng(0).normal(size=ROWS).round(3).tolist()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def written(name: str) -> str:
    cells = columns()
    if name.endswith(".parquet"):
        texts = pa.array([text or None for text in cells["kind"]])
        table = pa.table({"kind": texts.dictionary_encode() if name.startswith("dictionary") else texts, "x": cells["x"]})
        parquet.write_table(table, name)
    elif name.endswith(".npz"):
        np.savez(name, kind=np.array(cells["kind"]), x=np.array(cells["x"])[:, None])
    else:
        lines = [f"{kind},{x}" for kind, x in zip(cells["kind"], cells["x"], strict=True)]
        Path(name).write_text("\n".join(["kind,x", *lines, ""]), encoding="utf-8")
    return name


def read(name: str) -> list[str]:
    if name.endswith(".parquet"):
        return parquet.read_table(name).column("kind").to_pylist()
    if name.endswith(".npz"):
        return np.load(name)["kind"].tolist()
    return [line.partition(",")[0] for line in Path(name).read_text(encoding="utf-8").splitlines()[1:]]


def classes_of(spec: nbridge.Spec) -> int:
    """The number of classes of `kind`, a modality or a column of a table."""
    if "kind" in spec.modalities:
        return spec.modalities["kind"].shape[0]
    (table,) = spec.modalities.values()
    return table.likelihood.kwargs["columns"]["kind"].classes


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "dictionary.parquet", "rows.npz"])
def test_a_file_is_drafted_trained_on_checked_and_imputed_as_of_three_classes(name: str):
    found = init([written(name)])
    assert list(found.spec.data.source.kwargs["classes"]["kind"]) == list(CLASSES)
    assert classes_of(found.spec) == 3
    assert check_data(found.spec).errors == ()
    run = nbridge.train({**found.spec.as_dict(), "training": FEW})
    assert run.splits.test is not None
    done = f"done{Path(name).suffix}"
    impute_rows(run.model, name, done)
    assert read(done)[2:] == spelt()[2:]
    assert {unicodedata.normalize("NFC", text) for text in read(done)[:2]} <= set(CLASSES)


def test_rows_are_numbers_of_classes_whichever_way_a_spec_spells_them():
    written("rows.csv")
    written("rows.npz")
    present = [False, False, *[True] * (ROWS - 2)]
    expected = [0, 0, *KINDS[: ROWS - 2].tolist()]
    for classes in (CLASSES, tuple(map(apart, CLASSES)), None):
        listed: Any = {"kind": classes} if classes else None
        batch = Table(path="rows.csv", classes=listed).load({"kind": (3,)}).batch.sample()
        assert batch.present["kind"].tolist() == present
        places = dict(zip(CLASSES if classes else ordered_classes(CLASSES), range(3), strict=True))
        wanted = [places[CLASSES[number]] if there else 0 for number, there in zip(expected, present, strict=True)]
        assert batch.values["kind"].tolist() == wanted
        if classes:
            own = NPZ(path="rows.npz", classes={"kind": list(classes)}).load({"kind": (3,)}).batch.sample()
            assert own.values["kind"].tolist() == wanted


def test_a_class_that_is_listed_in_both_spellings_is_listed_twice():
    written("rows.csv")
    with pytest.raises(DataError, match="duplicate class"):
        Table(path="rows.csv", classes={"kind": (CLASSES[0], apart(CLASSES[0]), "treated")}).load({"kind": (3,)})


def test_a_text_of_absence_counts_in_both_spellings():
    markers = ("\u00e9", apart("\u00e9"))
    Path("rows.csv").write_text("\n".join(["x", "1", *markers, "2", ""]), encoding="utf-8")
    for marker in markers:
        batch = Table(path="rows.csv", missing=(marker,)).load({"x": (1,)}).batch
        assert batch.present["x"].tolist() == [True, False, False, True]


def frames() -> dict[str, Any]:
    cells = {**columns(), "kind": [text or None for text in spelt()]}
    used = [apart(text) for text in CLASSES]
    whole = pd.DataFrame(cells)
    one = [None if text is None else apart(text) for text in cells["kind"]]
    return {
        "pandas": whole,
        "pandas categories": whole.assign(kind=pd.Categorical(cells["kind"])),
        "pandas declared": whole.assign(kind=pd.Categorical(one, categories=used)),
        "polars": pl.DataFrame(cells),
        "polars enum": pl.DataFrame({**cells, "kind": pl.Series(one, dtype=pl.Enum(used))}),
        "arrow": pa.table(cells),
        "arrays": {"kind": np.array(spelt()), "x": np.array(cells["x"])},
    }


@pytest.mark.parametrize("kind", list(frames()))
def test_a_frame_keeps_its_type_and_what_was_observed(kind: str):
    frame = frames()[kind]
    found = init(frame)
    assert classes_of(found.spec) == 3
    model = nbridge.train({**found.spec.as_dict(), "training": FEW}, data=frame).model
    done = model.impute(frame)
    before, after = (_texts(one) for one in (frame, done))
    assert after[2:] == before[2:]
    assert {unicodedata.normalize("NFC", text) for text in after[:2]} <= set(CLASSES)
    if kind in ("pandas declared", "polars enum"):
        assert set(after[:2]) <= set(map(apart, CLASSES))
    if kind == "polars enum":
        assert done.schema["kind"] == frame.schema["kind"]


def _texts(frame: Any) -> list[Any]:
    column = frame["kind"]
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


@pytest.mark.parametrize("categories", [False, True])
def test_columns_of_obs_are_of_three_classes(categories: bool):
    texts = [text or None for text in spelt()]
    values: Any = pd.Categorical(texts) if categories else np.array(texts, dtype=object)
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    adata = anndata.AnnData(x, obs=pd.DataFrame({"kind": values}, index=[f"c{row}" for row in range(ROWS)]))
    assert init(adata).spec.modalities["kind"].shape == (3,)
    for classes in (None, {"kind": CLASSES}, {"kind": tuple(map(apart, CLASSES))}):
        batch = MuDataSource(keys={"kind": "obs/kind"}, classes=classes).with_rows(open_data(adata)).load({"kind": (3,)}).batch.sample()
        assert batch.present["kind"].sum() == ROWS - 2
        groups = [set(KINDS[: ROWS - 2][batch.values["kind"][2:].numpy() == number].tolist()) for number in range(3)]
        assert sorted(map(len, groups)) == [1, 1, 1]
        if classes:
            assert groups == [{0}, {1}, {2}]


def test_cells_are_read_alike():
    texts = [" na\u00efve ", apart("na\u00efve"), "", "treated"]
    found = torch.from_numpy(read_cells("kind", texts, ("treated", apart("na\u00efve")), MISSING, str))
    assert found[[0, 1, 3]].tolist() == [1, 1, 0]
    assert found[2].isnan()
    assert ordered_classes(texts) == ("", "na\u00efve", "treated")
