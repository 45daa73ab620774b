"""A first spec: what is guessed of a table, that the spec holds, and that data go through every command without a file edited."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pyarrow as pa
import pytest
from commands import Call
from drafts import kinds, members
from pyarrow import parquet

from nbridge.data.tables.opening import open_table
from nbridge.draft import grouping as guesses
from nbridge.draft.draft import init
from nbridge.draft.grouping import MOST_MODALITIES
from nbridge.errors import DataError
from nbridge.spec.reader import parse_spec

ROWS = 400


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return commands.in_this_process(monkeypatch, capsys, columns=100)


def write(path: Path, columns: dict[str, Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


def clinic(rows: int = ROWS, share: float = 0.3) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """A made-up clinic: four blocks of columns that one state of six dimensions explains, of which a share is missing; and the truth."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(rows, 6))

    def seen(columns: int) -> np.ndarray:
        return z @ rng.normal(size=(6, columns)) / 2 + 0.3 * rng.normal(size=(rows, columns))

    clinical, lab, rna = seen(4), seen(8), rng.poisson(np.exp(seen(6) / 2 + 1.5))
    truth: dict[str, list[str]] = {"sample": [f"S{row:05}" for row in range(rows)]}
    truth["clin_age"] = [str(int(55 + 12 * x)) for x in clinical[:, 0]]
    truth |= {f"clin_{name}": [f"{120 + 10 * x:.1f}" for x in clinical[:, place]] for place, name in enumerate(("bmi", "sbp", "dbp"), 1)}
    truth["stage"] = [("I", "II", "III")[place] for place in np.digitize(z[:, 0] + 0.3 * rng.normal(size=rows), [-0.5, 0.5])]
    truth |= {f"lab_{place + 1}": [f"{5 + x:.2f}" for x in lab[:, place]] for place in range(8)}
    truth |= {f"rna_{place + 1}": [str(x) for x in rna[:, place]] for place in range(6)}
    hidden = {block: rng.random(rows) < share for block in ("clin", "lab", "rna", "stage")}
    hidden["stage"] &= ~(hidden["clin"] & hidden["lab"] & hidden["rna"])
    none = dict.fromkeys(truth, np.zeros(rows, dtype=bool))
    masks = {column: hidden.get(column.partition("_")[0], none[column]) for column in truth}
    return {column: [text if not gone else "" for text, gone in zip(truth[column], masks[column], strict=True)] for column in truth}, truth


def test_blocks_of_a_table_are_found_and_described(here: Path):
    found = init([str(write(here / "my clinic.csv", clinic()[0]))])
    spec = parse_spec(found.text)
    assert {name: (one.shape, one.likelihood.type) for name, one in spec.modalities.items()} == {
        "clin": ((4,), "mixed"), "lab": ((8,), "normal"), "rna": ((6,), "negative_binomial"), "stage": ((3,), "categorical"),
    }  # fmt: skip
    assert kinds(spec)["clin_age"] == {"type": "normal", "whole": True, "low": 0.0}
    assert kinds(spec)["clin_bmi"] == "normal"
    options = spec.data.source.kwargs
    assert (options["id"], options["classes"]) == ("sample", {"stage": ("I", "II", "III")})
    assert options["columns"]["lab"] == tuple(f"lab_{place}" for place in range(1, 9))
    assert found.text.startswith("# yaml-language-server: $schema=")
    assert "# names begin with rna; 6 columns of whole numbers from 0 on" in found.text
    # Weights and the length of training follow from the data, and the rest is the library's default.
    assert "weight:" not in found.text
    assert "training:" not in found.text


