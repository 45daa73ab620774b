"""Tables that are joined and written back completed, each of them, beside the one table that a person would join them to."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from completing import impute_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import nbridge
from nbridge.cli import main as command_line
from nbridge.errors import DataError
from nbridge.inference.options import ImputationOptions
from nbridge.spec.reader import write_spec
from nbridge.training.checkpoint import save_model

COLUMNS: dict[str, Any] = {"clinical": ("age", "sex", "bmi"), "stage": ("stage",), "look": ("colour", "size")}
CLASSES: dict[str, Any] = {"sex": ("f", "m"), "stage": ("I", "II", "III"), "colour": ("blue", "green", "red")}
SHAPES = {"clinical": 3, "stage": 3, "look": 4}
KINDS = {"clinical": "normal", "stage": "categorical", "look": "bernoulli"}
FILES: dict[str, tuple[str, ...]] = {"one.csv": ("age", "who", "note", "sex"), "two.tsv.gz": ("who", "stage", "bmi"),
                                     "three.parquet": ("colour", "other", "who", "size")}  # fmt: skip
"""Clinical lies in two of them."""
KNOWN = {
    "age": ("50", "61", "72"),
    "bmi": ("20.5", "31.25"),
    "size": ("0", "1"),
    "note": ("x", 'a "b", c', ""),
    "other": ("7", "8"),
    **CLASSES,
}


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def spec_of(**data: Any) -> nbridge.Spec:
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    return nbridge.Spec.model_validate({
        "latent_dim": 2, "modalities": {name: {**part, "shape": shape, "likelihood": KINDS[name]} for name, shape in SHAPES.items()},
        "data": {"source": "table", "path": list(FILES), "columns": COLUMNS, "classes": CLASSES, "id": "who", **data},
        "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]},
    })  # fmt: skip


def by_who(model: nbridge.Model) -> nbridge.Model:
    """The same, for tables whose rows are identified by another column."""
    found = nbridge.Model(model.network, model.spec)
    found.binding = replace(model.binding, options={**model.binding.options, "id": "who"})
    return found


@pytest.fixture(scope="module")
def model() -> nbridge.Model:
    torch.manual_seed(0)
    return nbridge.Model.from_spec(spec_of())


Rows = Mapping[str, Mapping[str, str]]
"""Cells by column, by identifier; empty where they are absent."""


def write(path: Path, columns: Sequence[str], rows: Rows) -> Path:
    cells = [[name if column == "who" else row.get(column, "") for column in columns] for name, row in rows.items()]
    if path.suffix == ".parquet":
        kinds = {"colour": pa.dictionary(pa.int8(), pa.string()), "who": pa.string(), "size": pa.bool_(), "other": pa.int32()}
        made = {column: [row[place] or None for row in cells] for place, column in enumerate(columns)}
        plain = {"size": lambda cell: cell == "1", "other": int}
        typed = {column: [cell and plain.get(column, str)(cell) for cell in held] for column, held in made.items()}
        parquet.write_table(pa.table({column: pa.array(held, kinds[column]) for column, held in typed.items()}), path, row_group_size=2)
        return path
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:  # type: ignore[operator]
        out = csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
        out.writerows([columns, *cells])
    return path


def read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".parquet":
        spelt = {None: "", True: "1", False: "0"}
        rows = parquet.read_table(path).to_pylist()
        return [{name: spelt[cell] if cell is None or isinstance(cell, bool) else str(cell) for name, cell in row.items()} for row in rows]
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:  # type: ignore[operator]
        return list(csv.DictReader(file, delimiter="\t" if ".tsv" in path.name else ","))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Rows]:
    """Rows of each file, of which any may lack any but the first, in any order."""
    found: dict[str, Rows] = {}
    for file, columns in FILES.items():
        names = draw(st.permutations(["a", "b", "c", "d", "e"]))[: draw(st.integers(0, 4))]
        held = [column for column in columns if column != "who"]
        found[file] = {
            name: {column: draw(st.sampled_from((*KNOWN[column], ""))) for column in held} for name in dict.fromkeys(["f", *names])
        }
    # What no row has tells nothing of how it is written.
    found["three.parquet"] = {**found["three.parquet"], "f": {**found["three.parquet"]["f"], "size": "1"}}
    found["one.csv"] = {**found["one.csv"], "full": {"age": "50", "sex": "f", "note": ""}}
    return found


def same(one: str, other: str) -> bool:
    try:
        return float(one) == pytest.approx(float(other), rel=1e-6)
    except ValueError:
        return one == other


@settings(max_examples=15)
@given(
    rows=tables(),
    imputation=st.sampled_from([ImputationOptions(), ImputationOptions(samples=2, seed=1), ImputationOptions(intervals=(0.5, 0.9))]),
)
def test_tables_that_are_joined_get_what_the_one_table_of_them_gets(
    model: Any, tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Rows], imputation: ImputationOptions
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    sources = [write(folder / file, columns, rows[file]) for file, columns in FILES.items()]
    every = list(dict.fromkeys(name for file in FILES for name in rows[file]))
    joined = {name: {column: cell for file in FILES for column, cell in rows[file].get(name, {}).items()} for name in every}
    columns = ["who", *(column for names in FILES.values() for column in names if column != "who")]
    write(folder / "joined.csv", columns, joined)
    options = {"samples": imputation.samples, "seed": imputation.seed, "intervals": imputation.intervals}
    whole = impute_rows(by_who(model), folder / "joined.csv", folder / "whole.csv", **options)
    told = impute_rows(model, sources, folder / "out", **options)
    assert (told.total, told.imputed) == (len(every), whole.imputed)
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(FILES)
    expected: dict[str, list[dict[str, str]]] = {}
    for row in read(folder / "whole.csv"):
        expected.setdefault(row["who"], []).append(row)
    for file, names in FILES.items():
        done, own = read(folder / "out" / file), list(rows[file])
        copies = imputation.samples or 1
        assert [row["who"] for row in done] == [
            name for name in [*own, *(name for name in every if name not in own)] for _ in range(copies)
        ]
        assert list(done[0])[: len(names)] == list(names)
        for place, row in enumerate(done):
            given_row = rows[file].get(row["who"])
            for column, cell in row.items():
                if given_row is not None and given_row.get(column):
                    assert cell == given_row[column]
                elif column in ("note", "other"):
                    assert cell == ""
                elif not column.endswith("__imputed"):
                    assert same(cell, expected[row["who"]][place % copies][column]), (file, column)
            masks = [cell for column, cell in row.items() if column.endswith("__imputed")]
            assert masks
            if given_row is None:
                assert set(masks) <= {"1"}
    lacking = {str(folder / file): len(every) - len(rows[file]) for file in FILES if len(rows[file]) < len(every)}
    assert told.appended == lacking


def some() -> dict[str, Rows]:
    return {
        "one.csv": {"a": {"age": "50", "sex": "f"}, "b": {"age": "61", "sex": ""}},
        "two.tsv.gz": {"b": {"stage": "II", "bmi": "20.5"}, "a": {"stage": "", "bmi": ""}},
        "three.parquet": {"a": {"colour": "red", "size": "1", "other": "7"}, "c": {"colour": "", "size": "0", "other": "8"}},
    }


@pytest.fixture
def here(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    for file, columns in FILES.items():
        write(tmp_path / file, columns, some()[file])
    save_model("run/model", model.network, spec_of())
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["nbridge", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    return (left.value.code, *capsys.readouterr())


def test_the_tables_of_a_run_are_completed_by_one_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> tuple[object, str, str]:
        return call(monkeypatch, capsys, "impute", "run", *arguments)

    lacked = "".join(f"{file}: 1 missing rows were appended\n" for file in FILES)
    told = f"done: one.csv, two.tsv.gz, three.parquet: 3 rows; imputed clinical 3, stage 2, look 2\n{lacked}"
    assert said("--to", "done") == (0, told, "")
    assert (here / "done" / "one.csv").read_text().splitlines()[1] == "50,a,,f,0,0"
    kept = parquet.read_schema(here / "done" / "three.parquet")
    assert kept.field("colour").type == pa.dictionary(pa.int8(), pa.string())
    assert kept.names == ["colour", "other", "who", "size", "colour__imputed", "size__imputed"]
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert said("--to", "done") == (2, "", "--to done: exists already. Use --overwrite to replace it.\n")
    assert said("--to", "done", "--overwrite") == (0, told, "")
    refusals = {
        ("--to", ".", "--overwrite"): f".: contains the input {here}/one.csv; choose another folder",
        ("--to", "run", "--overwrite"): "run: the folder contains other files (model); choose another",
        ("--to", "none/done"): "--to none/done: folder none does not exist",
        ("--to", "new", "--shard", "1/2"): "--to new: cannot be combined with --shard; all tables are written whole, under their names",
        ("--to", "new", "--out", "new.csv"): "--to new: cannot be combined with --out; all tables are written whole, under their names",
        ("one.csv", "one.csv", "--to", "new"): f"{here}/one.csv: {here}/one.csv has the same file name, so they can't "
        "be written to one folder; rename one of them",
    }  # fmt: skip
    for arguments, message in refusals.items():
        assert said(*arguments) == (2, "", f"{message}\n")
    assert said("one.csv", "two.tsv.gz", "--out", "o.csv")[0] == 2
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    (here / "three.parquet").unlink()
    code, out, error = said("--to", "new")
    assert (code, out) == (2, "")
    assert "three.parquet" in error
    assert not (here / "new").exists()
    # New tables go the same way, and what none of them has is written into the first.
    assert said("one.csv", "two.tsv.gz", "--to", "new")[0] == 0
    assert (here / "new" / "one.csv").read_text().splitlines()[0].startswith("age,who,note,sex,colour,size,")


def test_a_run_of_several_tables_says_how_to_complete_them_and_does(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: Rows = {f"p{row}": {column: cells[row % len(cells)] for column, cells in KNOWN.items()} for row in range(12)}
    for file, columns in FILES.items():
        write(here / file, columns, {name: cells for row, (name, cells) in enumerate(rows.items()) if row != len(file)})
    document = spec_of(validation=0.0, test=0.0).as_dict()
    document["training"] = {"batch_size": 8, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
    (here / "spec.yaml").write_text(write_spec(nbridge.Spec.model_validate(document)))
    code, out, _ = call(monkeypatch, capsys, "train", "spec.yaml", "--out", "trained", "--no-report")
    assert code == 0
    assert "next:  nbridge impute trained --to COMPLETED" in out.splitlines()
    assert call(monkeypatch, capsys, "impute", "trained", "--to", "COMPLETED")[0] == 0
    # Two of them lacked a row that the others have.
    assert [len(read(here / "COMPLETED" / file)) for file in FILES] == [12, 12, 12]


def test_a_mistake_in_one_of_the_tables_is_told_and_nothing_is_written(here: Path, model: Any) -> None:
    write(here / "one.csv", FILES["one.csv"], {"a": {"age": "50"}, "a ": {"age": "50"}})
    with refused(f"{here}/one.csv: column 'who': duplicate 'a' in row 0 (line 2) and row 1 (line 3)"):
        impute_rows(model, list(FILES), "new")
    write(here / "one.csv", ("age", "who", "sex"), {"x": {"age": "50"}})
    message = re.escape(f'{here}/one.csv: no identifier in common with the other files ("x" here')
    with pytest.raises(DataError, match=f"^{message}"):
        impute_rows(model, list(FILES), "new")
    write(here / "one.csv", ("age", "who"), {"a": {"age": "50"}})
    with pytest.raises(DataError, match=r"three.parquet: column 'sex' of modality 'clinical' is missing"):
        impute_rows(model, list(FILES), "new")
    assert not (here / "new").exists()


def test_a_column_of_presence_in_another_table_says_what_the_cells_say_or_is_told(here: Path, model: Any) -> None:
    rows: Rows = {f"p{row}": {column: cells[row % len(cells)] for column, cells in KNOWN.items()} for row in range(4)}
    for file, columns in FILES.items():
        write(here / file, columns, rows)
    first = (here / "one.csv").read_text().splitlines()
    # The third table, with the modality, lacks a row that the first has.
    write(here / "three.parquet", FILES["three.parquet"], {name: cells for name, cells in rows.items() if name != "p2"})
    name = next(name for name, columns in model.binding.options["columns"].items() if set(columns) <= set(FILES["three.parquet"]))
    for said, told in (("1111", "row 2 (line 4) says that {} is present, but all its cells are empty"), ("1101", ""),
                       ("1?01", "row 1 (line 3) holds"), ("0101", "row 0 (line 2) says that {} is absent, but it has values")):  # fmt: skip
        (here / "one.csv").write_text("\n".join(f"{line},{end}" for line, end in zip(first, [f"{name}__present", *said], strict=True)))
        if told:
            message = re.escape(f"{here}/one.csv: column '{name}__present': {told.format(name)}")
            with pytest.raises(DataError, match=f"^{message}"):
                impute_rows(model, list(FILES), "new")
        else:
            impute_rows(model, list(FILES), "new")
            assert (here / "new" / "one.csv").exists()
            shutil.rmtree(here / "new")


def test_one_table_is_written_to_a_folder_as_well(here: Path, model: Any) -> None:
    impute_rows(by_who(model), "three.parquet", "alone.parquet")
    impute_rows(model, ["three.parquet"], "new")
    assert parquet.read_table("alone.parquet").equals(parquet.read_table("new/three.parquet"))
