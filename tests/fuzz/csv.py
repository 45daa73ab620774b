"""Damaged csv files: bytes of the text, and cells, rows and names of columns."""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path
from random import Random

import nbridge
from nbridge.spec.spec import Spec

from .mutations import NUMBERS, WORDS, damaged
from .rows import ROWS, model_of, small, use

COLUMNS = ["id", "age", "dose", "x0", "x1", "sex", "stage", "note"]
SHAPES = {
    "age": {"shape": 1, "likelihood": "normal"},
    "x": {"shape": 2, "likelihood": "normal"},
    "sex": {"shape": 2, "likelihood": "categorical"},
    "stage": {"shape": 3, "likelihood": "categorical"},
}
TABLE = {"age": ["age"], "x": ["x0", "x1"], "sex": ["sex"], "stage": ["stage"]}
CELLS = ("", "NA", "nan", "?", "None", "1,5", '"', "\t", "1e5", " 1", "-", "∞", "2020-01-01", "male", *NUMBERS, *WORDS)


@functools.cache
def cells() -> list[list[str]]:
    """The rows, with the names of columns first."""
    rng = Random(0)
    found = [COLUMNS]
    for row in range(ROWS):
        numbers = ["" if rng.random() < 0.2 else f"{rng.gauss(5, 2):.3f}" for _ in range(4)]
        classes = [rng.choice(("male", "female", "")), rng.choice(("I", "II", "III", ""))]
        found.append([f"p{row}", *numbers, *classes, f"note {row}"])
    return found


def text_of(rows: list[list[str]], delimiter: str = ",") -> str:
    """A csv file."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def spec(path: Path) -> Spec:
    """A spec of the rows in a file."""
    return small(SHAPES, {"source": "table", "path": str(path), "id": "id", "columns": TABLE})


@functools.cache
def model(folder: Path) -> nbridge.Model:
    """A model of the undamaged rows."""
    path = folder / "base.csv"
    path.write_text(text_of(cells()), encoding="utf-8")
    return model_of(spec(path))


def prepare(folder: Path) -> None:
    """Makes the model."""
    model(folder)


def case(rng: Random, folder: Path) -> None:
    """Uses a damaged table."""
    path = folder / "rows.csv"
    if rng.random() < 0.5:
        content = damaged(rng, text_of(cells(), rng.choice(",,;\t|")).encode())
    else:
        text = text_of(changed(rng, [list(row) for row in cells()]), rng.choice(",,;\t|"))
        content = text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace")
    path.write_bytes(content)
    use(rng, path, spec, model(folder.parent), unchanged)


def changed(rng: Random, rows: list[list[str]]) -> list[list[str]]:
    """A table of which one to ten things are changed."""
    for _ in range(rng.choice((1, 1, 2, 10))):
        row, column = rng.randrange(len(rows)), rng.randrange(len(COLUMNS))
        match rng.randrange(7):
            case 0:
                rows[row] = rows[row][:column]
            case 1:
                rows[row] = [*rows[row], rng.choice(CELLS)]
            case 2:
                word = rng.choice(CELLS)
                rows = [rows[0], *([*line[:column], word, *line[column + 1 :]] for line in rows[1:])]
            case 3:
                rows.insert(row, list(rows[rng.randrange(len(rows))]))
            case 4 if len(rows) > 1:
                del rows[row]
            case _:
                rows[row][column : column + 1] = [rng.choice(CELLS)]
    return rows


def unchanged(before: Path, after: Path) -> None:
    """Cells that were filled are those that were empty or a word for absence."""
    texts = [path.read_bytes().decode("utf-8-sig") for path in (before, after)]
    delimiter = max(",;\t|", key=texts[0].partition("\n")[0].count)
    old, new = (list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)) for text in texts)
    assert len(old) == len(new), "another number of rows"
    absent = {"", "na", "nan", "null", "none", "n/a", "<na>", "-nan", "#n/a", "?"}
    for one, other in zip(old, new, strict=True):
        for name, cell in one.items():
            if name in other and cell != other[name]:
                assert isinstance(cell, str), name
                assert cell.strip().lower() in absent, f"{name}: {cell!r} became {other[name]!r}"
