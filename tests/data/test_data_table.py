"""Tables of single values: what becomes of cells, how files are joined, what is wrong with each that does not fit, and what is written."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from completing import impute_rows
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import nbridge
from nbridge.data.source import Binding
from nbridge.data.tables.csv import CsvFile, split_text
from nbridge.data.tables.source import Table
from nbridge.errors import DataError
from nbridge.inference.complete import Completed
from nbridge.inference.served import Served
from nbridge.training.build import settle

NAN = math.nan
TEXT = """id,age,sex,stage,lab_1,lab_2,note
a,71,f,II,1.50,2,x
b,,m,I,,,"one, ""two\"""
c,63.0,NA,II,0.25,,y
d,58,f,,-3.00,7,
"""
SHAPES = {"clinical": (2,), "stage": (2,), "lab": (2,)}
COLUMNS: dict[str, Any] = {"clinical": ("age", "sex"), "lab": "lab_*"}
CLASSES: dict[str, Any] = {"sex": ("f", "m")}
ABSENT = "leave absent cells empty"
FINITE = f"expected a finite number, or data.classes to list the classes of this column; {ABSENT}"
LISTED = "a class that data.classes does not list; it lists {}. Leave absent cells empty."
SOME = "Add it, with empty cells for absent values; a file may lack all columns of a modality, not some"
RESHAPE = "; write shape: {}, or list the classes in data.classes"


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return write(tmp_path / "rows.csv")


def write(path: Path, text: str | bytes = TEXT) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(path: str = "rows.csv", **options: Any) -> Table:
    return Table(path=path, columns=COLUMNS, classes=CLASSES, **options)


# Reading


def test_cells_are_numbers_and_classes_and_empty_ones_are_absent(path: Path):
    dataset = table().load(SHAPES)
    batch = dataset.batch
    assert isinstance(batch, nbridge.Batch)
    assert batch.values["clinical"].tolist() == [[71, 0], [0, 1], [63, 0], [58, 0]]
    assert batch.cells["clinical"].tolist() == [[True, True], [False, True], [True, False], [True, True]]
    assert (batch.values["stage"].tolist(), batch.present["stage"].tolist()) == ([1, 0, 1, 0], [True, True, True, False])
    assert batch.values["lab"].tolist() == [[1.5, 2], [0, 0], [0.25, 0], [-3, 7]]
    assert batch.present["lab"].tolist() == [True, False, True, True]
    assert dataset.ids is not None
    assert dataset.ids.tolist() == ["a", "b", "c", "d"]


SPELLINGS = {
    "rows.csv": TEXT.encode(),
    "windows.csv": TEXT.replace("\n", "\r\n").encode(),
    "excel.csv": b"\xef\xbb\xbf" + TEXT.encode(),
    "rows.csv.gz": gzip.compress(TEXT.encode()),
    "no end.csv": TEXT.rstrip("\n").encode(),
    "blank lines.csv": TEXT.replace("\n", "\n\n").encode(),
    "ünïcode ✓.csv": TEXT.encode(),
    "rows.tsv": "\n".join("\t".join(row) for row in csv.reader(io.StringIO(TEXT))).encode(),
    "semicolons.csv": re.sub(r',(?! "")', ";", TEXT).encode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_table_is_the_same_however_it_is_spelt(path: Path, name: str):
    write(path.parent / name, SPELLINGS[name])
    one, other = table().load(SHAPES), table(name).load(SHAPES)
    assert isinstance(one.batch, nbridge.Batch)
    assert isinstance(other.batch, nbridge.Batch)
    for part in ("values", "present", "cells"):
        for modality, tensor in getattr(one.batch, part).items():
            assert torch.equal(tensor, getattr(other.batch, part)[modality])
    assert np.array_equal(one.ids, other.ids)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_parquet_file_of_single_values_is_the_same_table(path: Path):
    parquet.write_table(
        pa.table({
            "lab_2": pa.array([2, None, None, 7], pa.int16()), "lab_1": [1.5, NAN, 0.25, -3.0], "age": [71.0, None, 63, 58],
            "sex": pa.array(["f", "m", None, "f"]).dictionary_encode(), "stage": ["II", "I", "II", None], "id": ["a", "b", "c", "d"],
        }),
        "rows.parquet",
    )  # fmt: skip
    one = table().load(SHAPES).batch
    other = Table(path="rows.parquet", columns={**COLUMNS, "lab": ("lab_1", "lab_2")}, classes=CLASSES).load(SHAPES).batch
    for name in SHAPES:
        assert torch.equal(one.sample().values[name], other.sample().values[name])
        assert torch.equal(one.present[name], other.present[name])


def test_more_than_two_classes_among_other_columns_are_one_hot(path: Path):
    write(path, "colour,weight\nred,1\nblue,2\n,3\ngreen,\n")
    batch = (
        Table(path="rows.csv", columns={"x": ("colour", "weight")}, classes={"colour": ("blue", "green", "red")}).load({"x": (4,)}).batch
    )
    assert batch.sample().values["x"].tolist() == [[0, 0, 1, 1], [1, 0, 0, 2], [0, 0, 0, 3], [0, 1, 0, 0]]
    assert batch.sample().cells["x"].tolist() == [[True] * 4, [True] * 4, [False] * 3 + [True], [True] * 3 + [False]]


def test_numbers_are_classes_however_they_are_spelt_and_na_may_be_one(path: Path):
    write(path, "grade,region\n1.0,NA\n3,EU\n2,\n")
    found = Table(path="rows.csv", classes={"grade": (1, 2, 3), "region": ("EU", "NA")}).load({"grade": (3,), "region": (2,)}).batch
    assert found.sample().values["grade"].tolist() == [0, 2, 1]
    assert found.present["region"].tolist() == [True, True, False]


def test_huge_numbers_are_classes_as_well(path: Path):
    write(path, "key,x\n99999999999999999999999,1\n-5,2\n99999999999999999999999,3\n,4\n")
    source = Table(path="rows.csv")
    assert source.bind({"key": (2,)})["classes"] == {"key": ("-5", "99999999999999999999999")}
    assert source.load({"key": (2,)}).batch.sample().values["key"].tolist() == [1, 0, 1, 0]


def test_a_column_without_a_name_is_one(path: Path):
    write(path, ",x,nan\n0,1,NAN\n1,2,3\n")
    batch = Table(path="rows.csv").load({"x": (1,), "nan": (1,)}).batch
    assert batch.present["nan"].tolist() == [False, True]
    assert Table(path="rows.csv", columns={"x": ("", "x")}).load({"x": (2,)}).batch.sample().values["x"].tolist() == [[0, 1], [1, 2]]


def test_further_texts_mark_absent_cells_where_the_spec_says_so(path: Path):
    write(path, "x,y\n1,unknown\n-999,2\n")
    batch = Table(path="rows.csv", missing=(-999, "unknown")).load({"x": (1,), "y": (1,)}).batch
    assert (batch.present["x"].tolist(), batch.present["y"].tolist()) == ([True, False], [False, True])


def test_files_are_joined_on_identifiers_and_rows_of_either_are_kept(path: Path):
    write(path.parent / "one.csv", "sample,x\ns2,2\ns1,1\n")
    write(path.parent / "other.csv", "y,sample\n30,s3\n10,s1\n")
    dataset = Table(path=("one.csv", "other.csv"), id="sample").load({"x": (1,), "y": (1,)})
    assert dataset.ids is not None
    assert dataset.ids.tolist() == ["s2", "s1", "s3"]
    batch = dataset.batch.sample()
    assert (batch.values["x"].flatten().tolist(), batch.present["x"].tolist()) == ([2, 1, 0], [True, True, False])
    assert (batch.values["y"].flatten().tolist(), batch.present["y"].tolist()) == ([0, 10, 30], [False, True, True])


# What a model keeps


def spec_of(columns: Any, classes: Any = None, shapes: Any = None, likelihoods: Any = None) -> nbridge.Spec:
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    kinds = {"clinical": "normal", "stage": "categorical", "lab": "normal", **(likelihoods or {})}
    return nbridge.Spec.model_validate(
        {
            "latent_dim": 2,
            "data": {"source": "table", "path": "rows.csv", "columns": columns, "classes": classes or {}, "validation": 0.0, "test": 0.0},
            "modalities": {name: {**part, "shape": shape, "likelihood": kinds[name]} for name, shape in (shapes or SHAPES).items()},
            "fusion": {"hidden": [4]},
            "bridges": {"hidden": [4]},
            "training": {"batch_size": 4, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
        }
    )


def test_patterns_and_classes_are_written_out_for_the_model(path: Path):
    settled = settle(spec_of(COLUMNS, CLASSES)).data.source.kwargs
    assert settled["columns"] == {"clinical": ("age", "sex"), "stage": ("stage",), "lab": ("lab_1", "lab_2")}
    assert settled["classes"] == {"sex": ("f", "m"), "stage": ("I", "II")}
    write(path, TEXT.replace("II", "7").replace(",I,", ",10,"))
    assert settle(spec_of(COLUMNS, CLASSES)).data.source.kwargs["classes"]["stage"] == ("7", "10")
    write(path, TEXT.replace("II", "1").replace(",I,", ",0.0,"))
    assert settle(spec_of(COLUMNS, CLASSES)).data.source.kwargs["classes"]["stage"] == ("0", "1")


# What does not fit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, expected a header with the names of columns, and rows"),
        ("\n \n", "empty, expected a header with the names of columns, and rows"),
        (TEXT.splitlines()[0] + "\n", "no rows"),
        (TEXT.replace("lab_2", "lab_1"), "duplicate column 'lab_1' in the header"),
        ("1,2.5\n3,4\n", "the first line holds numbers (1, 2.5), expected a header with the names of columns"),
        (TEXT.replace("a,71", "a"), "row 0 (line 2) has 6 cells, expected 7, as the header has"),
        (TEXT.replace("d,58", 'd,"x\ny",58'), "row 3 (line 6) has 8 cells, expected 7, as the header has"),
        (TEXT.replace("63.0", '"63'), "line 5: not a row of a csv file (unexpected end of data)"),
        (TEXT.replace("63.0", "63,0").replace("0.25,", "0.25"), f"column 'sex': row 2 (line 4) holds \"0\", {LISTED.format('f, m')}"),
        (TEXT.replace("63.0", "old"), f"column 'age': row 2 (line 4) holds \"old\", {FINITE}"),
        (TEXT.replace("63.0", "6_3"), f"column 'age': row 2 (line 4) holds \"6_3\", {FINITE}"),
        (
            TEXT.replace("63.0", '"63,0"'),
            f"column 'age': row 2 (line 4) holds \"63,0\", expected a finite number with a decimal point; {ABSENT}",
        ),
        (TEXT.replace("63.0", "-inf"), f"column 'age': row 2 (line 4) holds \"-inf\", expected a finite number; {ABSENT}"),
        (TEXT.replace(",m,", ",x,"), f"column 'sex': row 1 (line 3) holds \"x\", {LISTED.format('f, m')}"),
        (
            TEXT.replace(",age", ",aged"),
            "no column 'age' for modality 'clinical'. Did you mean 'aged'? Found: aged, sex, stage, lab_1, lab_2, note",
        ),
        (TEXT.replace("lab_", "l"), "no column 'lab_*' for modality 'lab'. Found: age, sex, stage, l1, l2, note"),
        (
            TEXT.replace("II", "III").replace("d,58,f,", "d,58,f,V"),
            "column 'stage' has 3 classes (I, III, V), but modality 'stage' is of shape (2,)" + RESHAPE.format(3),
        ),
        (TEXT.replace("c,", "a,"), "column 'id': duplicate 'a' in row 0 (line 2) and row 2 (line 4)"),
        (TEXT.replace("c,", ","), "column 'id': row 2 (line 4) has none, expected an identifier in each row"),
        (TEXT.encode("utf-16"), "line 1: not text in UTF-8 (byte 0xff); save it again as CSV UTF-8"),
        (
            TEXT.replace("note", "lab__present").replace(",x\n", ",1\n").replace('"one, ""two"""', "1").replace(",y", ",1"),
            "column 'lab__present': row 1 (line 3) says that lab is present, but all its cells are empty",
        ),
        (
            TEXT.replace("note", "lab__present").replace(",x\n", ",0\n").replace('"one, ""two"""', "0").replace(",y", ",1"),
            "column 'lab__present': row 0 (line 2) says that lab is absent, but it has values; empty its cells, or set 1",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_told_in_a_line(path: Path, text: str | bytes, message: str):
    write(path, text)
    with refused(f"{path}: {message}"):
        table().load(SHAPES)


def test_a_truncated_gzip_is_told(path: Path):
    packed = gzip.compress(TEXT.encode() * 100)
    write(path.parent / "rows.csv.gz", packed[: len(packed) // 2])
    message = "not a gzip file, or truncated or damaged (Compressed file ended before the end-of-stream marker was reached)"
    with refused(f"{path.parent / 'rows.csv.gz'}: {message}"):
        table("rows.csv.gz").load(SHAPES)


def test_options_that_do_not_fit_are_told(path: Path):
    refusals: list[tuple[Any, Any, Any, str]] = [
        (
            {"clinical": "age"},
            {},
            {"clinical": (2,)},
            "column 'age' has 3 classes (58, 63.0, 71), but modality 'clinical' is of shape (2,)" + RESHAPE.format(3),
        ),
        ({"lab": "lab_*"}, {}, {"lab": (3,)}, "modality 'lab': 2 columns (lab_1, lab_2), but its shape is (3,); write shape: 2"),
        ({"lab": ("lab_*", "lab_1")}, {}, {"lab": (3,)}, "columns: modality 'lab': duplicate column 'lab_1'"),
        (
            {"lab": "lab_*", "age": "lab_1"},
            {},
            {"lab": (2,), "age": (1,)},
            "columns: column 'lab_1' is in modality 'lab' and in 'age', expected one of them",
        ),
        ({}, {"sex": ("f", "f")}, {"sex": (2,)}, "classes: column 'sex': duplicate class 'f'"),
        ({}, {"sex": ("f", "m")}, {"age": (1,)}, "classes: no column 'sex' in any modality. Found: age"),
        ({}, {"sex": ("f", "m", "x")}, {"sex": (2,)}, "classes: column 'sex' has 3, but modality 'sex' is of shape (2,)"),
        (
            {"x": ("age", "stage")},
            {"stage": ("I", "II", "III")},
            {"x": (2,)},
            "modality 'x': 2 columns (age, stage) of 4 elements with classes one-hot, but its shape is (2,); write shape: 4",
        ),
    ]
    for columns, classes, shapes, message in refusals:
        with pytest.raises(DataError, match=re.escape(message)):
            Table(path="rows.csv", columns=columns, classes=classes).load(shapes)
    with refused(f"{path}: no column 'sample'. Found: id, age, sex, stage, lab_1, lab_2, note"):
        table(id="sample").load(SHAPES)
    with refused(f"{write(path.parent / 'rows.txt')}: not a table by its name, which ends in .csv, .tsv, .csv.gz, .tsv.gz, .parquet"):
        table("rows.txt").load(SHAPES)


def test_files_that_cannot_be_joined_are_told(path: Path):
    one = write(path.parent / "one.csv", "id,x\ns1,1\n")
    other = write(path.parent / "other.csv", "id,y\nS1,1\n")
    shapes = {"x": (1,), "y": (1,)}
    with refused(f'{other}: no identifier in common with the other files ("S1" here, "s1" in {one}), so no row can be joined'):
        Table(path=("one.csv", "other.csv")).load(shapes)
    write(other, "id,y,x\ns1,1,2\n")
    with refused(f"{other}: column 'x' is in {one} as well; rename one of them"):
        Table(path=("one.csv", "other.csv")).load(shapes)
    write(other, "key,y\ns1,1\n")
    with refused(f"{other}: no column 'id' of identifiers, on which files are joined (data.id). Found: key, y"):
        Table(path=("one.csv", "other.csv")).load(shapes)


def test_lists_in_a_column_are_a_modality(path: Path):
    lists = pa.array([[1.0, 2.0], None, [3.0, None]])
    parquet.write_table(pa.table({"x": lists, "y": [1, 2, 3], "grid": [[[1, 2], [3, 4]], None, [[5, 6], [7, 8]]]}), "rows.parquet")
    batch = Table(path="rows.parquet").load({"x": (2,), "y": (1,), "grid": (1, 2, 2)}).batch.sample()
    assert batch.values["x"].tolist() == [[1, 2], [0, 0], [3, 0]]
    assert batch.cells["x"].tolist() == [[True, True], [False, False], [True, False]]
    assert batch.values["grid"][2].flatten().tolist() == [5, 6, 7, 8]
    assert batch.present["grid"].tolist() == [True, False, True]


def test_lists_that_do_not_fit_are_told(path: Path):
    found = path.parent / "rows.parquet"
    parquet.write_table(
        pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [1, 2], "ragged": [[1], [2, 3]], "words": [["a"], ["b"]],
                  "when": pa.array([0, 1], pa.timestamp("us", "UTC")), "far": [[1.0], [float("inf")]]}),
        found,
    )  # fmt: skip
    refusals: list[tuple[Any, Any, str]] = [
        ({}, {"x": (3,)}, f"{found}: column 'x': row 0 holds 2 values, expected 3"),
        ({}, {"ragged": (2,)}, f"{found}: column 'ragged': row 1 holds 2 values, but row 0 1; lists of one length are vectors of a "
         "modality"),
        ({}, {"words": (2,)}, f"{found}: column 'words' holds lists that are not of numbers (list<element: string>)"),
        ({}, {"when": (1,)}, f"{found}: column 'when' holds dates or times (timestamp[us, tz=UTC]), not numbers; convert them to days or "
         "seconds since one of them"),
        ({}, {"far": (1,)}, f"{found}: column 'far': row 1 holds an infinite number; null or NaN marks absent values"),
        ({"z": ("x", "y")}, {"z": (3,)}, "modality 'z': column 'x' holds lists, expected one column of lists, or several of single values"),
    ]  # fmt: skip
    for columns, shapes, message in refusals:
        with refused(message):
            Table(path="rows.parquet", columns=columns).load(shapes)


def test_a_damaged_parquet_file_is_told(path: Path):
    write(path.parent / "rows.parquet", "no table")
    with pytest.raises(DataError, match=r"rows\.parquet: not a parquet file, or truncated or damaged \("):
        Table(path="rows.parquet").load({"x": (1,)})


# Writing


@given(st.lists(st.lists(st.text(st.sampled_from('ab,;"\n é'), max_size=5), min_size=2, max_size=4), min_size=1, max_size=4))
def test_a_record_is_cut_into_its_cells_as_they_stand(rows: list[list[str]]):
    for values in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(values)
        cells = split_text(text.getvalue(), values, ",")
        assert ",".join(cells) == text.getvalue()
        assert len(cells) == len(values)


@pytest.fixture
def model(path: Path) -> tuple[nbridge.MultimodalVAE, Any]:
    torch.manual_seed(0)
    spec = settle(spec_of(COLUMNS, CLASSES))
    shapes = {name: modality.shape for name, modality in spec.modalities.items()}
    return nbridge.train(spec).model.network, Binding("table", spec.data.source.kwargs, shapes)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


def test_what_was_observed_is_written_to_the_letter(path: Path, model: Any):
    network, layout = model
    told = impute_rows(Served(network, layout), "rows.csv", "out.csv")
    assert told == Completed(0, 4, 4, {"clinical": 2, "stage": 1, "lab": 2}, ("id", "note"), told.warnings)
    written = list(csv.reader(Path("out.csv").read_text().splitlines()))
    assert written[0][:7] == TEXT.splitlines()[0].split(",")
    masks = ["age__imputed", "sex__imputed", "stage__imputed", "lab_1__imputed", "lab_2__imputed"]
    assert written[0][7:] == masks
    given_rows = list(csv.reader(io.StringIO(TEXT)))
    for row, before in zip(written[1:], given_rows[1:], strict=True):
        flags = dict(zip(masks, row[7:], strict=True))
        for column, cell, was in zip(written[0], row, before, strict=False):
            absent = was in ("", "NA") and column != "note"
            assert flags.get(f"{column}__imputed", "0") == str(int(absent))
            assert (cell != "") if absent else cell == was
    assert lines(Path("out.csv"))[2].split(",I,")[1].endswith('"one, ""two""",1,0,0,1,1')
    # Whole where the column is whole, as many decimals as its neighbours, one of the classes.
    assert re.fullmatch(r"\d+\.0", written[2][1])
    assert re.fullmatch(r"-?\d+\.\d\d", written[2][4])
    assert re.fullmatch(r"-?\d+", written[2][5])
    assert written[3][2] in ("f", "m")
    assert written[4][3] in ("I", "II")


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_file_is_written_as_it_was_spelt(path: Path, model: Any, name: str):
    network, layout = model
    source, target = write(path.parent / name, SPELLINGS[name]), path.parent / f"out {name}"
    impute_rows(Served(network, layout), source, target)
    one, other = CsvFile(source), CsvFile(target)
    assert (other.bom, other.newline, other.delimiter) == (one.bom, one.newline, one.delimiter)
    assert other.columns[:7] == one.columns
    assert [record.values[0] for record in other.records()] == ["a", "b", "c", "d"]
    again = path.parent / f"again {name}"
    assert impute_rows(Served(network, layout), target, again).imputed == {"clinical": 0, "stage": 0, "lab": 0}
    assert [record.values[:7] for record in CsvFile(again).records()] == [record.values[:7] for record in other.records()]


def test_columns_count_by_name_and_a_modality_may_be_missing(path: Path, model: Any):
    network, layout = model
    impute_rows(Served(network, layout), "rows.csv", "whole.csv")
    moved = [[row[place] for place in (6, 4, 3, 5, 2, 1, 0)] for row in csv.reader(io.StringIO(TEXT))]
    write(path.parent / "moved.csv", "\n".join(",".join(row[1:]) for row in moved))
    impute_rows(Served(network, layout), "moved.csv", "moved out.csv")
    one, other = (list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("whole.csv", "moved out.csv"))
    assert [{**row, "note": ""} for row in one] == [{**row, "note": ""} for row in other]
    write(path.parent / "few.csv", "age,sex\n71,f\n,m\n")
    impute_rows(Served(network, layout), "few.csv", "few out.csv")
    header, *rows = csv.reader(Path("few out.csv").read_text().splitlines())
    assert header == ["age", "sex", "stage", "lab_1", "lab_2", "age__imputed", "sex__imputed", "stage__imputed", "lab__imputed"]
    assert [row[5:] for row in rows] == [["0", "0", "1", "1"], ["1", "0", "1", "1"]]
    assert all(row[2] in ("I", "II") and float(row[3]) and float(row[4]) for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,sex,lab_1\n1,f,2\n", f"column 'lab_2' of modality 'lab' is missing. {SOME}"),
        ("age,sexe,lab_1,lab_2\n1,f,2,3\n", f"column 'sex' of modality 'clinical' is missing. Did you mean 'sexe'? {SOME}"),
        ("age,sex,stages\n1,f,I\n", "column 'stages': no such column in the spec. Did you mean 'stage'?"),
        ("note\nx\n", "no column of any modality (age, sex, stage, lab_1, lab_2). Found: note"),
        ("stage\nIII\n", f"column 'stage': row 0 (line 2) holds \"III\", {LISTED.format('I, II')}"),
        ("age,sex\nf,1\n", f"column 'age': row 0 (line 2) holds \"f\", {FINITE}"),
        ("id,stage\n1,I\n1,II\n", "column 'id': duplicate '1' in row 0 (line 2) and row 1 (line 3)"),
        ("stage,stage__imputed_\nI\n", "row 0 (line 2) has 1 cell, expected 2, as the header has"),
    ],
)
def test_a_file_to_fill_in_that_does_not_fit_is_told_and_nothing_is_written(path: Path, model: Any, text: str, message: str):
    network, layout = model
    source = write(path.parent / "new rows.csv", text)
    with refused(f"{source}: {message}"):
        impute_rows(Served(network, layout), source, "out.csv")
    assert sorted(file.name for file in path.parent.iterdir()) == ["new rows.csv", "rows.csv"]


