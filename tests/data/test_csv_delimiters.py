"""The delimiter of a csv file: found by the header and the rows under it, whatever stands in quotes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbridge.data.tables.csv import CsvFile, as_cell
from nbridge.errors import DataError

DELIMITERS = ",;\t"


def read(path: Path) -> tuple[tuple[str, ...], list[list[str]], str]:
    file = CsvFile(path)
    return file.columns, [record.values for record in file.records()], file.delimiter


@pytest.mark.parametrize(
    ("text", "columns", "delimiter"),
    [
        ('"last, first";"age, in years"\n"Doe, J";5\n', ("last, first", "age, in years"), ";"),
        ('"a;b;c","d"\n1,2\n', ("a;b;c", "d"), ","),
        ('"a,b"\t"c,d;e"\n1\t2\n', ("a,b", "c,d;e"), "\t"),
        ('"two ""quotes"", or, more";b\n"1";2\n', ('two "quotes", or, more', "b"), ";"),
        ('"a\nb, c, d";e\n1;2\n', ("a\nb, c, d", "e"), ";"),
        ("a;b\n1,5;2,5\n0,5;3,0\n", ("a", "b"), ";"),
        ("height, in cm, of men;age\n1;2\n3;4\n", ("height, in cm, of men", "age"), ";"),
        ("a,b;c\n1,2\n3,4\n", ("a", "b;c"), ","),
        ('a;b\n"x, y, z";1\n"u, v, w";2\n', ("a", "b"), ";"),
        ("a;b\n", ("a", "b"), ";"),
        ("a\n1\n", ("a",), ","),
    ],
)
def test_the_delimiter_is_what_fits_the_header_and_the_rows(tmp_path: Path, text: str, columns: tuple[str, ...], delimiter: str):
    (tmp_path / "rows.csv").write_bytes(text.encode())
    found, rows, used = read(tmp_path / "rows.csv")
    assert (found, used) == (columns, delimiter)
    assert all(len(row) == len(columns) for row in rows)


@given(
    st.sampled_from(DELIMITERS),
    st.lists(st.lists(st.text("ab,;\t\"'\n ", min_size=1), min_size=2, max_size=2), min_size=1, max_size=6),
)
def test_cells_in_quotes_never_decide(tmp_path_factory: pytest.TempPathFactory, delimiter: str, rows: list[list[str]]):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    header = ["x, y; z, 1; 2\tu", "age, in\tyears; or, months"]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in (header, *rows)]
    path.write_bytes(("\n".join(map(delimiter.join, quoted)) + "\n").encode())
    columns, found, used = read(path)
    assert (columns, found, used) == (tuple(header), rows, delimiter)


def test_a_ragged_row_is_a_mistake_of_the_row_and_not_another_delimiter(tmp_path: Path):
    (tmp_path / "rows.csv").write_bytes(b"a,b,c;d\n1,2,3\n1,2\n1,2,3\n")
    file = CsvFile(tmp_path / "rows.csv")
    assert file.columns == ("a", "b", "c;d")
    with pytest.raises(DataError, match=r"row 1 \(line 3\) has 2 cells, expected 3, as the header has"):
        list(file.records())


def test_lines_end_as_the_header_does_whatever_stands_in_its_quotes(tmp_path: Path):
    (tmp_path / "rows.csv").write_bytes(b'"a\nb",c\r\n1,2\r\n')
    assert CsvFile(tmp_path / "rows.csv").newline == "\r\n"


def test_a_cell_that_is_written_is_read_by_the_same_delimiter(tmp_path: Path):
    cells = ["last, first", "a; b", "c\td"]
    for delimiter in DELIMITERS:
        line = delimiter.join(as_cell(cell, delimiter) for cell in cells)
        (tmp_path / "rows.csv").write_text(f"{line}\n{line}\n")
        assert read(tmp_path / "rows.csv") == (tuple(cells), [cells], delimiter)
