"""Profiles of table columns, for drafting a spec and for checking data against one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nbridge.data.ids import check_ids, identifier_of
from nbridge.data.tables.arrow import distinct, is_text, row_texts, value_type
from nbridge.data.tables.cells import is_padded, ordered_classes
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.numbers import Numbers, check_joinable, join
from nbridge.data.texts import EMPTY, exact_number_of, normal_text, number_of
from nbridge.errors import DataError, naming

EXACT = 2**53
"""Integers up to this one are exact as floats."""
FEW_WORDS, MARKED = 3, 0.8
"""Maximum number of distinct words in a numeric column, and minimum fraction of numbers, for the words to count as placeholders."""


@dataclass(frozen=True, eq=False)
class Profile:
    """A column.

    Arguments:
        name: Its name.
        texts: Its distinct texts in order, without placeholders.
        codes: The index of each row's text among them, (N,); -1 where absent.
        absent: The number of rows of each word that counts as absent: placeholders of the file, words among numbers, and empty texts
            in data that have null.
        declared: Whether the texts are classes declared by the data, in order.

    Attributes:
        numeric: Whether all values are numbers, and not codes: with leading zeros, or with more digits than a float can hold.
    """

    name: str
    texts: tuple[str, ...]
    codes: np.ndarray
    absent: Mapping[str, int] = field(default_factory=dict)
    declared: bool = False
    _numbers: tuple[float | None, ...] = field(init=False, repr=False, compare=False)
    numeric: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = tuple(map(number_of, self.texts))
        object.__setattr__(self, "_numbers", numbers)
        plain = bool(self.texts) and not self.declared and None not in numbers and not _are_codes(self.texts, numbers)
        object.__setattr__(self, "numeric", plain)

    @property
    def present(self) -> np.ndarray:
        """Which rows have a value, (N,)."""
        return self.codes >= 0

    @property
    def values(self) -> np.ndarray:
        """The numbers of a numeric column, (N,), NaN where absent."""
        known = np.array([np.nan if number is None else number for number in self._numbers] + [np.nan])
        return known[self.codes]

    @property
    def distinct(self) -> tuple[float, ...]:
        """The distinct numbers of a numeric column, in order: 1 and 1.0 are equal."""
        return tuple(sorted({number for number in self._numbers if number is not None}))

    @property
    def whole(self) -> bool:
        """Whether all values are integers."""
        return self.numeric and all(number == int(number) for number in self._numbers if number is not None)

    def counts(self) -> np.ndarray:
        """The number of rows of each text."""
        return np.bincount(self.codes[self.present], minlength=len(self.texts))

    def tally(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct numbers of a numeric column in order, and the number of rows of each, both (k,)."""
        numbers = np.array([number for number in self._numbers if number is not None])
        values, places = np.unique(numbers, return_inverse=True)
        return values, np.bincount(places, weights=self.counts()).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Vectors:
    """A column of lists of numbers.

    Arguments:
        name: Its name.
        array: The numbers, (N, n), NaN where absent.
        shape: The shape of a row.
        whole_bytes: Whether they are stored as bytes, as images are.
    """

    name: str
    array: np.ndarray
    shape: tuple[int, ...]
    whole_bytes: bool = False


@dataclass(frozen=True)
class Profiles:
    """All columns of a table.

    Arguments:
        columns: The scalar columns.
        vectors: The list columns.
        left_out: Unusable columns, with the reason.
        ids: The row identifiers; None if there are none.
        rows: The number of rows.
    """

    columns: list[Profile]
    vectors: list[Vectors]
    left_out: Mapping[str, str]
    ids: np.ndarray | None
    rows: int


def read_profiles(files: Sequence[TableFile], id_column: str | None) -> Profiles:
    """Profiles all columns of one file, or of several joined ones, and reads the row identifiers.

    Arguments:
        files: The files.
        id_column: The column of identifiers, if any; several files need it.

    Raises:
        DataError: when a file can't be read or has no rows, or rows can't be joined.
    """
    if id_column is not None and len(files) > 1:
        check_joinable(files, id_column)
    texts: dict[str, list[str]] = {}
    absent: dict[str, Counter[str]] = {}
    found = [_read(file, id_column, texts, absent) for file in files]
    read = join([numbers for numbers, *_ in found])
    shapes = {column: shape for _, vectors, _, _ in found for column, shape in vectors.items()}
    columns: list[Profile] = []
    vectors: list[Vectors] = []
    for column, values in read.numbers.items():
        file = next(file for file in files if column in file.columns)
        if column in shapes:
            vectors.append(Vectors(column, values, *shapes[column]))
        else:
            profile = _profile(column, texts[column], np.nan_to_num(values, nan=-1).astype(np.int64), absent[column])
            columns.append(_declared(profile, file.classes(column)))
    left_out = {column: reason for _, _, unfit, _ in found for column, reason in unfit.items()}
    return Profiles(columns, vectors, left_out, read.ids, found[0][3] if read.ids is None else len(read.ids))


_Found = tuple[Numbers, dict[str, tuple[tuple[int, ...], bool]], dict[str, str], int]