def column_of(kind: str, rows: int = 60) -> list[object]:
    rng = np.random.default_rng(len(kind))
    return {
        "normal": lambda: [f"{x:.3f}" for x in rng.normal(size=rows)],
        "negative_binomial": lambda: [0, *rng.poisson(30, rows - 1)],
        "ages": lambda: [*rng.integers(18, 90, rows)],
        "categorical": lambda: [*rng.choice(["low", "middle", "high"], rows)],
        "grades": lambda: [*(np.arange(rows) % 4 + 1)],
        "bernoulli": lambda: [*(np.arange(rows) % 2)],
        "words of two": lambda: [*rng.choice(["yes", "no"], rows)],
        "truth values": lambda: [*rng.choice(["True", "False"], rows)],
        "constant": lambda: [3] * rows,
        "empty": lambda: [""] * rows,
        "prose": lambda: [f"note {x}" for x in rng.permutation(rows)] and [f"note {x}" for x in np.arange(rows) % 40],
        "identifiers": lambda: [*range(1000, 1000 + rows)],
        "marked": lambda: ["unknown" if row % 10 == 0 else f"{row * 0.37:.2f}" for row in range(rows)],
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "found", "classes"),
    [
        ("normal", "normal", ()),
        ("ages", {"type": "normal", "whole": True, "low": 0.0}, ()),
        ("negative_binomial", "poisson", ()),
        ("categorical", "categorical", ("high", "low", "middle")),
        ("grades", "ordinal", ("1", "2", "3", "4")),
        ("bernoulli", "bernoulli", ()),
        ("truth values", "bernoulli", ()),
        ("words of two", "bernoulli", ("no", "yes")),
        ("marked", {"type": "normal", "low": 0.0}, ()),
    ],
)
def test_the_values_of_a_column_tell_its_likelihood(here: Path, kind: str, found: Any, classes: tuple[str, ...]):
    write(here / "rows.csv", {"größe": column_of("normal"), "arm": column_of("categorical"), "value": column_of(kind)})
    spec = parse_spec(init(["rows.csv"]).text)
    # All loose columns of a file are one modality, which is called as the file.
    assert members(spec) == {"rows": ("größe", "arm", "value")}
    assert kinds(spec)["value"] == found
    assert spec.data.source.kwargs["classes"].get("value", ()) == classes
    assert spec.data.source.kwargs["missing"] == (("unknown",) if kind == "marked" else ())


def test_columns_that_hold_nothing_to_learn_are_left_out_and_told(here: Path):
    kinds = ("constant", "empty", "prose", "identifiers")
    write(here / "rows.csv", {"x": column_of("normal"), **{kind: column_of(kind) for kind in kinds}})
    found = init(["rows.csv"])
    # A column in front of which others stand is taken for identifiers only by its name.
    assert found.remarks == (
        "left out: constant: holds '3' alone",
        "left out: empty: is empty",
        "left out: prose: text of 40 different values in 60 rows, too few rows a value for classes; "
        "to learn it as text, add a modality with encoder: text and likelihood: text",
        "left out: identifiers: looks like identifiers: whole numbers in a row, or text, that differ in all rows",
    )
    assert list(parse_spec(found.text).data.source.kwargs["columns"].values()) == [("x",)]


def test_sixty_single_columns_are_few_modalities(here: Path):
    columns: dict[str, Sequence[object]] = {f"{chr(97 + place % 26)}{'x' * (place // 26)}": column_of("normal") for place in range(60)}
    columns |= {f"w{'y' * place}": column_of("categorical") for place in range(20)}
    columns |= {f"v{'y' * place}": column_of("words of two") for place in range(5)}
    write(here / "rows.csv", columns)
    spec = parse_spec(init(["rows.csv"]).text)
    assert len(spec.modalities) <= MOST_MODALITIES
    taken = [column for columns in members(spec).values() for column in columns]
    assert sorted(taken) == sorted(columns)
    # Numbers, twenty columns of three classes each, one-hot, and five of two.
    assert {name: (one.shape, one.likelihood.type) for name, one in spec.modalities.items()} == {"rows": ((58 + 20 * 3 + 5,), "mixed")}