def test_a_further_text_of_absence_is_filled_in_as_well(path: Path, model: Any):
    network, _ = model
    source = write(path.parent / "marked.csv", "stage,clinic\nI,-999\n-999,-999\n")
    options = {
        "path": "rows.csv",
        "columns": COLUMNS | {"lab": ("lab_1", "lab_2")},
        "classes": {**CLASSES, "stage": ("I", "II")},
        "missing": (-999,),
    }
    impute_rows(Served(network, Binding("table", options, SHAPES)), source, "out.csv")
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [(row["stage"] in ("I", "II"), row["stage__imputed"], row["clinic"]) for row in rows] == [
        (True, "0", "-999"),
        (True, "1", "-999"),
    ]


def test_rows_of_one_of_several_files_are_filled_in(path: Path):
    write(path.parent / "one.csv", "sample,x\ns1,1\ns2,2\ns3,\ns4,5\n")
    write(path.parent / "other.csv", "sample,y\ns1,1\ns2,2\ns3,4\n")
    spec = spec_of({}, shapes={"x": (1,), "y": (1,)}, likelihoods={"x": "normal", "y": "normal"})
    document = spec.as_dict()
    document["data"] |= {"path": ["one.csv", "other.csv"], "id": "sample"}
    network = nbridge.train(document).model.network
    binding = Binding("table", {"path": ("one.csv", "other.csv"), "id": "sample"}, {"x": (1,), "y": (1,)})
    impute_rows(Served(network, binding), "one.csv", "out.csv")
    header, *rows = csv.reader(Path("out.csv").read_text().splitlines())
    assert header == ["sample", "x", "y", "x__imputed", "y__imputed"]
    assert [row[:2] for row in rows[:2]] == [["s1", "1"], ["s2", "2"]]
    assert all(row[1] and row[2] and row[4] == "1" for row in rows)


