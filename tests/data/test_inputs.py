"""What is given in the place of a file: a folder of parts is one table; a pipe, an address or an odd name is told in a line."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import Call
from omics import adata, joined
from omics import write as write_omics
from pyarrow import parquet

import nbridge
from nbridge.data import remote
from nbridge.data.folders import find_file, find_file_or_folder, find_folder
from nbridge.data.tables.source import Table
from nbridge.draft.draft import init
from nbridge.errors import DataError

ROWS = 60
FEW = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
SHORT = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=1")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return commands.in_this_process(monkeypatch, capsys, columns=200)


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    kinds = [None if row < 5 else ("u", "v", "w")[row % 3] for row in range(ROWS)]
    return pa.table({"x": rng.normal(size=ROWS), "n": rng.poisson(3, ROWS), "kind": kinds, "face": rng.normal(size=(ROWS, 3)).tolist()})


def in_parts(folder: Path, whole: pa.Table, cuts: tuple[int, ...] = (0, 25, 26, ROWS)) -> str:
    folder.mkdir()
    for number, (start, stop) in enumerate(pairwise(cuts)):
        parquet.write_table(whole.slice(start, stop - start), folder / f"part-{number}.parquet", row_group_size=7)
    (folder / "_SUCCESS").write_text("")
    return folder.name


def body(text: str) -> str:
    # The modality of a table has the name of its file.
    return text.partition("\ndata:")[2].replace("path: whole.parquet", "path: parts").replace("\n  whole:", "\n  parts:")


# Folders of parts


def test_a_folder_of_parts_is_one_table(here: Path):
    whole = table()
    parquet.write_table(whole, "whole.parquet")
    in_parts(here / "parts", whole)
    assert body(init(["parts"]).text) == body(init(["whole.parquet"]).text)
    shapes = {"x": (1,), "n": (1,), "kind": (3,), "face": (3,)}
    one, other = (Table(path=path).load(shapes).batch.sample() for path in ("whole.parquet", "parts"))
    for name in shapes:
        assert one.values[name].equal(other.values[name])
        assert one.present[name].equal(other.present[name])


def test_the_commands_take_it_and_each_part_is_filled_in_by_itself(here: Path, call: Call):
    in_parts(here / "parts", table())
    for words in (
        ("init", "parts"),
        ("validate", "parts.yaml", "--data"),
        ("train", "parts.yaml", "--out", "run", "--no-report", *SHORT),
        ("impute", "run", "parts/part-0.parquet", "--out", "done.parquet"),
    ):
        code, _, err = call(*words)
        assert not code, err
    code, _, err = call("impute", "run", "parts", "--out", "done")
    assert (code, err) == (
        2,
        "parts: a folder of 3 Parquet files; impute them one at a time, such as part-0.parquet\n",
    )


def test_parts_may_differ_in_the_width_of_their_types(here: Path):
    (here / "parts").mkdir()
    parquet.write_table(pa.table({"x": pa.array([1, 2], pa.int32()), "k": pa.nulls(2)}), "parts/a.parquet")
    parquet.write_table(pa.table({"k": ["u", "v"], "x": pa.array([0.5, None], pa.float64())}), "parts/b.parquet")
    batch = Table(path="parts").load({"x": (1,), "k": (2,)}).batch
    assert batch.sample().values["x"][:, 0].tolist() == [1, 2, 0.5, 0]
    assert batch.present["x"].tolist() == [True, True, True, False]
    assert batch.present["k"].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": [1.0]}, "lacks column 'k', unlike a.parquet; expected parts of one table, of the same columns"),
        ({"x": [1.0], "k": ["u"], "z": [1]}, "has column 'z', unlike a.parquet; expected parts of one table, of the same columns"),
        ({"x": ["one"], "k": ["u"]}, "column 'x' of type string, but double in a.parquet; expected parts of one table, of the same types"),
    ],
)
def test_parts_of_different_tables_are_told(here: Path, other: dict[str, Any], message: str):
    (here / "parts").mkdir()
    parquet.write_table(pa.table({"x": [1.0], "k": ["u"]}), "parts/a.parquet")
    parquet.write_table(pa.table(other), "parts/b.parquet")
    with pytest.raises(DataError) as found:
        init(["parts"])
    assert str(found.value) == f"{here / 'parts' / 'b.parquet'}: {message}"


def test_a_mistake_in_a_part_names_the_part_and_its_row(here: Path):
    (here / "parts").mkdir()
    parquet.write_table(pa.table({"x": [1.0, 2.0], "y": [0.5, 0.1]}), "parts/a.parquet")
    parquet.write_table(pa.table({"x": [1.0, -2.0], "y": [0.5, 0.1]}), "parts/b.parquet")
    part = {"encoder": "mlp", "shape": 1}
    modalities = {"x": {**part, "likelihood": "negative_binomial"}, "y": {**part, "likelihood": "normal"}}
    with pytest.raises(DataError, match=r"modality 'x', column 'x', row 1 of b\.parquet: value -2"):
        nbridge.train({"data": {"source": "table", "path": "parts"}, "modalities": modalities, "training": FEW})


# Pipes and addresses


@pytest.fixture
def pipe(here: Path) -> str:
    os.mkfifo(here / "pipe.csv")
    return "pipe.csv"


ADDRESSES = ["-", "/dev/stdin", "/dev/fd/0", "https://example.org/rows.csv", "s3://bucket/rows.parquet", "file:///rows.npz"]


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without fsspec, so that no URL is ever opened here."""
    monkeypatch.setattr(remote, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_extra")
@pytest.mark.parametrize("find", [find_file, find_folder, find_file_or_folder])
@pytest.mark.parametrize("path", [*ADDRESSES, "pipe.csv"])
def test_what_is_no_file_is_told_before_it_is_read(pipe: str, find: Any, path: str):
    with pytest.raises(DataError) as found:
        find(path)
    line = str(found.value)
    assert line.startswith(f"{path}: ")
    assert ("download it" in line) == (":/" in path)
    assert ("save it to a file" in line) == (":/" not in path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained from a csv file."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    (folder / "rows.csv").write_text("\n".join(["x,y", *(f"{x:.2f},{y:.2f}" for x, y in rng.normal(size=(ROWS, 2))), ""]))
    spec = init([str(folder / "rows.csv")]).spec.as_dict()
    nbridge.train({**spec, "training": FEW}, out=folder / "run")
    return folder / "run"


@pytest.mark.usefixtures("no_extra")
@pytest.mark.parametrize("path", [*ADDRESSES, "pipe.csv"])
def test_every_command_tells_it_in_one_line(pipe: str, call: Call, run: Path, path: str):
    Path("spec.yaml").write_text(
        f"data: {{source: table, path: '{path}'}}\nlatent_dim: 2\n"
        "modalities:\n  x: {shape: 1, encoder: mlp, likelihood: normal}\n  y: {shape: 1, encoder: mlp, likelihood: normal}\n"
    )
    for words in (
        ("init", path, "--out", "new.yaml"),
        ("validate", "spec.yaml", "--data"),
        ("train", "spec.yaml", "--out", "new"),
        ("impute", str(run), path, "--out", "done.csv"),
        ("impute", str(run), path, "--to", "done"),
        ("embed", str(run), path, "--out", "codes.npz"),
    ):
        code, _, err = call(*words)
        (line,) = err.splitlines()
        assert code == 2, words
        assert line.removeprefix("error: ").startswith(f"{path}: "), (words, line)
        assert "expected a file; " in line
    assert sorted(one.name for one in Path().iterdir()) == ["pipe.csv", "spec.yaml"]


def test_an_older_draft_is_no_hindrance_to_a_file_that_is_missing(call: Call):
    Path("rows.yaml").write_text("")
    code, _, err = call("init", "rows.csv", "--overwrite")
    assert code == 2
    assert err.startswith("rows.csv: no such file or folder in ")


# Names


@pytest.mark.parametrize("name", ["obs", "X", "layers", "obsm"])
def test_a_modality_that_is_called_as_a_place_is_told(here: Path, name: str):
    rng = np.random.default_rng(0)
    names = [f"c{row}" for row in range(ROWS)]
    parts = {one: adata(rng.normal(size=(ROWS, 2)).astype(np.float32), names, [f"{one}1", f"{one}2"]) for one in (name, "prot")}
    data = joined(parts, pd.DataFrame({"stage": ["a", "b"] * (ROWS // 2)}, index=names))
    write_omics(here / "cells.h5mu", data)
    message = f"modality '{name}' has the name of a slot (X, layers, obsm, obs)"
    for given, origin in ((data, "MuData object"), ("cells.h5mu", f"{here / 'cells.h5mu'}")):
        with pytest.raises(DataError) as found:
            init(given)
        assert str(found.value).startswith(f"{origin}: {message}")
        assert len(str(found.value).splitlines()) == 1
        assert "rename it" in str(found.value)