def test_columns_that_areabsent_together_are_a_modality_whatever_they_are_called(here: Path):
    rng = np.random.default_rng(0)
    hidden = rng.random((2, 60)) < 0.4
    blocks = {"pressure": 0, "pulse": 0, "weight": 0, "iron": 1, "zinc": 1, "lead": 1}
    write(here / "rows.csv", {name: np.where(hidden[place], "", column_of("normal")).tolist() for name, place in blocks.items()})
    columns = members(init(["rows.csv"]).spec)
    assert sorted(columns.values()) == [("iron", "zinc", "lead"), ("pressure", "pulse", "weight")]


def test_columns_of_a_wide_table_that_lack_nothing_are_not_compared_with_each_other(here: Path, monkeypatch: pytest.MonkeyPatch):
    compared: list[float] = []

    def absent_together(one: np.ndarray, other: np.ndarray) -> bool:
        compared.append(min((~one).mean(), (~other).mean()))
        return original(one, other)

    original = guesses.absent_together
    monkeypatch.setattr(guesses, "absent_together", absent_together)
    rng = np.random.default_rng(0)
    cells: dict[str, Any] = {f"gene_{place}": rng.normal(size=60).round(3).tolist() for place in range(100)}
    cells |= {f"gene_{place}": [*[""] * 20, *cells[f"gene_{place}"][20:]] for place in range(4)}
    write(here / "rows.csv", cells)
    assert {name: len(columns) for name, columns in members(init(["rows.csv"]).spec).items()} == {"gene": 96, "gene_incomplete": 4}
    assert compared == [pytest.approx(1 / 3)] * 3


def test_a_number_that_may_mark_absence_is_told(here: Path):
    values = column_of("normal")
    write(here / "rows.csv", {"x": [*values[:-3], -999, -999, -999], "y": values})
    assert init(["rows.csv"]).remarks == ("x: -999 in 3 rows, far from all else; if it marks absent cells, data.missing: [-999]",)


def test_several_files_are_joined_on_the_column_that_they_share(here: Path):
    given = clinic(100)[0]
    blocks = {block: [column for column in given if column.startswith((block, "sample"))] for block in ("clin", "lab", "rna")}
    for block, columns in blocks.items():
        write(here / f"{block}.csv", {column: given[column][:80] for column in columns})
    found = init([f"{block}.csv" for block in blocks])
    spec = parse_spec(found.text)
    assert (spec.data.source.kwargs["path"], spec.data.source.kwargs["id"]) == (("clin.csv", "lab.csv", "rna.csv"), "sample")
    assert (found.rows, list(spec.modalities)) == (80, ["clin", "lab", "rna"])
    write(here / "other.csv", {"y": [1, 2]})
    with refused("several files are joined on a column of identifiers, and they share no column; name one with --id"):
        init(["clin.csv", "other.csv"])
    with refused(f"{here / 'clin.csv'}: no column 'key'. Found: {', '.join(blocks['clin'])}"):
        init(["clin.csv"], id="key")