def test_one_hot_columns_are_filled_in_and_drawn_as_one_of_their_classes(path: Path):
    write(path, "colour,size\n" + "red,S\nblue,M\ngreen,L\n,S\nred,\n" * 3)
    classes = {"colour": ("blue", "green", "red"), "size": ("L", "M", "S")}
    shapes, kinds = {"look": (6,)}, {"look": "bernoulli"}
    spec = spec_of({"look": ("colour", "size")}, classes, shapes, kinds)
    network, layout = nbridge.train(spec).model.network, Binding("table", spec.data.source.kwargs, shapes)
    impute_rows(Served(network, layout), "rows.csv", "out.csv", intervals=(0.9,))
    for row in csv.DictReader(Path("out.csv").read_text().splitlines()):
        assert row["colour"] in classes["colour"]
        assert row["size"] in classes["size"]
        assert (row["colour__probability"] == "1") == (row["colour__imputed"] == "0")
    impute_rows(Served(network, layout), "rows.csv", "out.csv", samples=40)
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert {row["colour"] for row in rows if row["colour__imputed"] == "1"} == set(classes["colour"])
    assert {row["colour"] for row in rows[:40]} == {"red"}


def test_values_outside_a_support_are_told_with_their_file_their_column_and_their_row(path: Path):
    one = write(path.parent / "one.csv", 'id,x,note\na,1,"two\nlines"\nb,2,\nc,3,\n')
    other = write(path.parent / "other.csv", "n_2,n_1,id\n1,4,c\n2,5,b\n-3,6,a\n")
    shapes, kinds = {"x": (1,), "n": (2,)}, {"x": "normal", "n": "poisson"}
    spec = spec_of({"n": "n_*"}, shapes=shapes, likelihoods=kinds).as_dict()
    spec["data"]["path"] = ["one.csv", "other.csv"]
    end = "outside the support of Poisson, whole numbers from 0 (1 such row). Rescale the values or choose another likelihood."
    with refused(f"{other}: modality 'n', column 'n_2', row 2 (line 4): value -3 is {end}"):
        nbridge.train(spec)
    network = nbridge.train({**spec, "data": {**spec["data"], "path": [str(one), str(write(other, other.read_text().replace("-3", "3")))]}})
    write(path.parent / "new.csv", "n_1,n_2\n1,2\n-1,2\n")
    with refused(f"new.csv: modality 'n', column 'n_1', row 1 (line 3): value -1 is {end}"):
        impute_rows(network.model, "new.csv", "out.csv")


