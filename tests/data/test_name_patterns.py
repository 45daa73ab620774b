"""Names with characters of patterns: a column or a variable that is called so is meant itself, wherever patterns are allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import commands
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import Call
from pyarrow import parquet

import nbridge
from nbridge.data.name_patterns import matching
from nbridge.data.omics.source import MuDataSource
from nbridge.data.source import open_data
from nbridge.data.tables.layout import expand
from nbridge.data.tables.parquet import Parquet
from nbridge.data.tables.source import Table
from nbridge.draft.draft import init
from nbridge.errors import DataError

ROWS = 40
NAMES = ("x*", "x1", "x?", "x[1]", "*")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def columns() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=ROWS).round(3).tolist() for name in NAMES}


def written(path: Path) -> str:
    cells = columns()
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(cells), path)
    else:
        path.write_text("\n".join([",".join(cells), *(",".join(map(str, row)) for row in zip(*cells.values(), strict=True)), ""]))
    return path.name


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_draft_of_such_columns_trains_and_imputes(here: Path, name: str, monkeypatch: Any, capsys: Any):
    call: Call = commands.in_this_process(monkeypatch, capsys, 120)
    written(here / name)
    short = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=1")]
    for words in (
        ("init", name),
        ("validate", "rows.yaml", "--data"),
        ("train", "rows.yaml", "--out", "run", "--no-report", *short),
        ("impute", "run", name, "--out", f"done{Path(name).suffix}"),
    ):
        code, _, err = call(*words)
        assert not code, err
    drafted = init([name]).spec.data.source.kwargs["columns"]
    assert sorted(column for named in drafted.values() for column in ([named] if isinstance(named, str) else named)) == sorted(NAMES)


def test_a_frame_with_such_columns_trains():
    frame = pd.DataFrame(columns())
    spec = {**init(frame).spec.as_dict(), "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
    assert nbridge.train(spec, data=frame).model.binding.source == "frame"


@pytest.mark.parametrize("source", [Table, Parquet])
def test_a_name_wins_over_a_pattern_and_a_pattern_still_matches(here: Path, source: type[Any]):
    path = written(here / "rows.parquet")
    cells = columns()

    def values(words: Any, width: int) -> list[list[float]]:
        found = source(path=path, columns={"m": words}).load({"m": (width,)}).batch.sample().values["m"]
        return found.T.tolist()

    for words, names in ((("x*",), ["x*"]), (("*",), ["*"]), (("x[1]",), ["x[1]"]), (("x[1]*",), ["x[1]"]), (("x*", "x1"), ["x*", "x1"])):
        assert values(words, len(names)) == [np.float32(cells[name]).tolist() for name in names]
    with pytest.raises(DataError, match=r"no column 'y\*' for modality 'm'"):
        values("y*", 1)


def test_a_column_that_ends_like_a_mask_is_taken_by_its_name_alone():
    assert expand("m", "a*", ["a1", "a1__imputed", "a2"]) == ("a1", "a2")
    assert expand("m", ["a*", "a1__imputed"], ["a*", "a1", "a1__imputed"]) == ("a*", "a1__imputed")


def test_variables_and_columns_of_obs_are_meant_themselves():
    rng = np.random.default_rng(0)
    variables = ["HLA-*", "HLA-A", "HLA-B"]
    adata = anndata.AnnData(rng.normal(size=(ROWS, 3)).astype(np.float32), var=pd.DataFrame(index=variables))
    adata.obs = pd.DataFrame(columns(), index=[f"c{row}" for row in range(ROWS)])
    shapes = {"gene": (1,), "lab": (2,), "one": (1,)}
    source = MuDataSource(
        keys={"gene": "X", "lab": ("obs/x*", "obs/x1"), "one": "obs/*"}, variables={"gene": "HLA-*"}
    ).with_rows(open_data(adata))  # fmt: skip
    batch = source.load(shapes).batch.sample()
    assert np.array_equal(batch.values["gene"][:, 0].numpy(), np.asarray(adata.X)[:, 0])
    assert batch.values["lab"].T.tolist() == [np.float32(columns()[name]).tolist() for name in ("x*", "x1")]
    assert batch.values["one"][:, 0].tolist() == np.float32(columns()["*"]).tolist()
    every = MuDataSource(keys={"gene": "X"}, variables={"gene": "HL*"}).with_rows(open_data(adata)).load({"gene": (3,)}).batch.sample()
    assert np.array_equal(every.values["gene"].numpy(), np.asarray(adata.X))


def test_only_stars_are_special():
    names = ["a.b", "a1b", "a?b", "a[1]b", "ab"]
    assert matching("a?b", ["a1b"]) == []
    assert matching("a.*", names) == ["a.b"]
    assert matching("a[*b", names) == ["a[1]b"]
    assert matching("*", names) == names