def test_identifiers_that_repeat_are_none(here: Path):
    write(here / "rows.csv", {"id": [1, 1, 2] * 20, "x": column_of("normal")})
    spec = parse_spec(init(["rows.csv"]).text)
    assert spec.data.source.kwargs["id"] == ""
    with refused(f"{here / 'rows.csv'}: column 'id': duplicate '1' in row 0 (line 2) and row 1 (line 3)"):
        init(["rows.csv"], id="id")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda ids: [*ids[:-1], ids[0]], "duplicate '{0}' in row 0 (line 2) and row 59 (line 61)"),
        (lambda ids: ["", *ids[1:]], "row 0 (line 2) has none, expected an identifier in each row"),
    ],
    ids=["twice", "missing"],
)
@pytest.mark.parametrize("ids", [[f"p{row}" for row in range(60)], list(range(1, 61))], ids=["text", "numbers"])
def test_what_spoils_a_column_of_identifiers_is_told(here: Path, ids: list[Any], spoil: Callable[[list[Any]], list[Any]], what: str):
    write(here / "rows.csv", {"patient": spoil(ids), "x": column_of("normal")[:60]})
    found = init(["rows.csv"])
    assert list(found.spec.modalities) == ["x"]
    assert found.remarks == (f"left out: patient: no identifiers, as {what.format(ids[0])}",)
    # Visits of patients repeat them on purpose.
    write(here / "rows.csv", {"patient": [f"p{row // 2}" for row in range(60)], "x": column_of("normal")[:60]})
    found = init(["rows.csv"])
    assert found.remarks == ("data.group: patient: 60 rows of 30 patients; rows of one are kept in one part",)
    assert (found.spec.data.group, list(found.spec.modalities)) == ("patient", ["x"])


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("{},5", "numbers with commas"),
        ("1,{:03}", "numbers with commas"),
        ("{} %", "numbers with percent signs"),
        ("1.{0:03}.{0:03}", "numbers with separated thousands"),
        ("1_{:03}", "numbers with separated thousands"),
        ("({}.5)", "negative numbers as in accounts"),
        ("{}.5-", "negative numbers as in accounts"),
        ("\u2212{}", "numbers with a minus sign that is not '-'"),
        ("R$ {}", "amounts with a currency"),
        ("{} kr", "amounts with a currency"),
        ("${}.2M", "amounts with a currency"),
        ("{}k", "numbers with a suffix of thousands or millions"),
        ("0x{:x}", "hexadecimal numbers"),
    ],
)
def test_numbers_that_are_spelt_otherwise_are_told_and_are_no_identifiers(here: Path, cell: str, what: str):
    write(here / "rows.csv", {"dose": [cell.format(row) for row in range(60)], "x": column_of("normal")[:60]})
    found = init(["rows.csv"])
    assert list(found.spec.modalities) == ["x"]
    assert found.spec.data.source.kwargs["id"] == "id"
    first = cell.format(0)
    assert found.remarks == (
        f"left out: dose: text such as {first!r}, {what}; write them with a decimal point and nothing else",
    )  # fmt: skip


def test_a_column_without_a_name_is_no_column_of_identifiers(here: Path):
    write(here / "rows.csv", {"": list(range(60)), "x": column_of("normal")[:60]})
    assert init(["rows.csv"]).remarks == (
        "left out: a column without a name: looks like identifiers: whole numbers in a row, or text, that differ in all rows",
    )  # fmt: skip
    write(here / "one.csv", {"": list(range(60)), "id": list(range(60)), "x": column_of("normal")[:60]})
    write(here / "other.csv", {"": list(range(60)), "id": list(range(60)), "y": column_of("normal")[:60]})
    with refused(
        f"{here / 'other.csv'}: a column without a name is in {here / 'one.csv'} as well; give them names, or leave them out where they "
        "count the rows"
    ):
        init(["one.csv", "other.csv"])


def test_arrays_of_an_archive_are_described(here: Path):
    rng = np.random.default_rng(0)
    rows = 100
    arrays: dict[str, Any] = {
        "x": rng.normal(size=(rows, 3)), "grey": rng.random((rows, 4, 4)), "photo": rng.integers(0, 256, (rows, 3, 4, 4)).astype(np.uint8),
        "label": np.arange(rows) % 5, "counts": rng.poisson(3, (rows, 6)), "flags": rng.integers(0, 2, (rows, 4)),
        "keys": rng.random((rows, 2)),
        "x__present": np.arange(rows) % 2, "id": np.arange(rows), "note": np.array("text"),
    }  # fmt: skip
    np.savez(here / "rows.npz", **arrays)
    found = init(["rows.npz"])
    spec = parse_spec(found.text)
    assert {name: (one.shape, one.likelihood.type) for name, one in spec.modalities.items()} == {
        "x": ((3,), "normal"), "grey": ((1, 4, 4), "bernoulli"), "photo": ((3, 4, 4), "discretized_logistic"),
        "label": ((5,), "categorical"), "counts": ((6,), "negative_binomial"), "flags": ((4,), "bernoulli"),
        "column_keys": ((2,), "normal"),
    }  # fmt: skip
    assert spec.data.source.kwargs["keys"] == {"column_keys": "keys"}
    assert found.present["x"].sum() == rows / 2
    assert found.remarks == ("left out: note: no array of numbers with 100 rows",)