def test_a_model_knows_the_columns_that_it_learned_from(path: Path, model: Any):
    network, layout = model
    told = impute_rows(Served(network, layout), "rows.csv", "out.csv")
    assert impute_rows(Served(network, layout), "rows.csv", "again.csv") == told
    assert Path("again.csv").read_text() == Path("out.csv").read_text()


def test_a_model_that_never_saw_a_table_refuses_one(path: Path, model: Any):
    network = nbridge.build_model(spec_of(COLUMNS, CLASSES).model_copy(update={"data": nbridge.Spec.model_validate(
        {"modalities": {"x": {"shape": 1, "encoder": "mlp", "likelihood": "normal"}}}).data}))  # fmt: skip
    with refused("rows.csv: a csv file, but this model was not trained from one (data: {source: table})"):
        impute_rows(Served(network), "rows.csv", "out.csv")


def test_a_column_is_never_written_twice(path: Path, model: Any):
    network, layout = model
    source = write(path.parent / "drawn.csv", "stage,draw\nI,1\n,2\n")
    with refused(f"{source}: column 'draw' would be written twice; rename the one in the file"):
        impute_rows(Served(network, layout), source, "out.csv", samples=2)


def test_draws_are_rows_and_shards_are_the_whole(path: Path, model: Any, monkeypatch: pytest.MonkeyPatch):
    network, layout = model
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 2)
    impute_rows(Served(network, layout), "rows.csv", "out.csv", samples=3, seed=1)
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [(row["id"], row["draw"]) for row in rows] == [(name, str(draw)) for name in "abcd" for draw in (1, 2, 3)]
    assert len({row["lab_1"] for row in rows if row["id"] == "b"}) == 3
    assert {row["lab_1"] for row in rows if row["id"] == "a"} == {"1.50"}
    for part in (1, 2):
        impute_rows(Served(network, layout), "rows.csv", f"{part}.csv", samples=3, seed=1, shard=(part, 2))
    assert lines(Path("1.csv"))[:-1] + lines(Path("2.csv"))[1:] == lines(Path("out.csv"))


