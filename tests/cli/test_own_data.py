"""Somebody's own table through the commands, with one thing wrong in it: each tells it in one line, with its place, and writes nothing."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from omics import study
from omics import write as write_omics
from PIL import Image
from pyarrow import parquet

import nbridge
from nbridge.cli import main as command_line
from nbridge.draft.draft import init

ROWS = 60
SHORT = ("--no-report", *(word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=1")))
Cells = dict[str, list[Any]]
Files = Callable[[Path], tuple[str, ...]]
Said = tuple[object, str, str]


def good() -> Cells:
    """A table of three modalities; nothing is known of the lab of its first rows."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, ROWS)
    lab = {f"lab_{place}": (kind + rng.normal(0, 0.3, ROWS)).round(2).tolist() for place in range(3)}
    return {
        "patient": [f"p{row}" for row in range(ROWS)],
        "age": rng.integers(20, 90, ROWS).tolist(),
        "stage": [("I", "II", "III")[one] for one in kind],
        **{column: [None] * 10 + cells[10:] for column, cells in lab.items()},
    }


def as_csv(cells: Cells, *, newline: str = "\n") -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator=newline).writerows([list(cells), *zip(*cells.values(), strict=True)])
    return out.getvalue().encode()


def write(path: Path, cells: Cells) -> None:
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(cells), path)
    else:
        path.write_bytes(as_csv(cells))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was trained from a good table, and the spec that it was trained by."""
    home = tmp_path_factory.mktemp("home")
    write(home / "good.csv", good())
    found = init([str(home / "good.csv")])
    (home / "good.yaml").write_text(found.text)
    short = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
    nbridge.train({**found.spec.as_dict(), "training": short}, out=home / "run")
    return home


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["nbridge", *arguments])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return call


def each_command(call: Callable[..., Said], trained: Path, name: str) -> dict[str, Said]:
    """What the three commands that read rows say of a file, by the spec and the model of the good one."""
    path = str(trained / "good.csv")
    text = (trained / "good.yaml").read_text()
    assert path in text
    Path("spec.yaml").write_text(text.replace(path, name))
    return {
        "validate": call("validate", "spec.yaml", "--data"),
        "train": call("train", "spec.yaml", "--out", "new", *SHORT),
        "impute": call("impute", str(trained / "run"), name, "--out", "completed." + name.partition(".")[2]),
    }


def joined(home: Path) -> tuple[str, ...]:
    cells = good()
    write(home / "clin ik.csv", {column: cells[column] for column in ("patient", "age", "stage")})
    write(home / "lab.csv", {column: cells[column][10:] for column in ("patient", "lab_0", "lab_1", "lab_2")})
    return "clin ik.csv", "lab.csv"


def pictured(home: Path) -> tuple[str, ...]:
    """A folder of images, whose names have their accents apart, and a table that has them in one."""
    (home / "faces").mkdir()
    for row in range(12):
        Image.fromarray(np.full((8, 6), 20 * row, np.uint8)).save(home / "faces" / unicodedata.normalize("NFD", f"é{row}.png"))
    write(home / "people.csv", {"name": [f"é{row}" for row in range(12)], "height": [1.5 + row / 7 for row in range(12)]})
    return "faces", "people.csv"


def named(home: Path) -> tuple[str, ...]:
    """A table with a column of paths."""
    pictured(home)
    cells = {"face": [f"faces/é{row}.png" for row in range(12)], "height": [1.5 + row / 7 for row in range(12)]}
    write(home / "people.csv", cells)
    return ("people.csv",)


def arrays(home: Path) -> tuple[str, ...]:
    np.savez(home / "rows.npz", x=np.arange(60.0).reshape(30, 2) % 7, y=np.arange(30) % 3, id=np.arange(30))
    return ("rows.npz",)


def mudata(home: Path) -> tuple[str, ...]:
    write_omics(home / "cells.h5mu", study(rows=40))
    return ("cells.h5mu",)


def alone(name: str, cells: Callable[[], Cells]) -> Files:
    def lay(home: Path) -> tuple[str, ...]:
        write(home / name, cells())
        return (name,)

    return lay


def foreign() -> Cells:
    return {f"{column} größe 病": cells for column, cells in good().items()}


def coded() -> Cells:
    """Classes by numbers that no float tells apart."""
    cells = good()
    return {**cells, "stage": [10**18 + ord(one[-1]) + len(one) for one in cells["stage"]]}


KINDS: dict[str, Files] = {
    "csv": alone("my rows.csv", good),
    "parquet": alone("rows.parquet", good),
    "names of any letters": alone("größe.csv", foreign),
    "large codes": alone("rows.parquet", coded),
    "several files": joined,
    "a folder of images": pictured,
    "paths of images": named,
    "npz": arrays,
    "h5mu": mudata,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_init_writes_of_every_kind_of_data_holds_and_trains_as_it_is(call: Callable[..., Said], here: Path, kind: str):
    files = list(KINDS[kind](here))
    assert call("init", *files, "--out", "first.yaml")[0] == 0
    assert (here / "first.yaml").read_text().startswith("# yaml-language-server: $schema=")
    code, out, _ = call("validate", "first.yaml", "--data")
    assert (code, ", no errors" in out.splitlines()[-1]) == (0, True)
    code, out, _ = call("train", "first.yaml", "--out", "run", *SHORT)
    assert code == 0
    # The next line to type is one that can be typed.
    folder = "nbridge impute run --to COMPLETED" in out
    assert folder == (len(files) > 1 or "images" in kind)
    words = ("--to", "new") if folder else (files[0], "--out", "new" + Path(files[0]).suffix)
    if not folder:
        assert f"nbridge impute run ROWS{Path(files[0]).suffix} --out COMPLETED{Path(files[0]).suffix}" in out
    assert call("impute", "run", *words)[0] == 0


def test_codes_that_no_float_tells_apart_are_classes_and_are_imputed_to_the_last_digit(here: Path):
    cells = coded()
    hidden = {**cells, "stage": [None if row % 4 == 0 else cell for row, cell in enumerate(cells["stage"])]}
    table = pa.table({column: pa.array(cells, pa.int64() if column == "stage" else None) for column, cells in hidden.items()})
    found = nbridge.init(table)
    codes = sorted(set(cells["stage"]))
    assert found.spec.data.source.kwargs["classes"]["stage"] == tuple(map(str, codes))
    spec = {**found.spec.as_dict(), "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
    model = nbridge.train(spec, table).model
    completed: Any = model.impute(table)
    done = completed["stage"].to_pylist()
    assert set(done) <= set(codes)
    assert [cell for row, cell in enumerate(done) if row % 4] == [cell for row, cell in enumerate(cells["stage"]) if row % 4]
    unseen = table.set_column(2, "stage", pa.array([codes[-1] + 1] * ROWS))
    with pytest.raises(nbridge.NBridgeError, match=f'row 0 holds "{codes[-1] + 1}", a class that data.classes does not list'):
        model.impute(unseen)


def at(column: str, row: int, value: Any) -> Callable[[Cells], Cells]:
    return lambda cells: {**cells, column: [*cells[column][:row], value, *cells[column][row + 1 :]]}


# {3} is the place of row 3.
NUMBER = "expected a finite number, or data.classes to list the classes of this column; leave absent cells empty"
CLASS = "a class that data.classes does not list; it lists I, II, III. Leave absent cells empty."
SPOILT: dict[str, tuple[Callable[[Cells], Cells], str]] = {
    "an id twice": (at("patient", 3, "p1"), "column 'patient': duplicate 'p1' in {1} and {3}"),
    "an id missing": (at("patient", 3, None), "column 'patient': {3} has none, expected an identifier in each row"),
    "another type": (lambda cells: {**cells, "age": [f"a{row}" for row in range(ROWS)]}, f"column 'age': {{0}} holds \"a0\", {NUMBER}"),
    "a few words": (lambda cells: at("age", 3, "old")({**cells, "age": list(map(str, cells["age"]))}),
        f"column 'age': {{3}} holds \"old\", {NUMBER}"),
    "an infinite number": (lambda cells: at("age", 3, float("inf"))({**cells, "age": list(map(float, cells["age"]))}),
        "column 'age': {3} holds \"inf\", expected a finite number; leave absent cells empty"),
    "a number beyond float32": (lambda cells: at("age", 3, 1e300)({**cells, "age": list(map(float, cells["age"]))}),
        "column 'age': {3} holds \"1e+300\", expected a number from -3.4e+38 to 3.4e+38"),
    "an unseen class": (at("stage", 3, "IV"), f"column 'stage': {{3}} holds \"IV\", {CLASS}"),
    "numbers for classes": (lambda cells: {**cells, "stage": [10**18] * ROWS}, f"column 'stage': {{0}} holds \"{10**18}\", {CLASS}"),
    "present and empty": (lambda cells: {**cells, "lab__present": [1] * ROWS},
        "column 'lab__present': {0} says that lab is present, but all its cells are empty"),
    "absent and there": (lambda cells: {**cells, "lab__present": [0] * ROWS},
        "column 'lab__present': {10} says that lab is absent, but it has values; empty its cells, or set 1"),
    "neither present nor absent": (lambda cells: {**cells, "lab__present": [0] * 3 + [2] * (ROWS - 3)},
        "column 'lab__present': {3} is neither 1 nor 0"),
    "no rows": (lambda cells: {column: [] for column in cells}, "no rows"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_in_a_table_is_told_by_each_command_with_its_place(
    call: Callable[..., Said], here: Path, trained: Path, name: str, ending: str
):
    spoil, message = SPOILT[name]
    file = f"my röws.{ending}"
    write(here / file, spoil(good()))
    places = [f"row {row} (line {row + 2})" if ending == "csv" else f"row {row}" for row in range(ROWS)]
    said = each_command(call, trained, file)
    told = message.format(*places)
    assert said["validate"][::2] == (2, f"error: {here / file}: {told}\n")
    assert said["train"] == (2, "", f"{here / file}: {told}\n")
    assert said["impute"] == (2, "", f"{file}: {told}\n")
    assert sorted(path.name for path in here.iterdir()) == sorted(["spec.yaml", file])


HARMLESS: dict[str, Callable[[Cells], bytes]] = {
    "columns in another order": lambda cells: as_csv(dict(reversed(cells.items()))),
    "a mark and the line ends of Windows": lambda cells: b"\xef\xbb\xbf" + as_csv(cells, newline="\r\n"),
    "semicolons": lambda cells: as_csv(cells).replace(b",", b";"),
    "one more column": lambda cells: as_csv({**cells, "größe": [1.5] * ROWS}),
    "no identifiers": lambda cells: as_csv({**cells, "patient": [f"x{row}" for row in range(ROWS)]}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_gives_the_same_cells(call: Callable[..., Said], here: Path, trained: Path, name: str):
    (here / "rows.csv").write_bytes(HARMLESS[name](good()))
    for source, target in (("rows.csv", "other.csv"), (str(trained / "good.csv"), "same.csv")):
        assert call("impute", str(trained / "run"), source, "--out", target)[0] == 0
    read = [
        list(csv.DictReader(Path(file).read_text("utf-8-sig").splitlines(), delimiter=delimiter))
        for file, delimiter in (("other.csv", ";" if name == "semicolons" else ","), ("same.csv", ","))
    ]
    columns = [column for column in read[1][0] if column != "patient"]
    assert [[row[column] for column in columns] for row in read[0]] == [[row[column] for column in columns] for row in read[1]]


def test_a_row_with_nothing_is_a_warning_and_trains(call: Callable[..., Said], here: Path, trained: Path):
    cells = good()
    for column in ("age", "stage", "lab_0", "lab_1", "lab_2"):
        cells = at(column, 3, None)(cells)
    write(here / "rows.csv", cells)
    said = each_command(call, trained, "rows.csv")
    assert [code for code, *_ in said.values()] == [0, 0, 0]
    warnings = said["validate"][2].splitlines()
    assert warnings[0].startswith("warning: nothing is observed in row 3; ")
    assert "with nothing observed: 1 row" in said["impute"][2]


DAMAGED: dict[str, tuple[str, Callable[[Cells], bytes], str]] = {
    "no byte": ("rows.csv", lambda _: b"", "empty, expected a header with the names of columns, and rows"),
    "no byte of gzip": ("rows.csv.gz", lambda _: b"", "empty, expected a header with the names of columns, and rows"),
    "no byte of parquet": (
        "rows.parquet", lambda _: b"", "not a parquet file, or truncated or damaged (Parquet file size is 0 bytes)"
    ),
    "a cut gzip": ("rows.csv.gz", lambda cells: gzip.compress(as_csv(cells))[:-4],
        "not a gzip file, or truncated or damaged (Compressed file ended before the end-of-stream marker was reached)"),
    "another encoding": ("rows.csv", lambda cells: as_csv(at("stage", 3, "É")(cells)).decode().encode("latin-1"),
        "line 5: not text in UTF-8 (byte 0xc9); save it again as CSV UTF-8"),
    "parquet by another name": ("rows.csv", lambda _: b"PAR1\x15\x04\xf0,", "line 1: not text in UTF-8 (byte 0xf0); save it again as CSV "
        "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_cannot_be_read_is_told_by_every_command(call: Callable[..., Said], here: Path, trained: Path, name: str):
    file, damage, message = DAMAGED[name]
    (here / file).write_bytes(damage(good()))
    line = f"{here / file}: {message}\n"
    assert call("init", file) == (2, "", line)
    said = each_command(call, trained, file)
    assert (said["validate"][2], said["train"], said["impute"]) == (f"error: {line}", (2, "", line), (2, "", line))
    assert sorted(path.name for path in here.iterdir()) == sorted(["spec.yaml", file])