def test_arrays_that_do_not_fit_together_are_told(here: Path):
    x, path = np.random.default_rng(0).normal(size=(30, 2)), here / "rows.npz"
    np.savez(path, x=x, note=np.array([f"note {row}" for row in range(30)]))
    advice = "to learn it as text, add a modality with encoder: text and likelihood: text"
    assert init(["rows.npz"]).remarks == (
        f"left out: note: text of 30 different values in 30 rows, too few rows a value for classes; {advice}",
    )
    np.savez(path, x=x, id=np.arange(29))
    with refused(f"{path}: ids: 29 for 30 rows, expected one per row"):
        init(["rows.npz"])
    np.savez(path, x=x[:0])
    with refused(f"{path}: no rows"):
        init(["rows.npz"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, expected a header with the names of columns, and rows"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2,3\n", "row 0 (line 2) has 3 cells, expected 2, as the header has"),
    ],
)
def test_a_file_without_rows_is_told(here: Path, text: str, message: str):
    (here / "rows.csv").write_text(text)
    with refused(f"{here / 'rows.csv'}: {message}"):
        init(["rows.csv"])


def test_a_file_of_nothing_to_learn_is_told(here: Path, call: Call):
    write(here / "rows.csv", {"x": [3] * 20})
    with refused("rows.csv: no column that a modality can be made of (x holds '3' alone)"):
        init(["rows.csv"])
    (here / "rows.txt").write_text("x\n1\n")
    assert call("init", "rows.txt") == (
        2, "", f"{here / 'rows.txt'}: expected tables (.csv, .tsv, .csv.gz, .tsv.gz, .parquet), folders of images or texts, or one .npz, "
        ".h5mu or .h5ad file\n"
    )  # fmt: skip
    assert not (here / "rows.yaml").exists()


def test_from_a_csv_to_a_completed_csv_without_a_file_edited(here: Path, call: Call):
    given, truth = clinic()
    write(here / "my clinic.csv", given)
    code, out, _ = call("init", "my clinic.csv", "--out", "clinic.yaml")
    assert code == 0
    assert out.splitlines()[-3:] == [
        "clinic.yaml: 4 modalities, 400 rows", "next:  nbridge validate clinic.yaml --data", "       nbridge train clinic.yaml",
    ]  # fmt: skip
    before = (here / "clinic.yaml").read_text()
    assert call("init", "my clinic.csv", "--out", "clinic.yaml") == (
        2, "", "--out clinic.yaml: exists already. Use --overwrite to replace it.\n"
    )  # fmt: skip
    assert (here / "clinic.yaml").read_text() == before
    code, out, _ = call("validate", "clinic.yaml", "--data")
    assert (code, out.splitlines()[-1]) == (0, "data: 400 rows, no errors, no warnings")
    fewer = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=50")]
    assert call("train", "clinic.yaml", "--out", "run", *fewer)[0] == 0
    assert call("embed", "run", "my clinic.csv", "--out", "codes.npz")[:2] == (0, "codes.npz: 400 rows, 5 dimensions\n")
    assert np.load("codes.npz")["sample"].tolist() == truth["sample"]
    code, out, _ = call("impute", "run", "my clinic.csv", "--out", "completed.csv")
    assert code == 0
    assert out.startswith("completed.csv: 400 rows; imputed clin ")
    completed = list(csv.DictReader((here / "completed.csv").read_text().splitlines()))
    assert list(completed[0])[: len(given)] == list(given)
    for column, cells in given.items():
        for cell, row in zip(cells, completed, strict=True):
            assert row[column] == cell or (cell == "" and row[column])
    numbers = [column for column in truth if column.startswith(("clin", "lab", "rna"))]
    after = np.array([[float(row[column]) for column in numbers] for row in completed])
    hidden = np.array([[cell == "" for cell in given[column]] for column in numbers]).T
    true = np.array([[float(cell) for cell in truth[column]] for column in numbers]).T
    errors = ((after - true) / true.std(0))[hidden]
    # The mean of each column would be off by about 1.
    assert np.sqrt((errors**2).mean()) < 0.9
    right = [row["stage"] == was for row, was, cell in zip(completed, truth["stage"], given["stage"], strict=True) if not cell]
    assert np.mean(right) > 0.6