def test_intervals_hold_what_is_filled_in_and_observed_cells_have_their_own(path: Path, model: Any):
    network, layout = model
    impute_rows(Served(network, layout), "rows.csv", "out.csv", intervals=(0.5, 0.9))
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert (rows[0]["lab_1__mean"], rows[0]["lab_1__sd"], rows[0]["lab_1__lower_0.9"]) == ("1.50", "0", "1.50")
    ends = [float(rows[1][f"lab_1__{end}"]) for end in ("lower_0.9", "lower_0.5", "mean", "upper_0.5", "upper_0.9")]
    assert ends == sorted(ends)
    assert rows[0]["stage__probability"] == "1"
    assert 0.5 <= float(rows[3]["stage__probability"]) < 1


def test_a_parquet_file_keeps_its_types_and_what_was_observed(path: Path, model: Any):
    network, layout = model
    given = pa.table({
        "id": ["a", "b", "c"], "age": pa.array([71, None, 63], pa.int16()), "sex": pa.array(["f", None, "m"]).dictionary_encode(),
        "stage": ["I", "II", None], "lab_1": pa.array([0.1, NAN, 3.7], pa.float32()), "lab_2": [1.5, None, None],
        "note": [[1], None, [2, 3]],
    })  # fmt: skip
    parquet.write_table(given, "rows.parquet", row_group_size=2)
    impute_rows(Served(network, layout), "rows.parquet", "out.parquet")
    done = parquet.read_table("out.parquet")
    assert done.schema.names[:7] == given.schema.names
    for name in given.schema.names:
        assert done.schema.field(name).type == given.schema.field(name).type
        before, after = given[name].to_pylist(), done[name].to_pylist()
        assert all(one is None or one != one or one == other for one, other in zip(before, after, strict=True))  # noqa: PLR0124
        assert name == "note" or not any(other is None or other != other for other in after)  # noqa: PLR0124
    assert done["lab_1__imputed"].to_pylist() == [False, True, False]
    impute_rows(Served(network, layout), "rows.parquet", "drawn.parquet", samples=2, intervals=())
    drawn = parquet.read_table("drawn.parquet")
    assert drawn["draw"].to_pylist() == [1, 2] * 3
    assert drawn["note"].to_pylist() == [[1], [1], None, None, [2, 3], [2, 3]]
    impute_rows(Served(network, layout), "rows.parquet", "figures.parquet", intervals=(0.9,))
    assert parquet.read_table("figures.parquet")["age__sd"].to_pylist()[0] == 0
