"""Csv files as records of values with their raw text, so that unchanged cells can be written back verbatim.

Values are parsed by Python's ``csv``, which drops quotes; the raw text of each record is therefore kept as well. Files have one header
line, in UTF-8 with or without a byte-order mark, any line ends, plain or gzip; commas, semicolons, tabs or | separate columns.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from nbridge.common.messages import clip, listing
from nbridge.data.endings import GZIP, has_ending
from nbridge.data.names import Names, repeated
from nbridge.errors import DataError

SAMPLE, SAMPLE_LENGTH = 200, 2**20
"""Number of lines, and approximate number of their characters, from which the delimiter is inferred."""
LONGEST = 2**26
"""Maximum number of characters of a line."""
DELIMITERS = (",", ";", "\t", "|")
_BOM = b"\xef\xbb\xbf"
_UNREADABLE = (OSError, EOFError, zlib.error)


class Record(NamedTuple):
    """A row: the 1-based line in which it ends, its values, and its raw text without the line end."""

    line: int
    values: list[str]
    text: str


class CsvFile:
    """A csv file, with its header parsed.

    Attributes:
        columns: The names of its columns.
        header: Its raw header line.
        delimiter: The column separator.
        newline: The line end.
        bom: Whether it begins with a byte-order mark.

    Raises:
        DataError: when it can't be read, is empty, or has no header of unique names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reporting_damage(), self._opened() as file:
            self.bom = file.read(3) == _BOM
        with self._reporting_damage(), self._text() as text:
            lines = _sample(self._lines(text))
        if not any(map(str.strip, lines)):
            raise DataError(f"{path}: empty, expected a header with the names of columns, and rows")
        self.delimiter = _delimiter_of(lines, "\t" if has_ending(path, ".tsv", ".tsv.gz") else ",")
        header = next(self._records())
        last = lines[min(header.line, len(lines)) - 1]
        self.newline = last[len(last.rstrip("\r\n")) :] or "\n"
        self.header, self.columns = header.text, Names(value.strip() for value in header.values)
        self._check_header()

    def records(self) -> Iterator[Record]:
        """Iterates over the rows after the header; empty lines are skipped.

        Raises:
            DataError: for the first row that has too few or too many cells, or can't be read.
        """
        records = self._records()
        next(records)
        for row, record in enumerate(records):
            if len(record.values) != len(self.columns):
                found = f"{len(record.values)} cell{'s' if len(record.values) != 1 else ''}"
                raise DataError(f"{self.path}: row {row} (line {record.line}) has {found}, expected {len(self.columns)}, as the header has")
            yield record

    def _records(self) -> Iterator[Record]:
        with self._reporting_damage(), self._text() as text:
            pulled: list[str] = []

            def lines() -> Iterator[str]:
                for line in self._lines(text):
                    pulled.append(line)
                    yield line

            reader = csv.reader(lines(), delimiter=self.delimiter, strict=True)
            try:
                for values in reader:
                    content = "".join(pulled).rstrip("\r\n")
                    pulled.clear()
                    if content.strip(" "):
                        yield Record(reader.line_num, values, content)
            except csv.Error as error:
                raise DataError(f"{self.path}: line {reader.line_num}: not a row of a csv file ({error})") from error

    def _lines(self, text: IO[str]) -> Iterator[str]:
        for number, line in enumerate(iter(partial(text.readline, LONGEST + 1), ""), start=1):
            if len(line) > LONGEST:
                raise DataError(f"{self.path}: line {number} has more than {LONGEST:,} characters, expected a row")
            yield line

    def _check_header(self) -> None:
        if (twice := repeated(self.columns)) is not None:
            raise DataError(f"{self.path}: duplicate column {clip(twice)!r} in the header")
        if all(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", name) for name in self.columns):
            shown = listing(self.columns[:3])
            raise DataError(f"{self.path}: the first line holds numbers ({clip(shown)}), expected a header with the names of columns")

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with self.path.open("rb") as file:
            if has_ending(self.path, GZIP):
                with gzip.open(file) as content:
                    yield content  # pyright: ignore[reportReturnType] (it reads like a file)
            else:
                yield file

    @contextmanager
    def _text(self) -> Iterator[io.TextIOWrapper]:
        with self._opened() as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            yield text

    @contextmanager
    def _reporting_damage(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except UnicodeDecodeError as error:
            byte = f"0x{error.object[error.start]:02x}"
            line = self._undecodable_line()
            raise DataError(f"{self.path}: line {line}: not text in UTF-8 (byte {byte}); save it again as CSV UTF-8") from error
        except _UNREADABLE as error:
            gz = has_ending(self.path, GZIP)
            reason = getattr(error, "strerror", None) or str(error)
            what = "not a gzip file, or truncated or damaged" if gz else "cannot be read"
            raise DataError(f"{self.path}: {what} ({clip(reason, 100)})") from error

    def _undecodable_line(self) -> int:
        """The first line that is not valid UTF-8."""
        with self._opened() as file:
            return next((number for number, line in enumerate(file, start=1) if not _is_utf8(line)), 1)


def _delimiter_of(lines: Sequence[str], usual: str) -> str:
    """Infers the delimiter: the one for which most rows have as many cells as the header, then the most cells; quoted text is ignored.

    Arguments:
        lines: The first lines of a file, including blank ones.
        usual: The delimiter that the file name suggests, which wins ties.
    """
    text = list(filter(str.strip, lines))
    return max(dict.fromkeys((usual, *DELIMITERS)), key=lambda delimiter: _fit(text, delimiter))


def _fit(lines: Iterable[str], delimiter: str) -> tuple[bool, int]:
    """Whether a delimiter gives a header of several columns and most rows as many cells, and the number of columns.

    Arguments:
        lines: Lines of a file, the header first.
        delimiter: The delimiter.
    """
    counts, broken = list[int](), False
    try:
        for values in csv.reader(lines, delimiter=delimiter, strict=True):
            counts.append(len(values))
    except csv.Error:
        broken = True
    if not counts:
        return False, 0
    columns, rows = counts[0], len(counts) - 1 + broken
    return columns > 1 and 2 * counts[1:].count(columns) >= rows, columns


def _sample(text: Iterable[str]) -> list[str]:
    """The first lines of a file, fewer if they are long."""
    lines, length = list[str](), 0
    for line in islice(text, SAMPLE):
        lines.append(line)
        length += len(line)
        if length > SAMPLE_LENGTH:
            break
    return lines


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def split_text(text: str, values: Sequence[str], delimiter: str) -> list[str]:
    """Splits a record into its raw cells, including quotes.

    Example:
        >>> split_text('1,"a, b",', ["1", "a, b", ""], ",")
        ['1', '"a, b"', '']
    """
    if '"' not in text:
        return text.split(delimiter)
    cell = re.compile(f'"(?:[^"]|"")*"|[^{delimiter}]*')
    cells, place = [], 0
    while found := cell.match(text, place):
        cells.append(found[0])
        place = found.end() + 1
        if found.end() >= len(text):
            break
    return cells if len(cells) == len(values) else [as_cell(value, delimiter) for value in values]


def as_cell(value: str, delimiter: str) -> str:
    """Formats a value as a cell, quoted if necessary.

    Example:
        >>> as_cell("a,b", ","), as_cell("a,b", ";")
        ('"a,b"', 'a,b')
    """
    if any(character in value for character in (delimiter, '"', "\r", "\n")) or value != value.strip():
        return '"' + value.replace('"', '""') + '"'
    return value


class CsvWriter:
    """Writes a csv file with the line ends and the byte-order mark of another one, compressed on request."""

    def __init__(self, path: Path, like: CsvFile, *, packed: bool) -> None:
        self._newline = like.newline
        self._file = path.open("wb")
        # No name and no timestamp, so that equal rows give equal bytes.
        self._content = gzip.GzipFile(filename="", mode="wb", fileobj=self._file, mtime=0) if packed else self._file
        if like.bom:
            self._content.write(_BOM)

    def write(self, lines: Sequence[str]) -> None:
        """Writes lines, adding line ends."""
        self._content.write("".join(line + self._newline for line in lines).encode())

    def close(self) -> None:
        """Closes the file."""
        if self._content is not self._file:
            self._content.close()
        self._file.close()