def test_from_a_parquet_file_of_lists_to_a_completed_one(here: Path, call: Call):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(80, 1))
    cells: dict[str, Any] = {"genes": (z + 0.1 * rng.normal(size=(80, 5))).tolist(), "codes": rng.poisson(np.exp(z + 1), (80, 3)).tolist()}
    cells["scan"] = rng.integers(0, 256, (80, 2, 3), dtype=np.uint8).tolist()
    cells["ragged"] = [[1.0] * (1 + row % 2) for row in range(80)]
    cells["age"] = (60 + 9 * z[:, 0]).round(1).tolist()
    for place, name in enumerate(("genes", "codes", "scan", "age")):
        cells[name][place::9] = [None] * len(cells[name][place::9])
    kinds = {"genes": pa.list_(pa.float32()), "codes": pa.list_(pa.int32(), 3), "scan": pa.list_(pa.list_(pa.uint8()))}
    given = pa.table({name: pa.array(column, kinds.get(name)) for name, column in cells.items()})
    parquet.write_table(given, "rows.parquet", row_group_size=30)
    code, out, _ = call("init", "rows.parquet")
    assert code == 0
    assert "left out: ragged: holds lists of several lengths" in out.splitlines()
    spec = parse_spec((here / "rows.yaml").read_text())
    assert {name: (one.shape, one.likelihood.type) for name, one in spec.modalities.items()} == {
        "age": ((1,), "normal"), "genes": ((5,), "normal"), "codes": ((3,), "negative_binomial"),
        "scan": ((1, 2, 3), "discretized_logistic"),
    }  # fmt: skip
    assert call("validate", "rows.yaml", "--data")[0] == 0
    fewer = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=2")]
    assert call("train", "rows.yaml", "--out", "run", *fewer)[0] == 0
    for more in ((), ("--samples", "2"), ("--intervals", "0.5,0.9")):
        assert call("impute", "run", "rows.parquet", "--out", "out.parquet", "--overwrite", *more)[0] == 0
        done = parquet.read_table("out.parquet")
        assert done.select(given.column_names).schema.equals(given.schema)
        for name in given.column_names:
            after = done[name].to_pylist()[:: 2 if "--samples" in more else 1]
            assert None not in after
            assert all(one is None or one == other for one, other in zip(given[name].to_pylist(), after, strict=True))
    widths = {name: np.shape(done[name].to_pylist()) for name in ("genes__mean", "codes__sd", "scan__lower_0.9", "genes__upper_0.5")}
    assert widths == {"genes__mean": (80, 5), "codes__sd": (80, 3), "scan__lower_0.9": (80, 6), "genes__upper_0.5": (80, 5)}


def test_the_file_that_is_read_is_never_replaced(here: Path, call: Call):
    write(here / "rows.csv", {"x": column_of("normal")})
    (here / "rows.yaml").symlink_to(here / "rows.csv")
    assert call("init", "rows.csv", "--overwrite") == (
        2, "", "--out rows.yaml: this is the input file; choose another path\n"
    )  # fmt: skip
    assert open_table(here / "rows.csv").columns == ("x",)