def _read(file: TableFile, id_column: str | None, texts: dict[str, list[str]], absent: dict[str, Counter[str]]) -> _Found:
    """Reads the columns of a file: scalars as indices into their distinct texts, vectors, the reasons why others are unusable, and rows.

    ``texts`` and ``absent`` receive the distinct texts of scalar columns, and the number of rows of the words that mark absent cells.
    """
    missing = file.absent
    absent |= {column: Counter() for column in file.columns}
    unfit = {column: reason for column in file.columns if column != id_column and (reason := file.unfit(column))}
    columns = [column for column in file.columns if column != id_column and column not in unfit and not file.is_list(column)]
    places: dict[str, dict[str, float]] = {column: dict.fromkeys(missing, np.nan) for column in columns}
    parts: dict[str, list[np.ndarray]] = {column: [] for column in columns}
    ids: list[str] = []
    rows = 0
    for chunk in file.chunks([*columns, *([id_column] if id_column is not None else [])]):
        rows += chunk.rows
        for column in columns:
            known = places[column]
            array = chunk.column(column)
            codes, different = distinct(array)
            words = list(map(normal_text, different))
            numbers = [known.setdefault(text, float(len(known) - len(missing))) for text in words]
            marks = {place: text for place, text in enumerate(words) if text in missing and text}
            if missing == EMPTY and is_text(value_type(array.type)):
                # Null comes last; an empty text is a value of the data that counts as absent.
                marks |= {place: text for place, text in enumerate(words[:-1]) if not text}
            absent[column].update(marks[code] for code in codes[np.isin(codes, list(marks))].tolist())
            parts[column].append(np.array(numbers)[codes])
        ids += [] if id_column is None else row_texts(chunk.column(id_column), identifier_of).tolist()
    if not rows:
        raise DataError(f"{file.path}: no rows")
    with naming(file.path):
        found = check_ids(ids, wording=file.id_wording(id_column)) if id_column is not None else None
    for column in columns:
        texts[column] = [text for text in places[column] if text not in missing]
    vectors = {column: _vectors(file, column) for column in file.columns if column not in unfit and file.is_list(column)}
    reasons = {column: array for column, array in vectors.items() if isinstance(array, str)}
    kept = {column: array for column, array in vectors.items() if not isinstance(array, str)}
    shapes = {column: (array.shape[1:], file.whole_bytes(column)) for column, array in kept.items()}
    numbers = {column: np.concatenate(part) for column, part in parts.items()}
    numbers |= {column: array.reshape(len(array), -1) for column, array in kept.items()}
    return Numbers(str(file.path), numbers, found), shapes, {**unfit, **reasons}, rows


def _vectors(file: TableFile, column: str) -> np.ndarray | str:
    """The vectors of a column, or the reason why they don't have one length."""
    try:
        parts = [chunk.vectors[column] for chunk in file.chunks([column])]
    except DataError:
        return "holds lists of several lengths"
    shapes = {part.shape[1:] for part in parts if part.size}
    if len(shapes) != 1:
        return "holds lists of several lengths" if shapes else "is empty"
    shape = shapes.pop()
    return np.concatenate([part if part.size else np.full((len(part), *shape), np.nan, np.float32) for part in parts])


def _are_codes(texts: Sequence[str], numbers: Sequence[float | None]) -> bool:
    """Whether numbers are codes: with leading zeros, or with more digits than floats hold, as in long keys."""
    if any(map(is_padded, texts)):
        return True
    large = [text for text, number in zip(texts, numbers, strict=True) if number is not None and abs(number) > EXACT]
    if len(large) == len(texts) and all(text.lstrip("+-").isdigit() for text in large):
        return bool(texts)
    return len({float(text) for text in large}) < len(set(map(exact_number_of, large)))


def _declared(profile: Profile, classes: tuple[str, ...]) -> Profile:
    """A column with declared classes, some of which may not occur."""
    classes = tuple(dict.fromkeys(map(normal_text, classes)))
    if not classes or not set(profile.texts) <= set(classes):
        return profile
    moved = np.array([*(classes.index(text) for text in profile.texts), -1], dtype=np.int64)
    return Profile(profile.name, classes, moved[profile.codes], profile.absent, declared=True)


def _profile(name: str, texts: Sequence[str], codes: np.ndarray, absent: Mapping[str, int]) -> Profile:
    """A column with sorted texts, from which placeholder words among numbers are removed."""
    rows = Counter(codes[codes >= 0].tolist())
    words = [place for place, text in enumerate(texts) if number_of(text) is None]
    numbers = sum(rows[place] for place in range(len(texts))) - sum(rows[place] for place in words)
    marked = 0 < len(words) <= FEW_WORDS and len(texts) - len(words) > 2 * FEW_WORDS and numbers >= MARKED * rows.total()
    kept = [text for place, text in enumerate(texts) if not marked or place not in words]
    ordered = ordered_classes(kept)
    place_of = {text: place for place, text in enumerate(ordered)}
    moved = np.array([place_of.get(text, -1) for text in texts] + [-1], dtype=np.int64)
    return Profile(name, ordered, moved[codes], {**absent, **({texts[place]: rows[place] for place in words} if marked else {})})
