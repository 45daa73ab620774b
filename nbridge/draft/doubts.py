"""Doubts about the cells of a table: numbers and words that may mark absent cells, or that were taken to do so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nbridge.common.messages import clip, quoted, some_of
from nbridge.data.tables.profiles import Profile
from nbridge.draft.columns import Guesses

NAMED = 12
"""Maximum number of columns listed in a remark, and of remarks of a kind."""
SENTINELS = frozenset(sign * number for sign in (-1, 1) for number in (99, 999, 9999, 99999))
"""Numbers that often encode a missing cell."""
PLACEHOLDERS = frozenset({
    "na", "n/a", "#n/a", "<na>", "n.a.", "nan", "nil", "none", "null", "missing", "not available", "unknown", "?", "-", "--", ".",
})  # fmt: skip
"""Words, in lower case, that often mark a missing cell."""


def columns_of(guesses: Guesses) -> list[Profile]:
    """The columns of all modalities."""
    return [column for guess in guesses.modalities for column in guess.columns]


def doubts_of(columns: Sequence[Profile]) -> list[str]:
    """Remarks on values that may mark absent cells, and on words among classes that were taken to do so."""
    return [*_limited(_sentinels(columns)), *_limited(_taken_words(columns)), *_limited(_placeholders(columns))]


def absent_words(columns: Sequence[Profile]) -> str:
    """The comment on the words that count as absent: in which columns, and in how many rows."""
    found: dict[str, list[str]] = {}
    for column in columns:
        for word, rows in ((word, rows) for word, rows in column.absent.items() if word):
            found.setdefault(word, []).append(f"{clip(column.name)} ({rows:,})")
    listed = "; ".join(f"{quoted(word)} in {some_of(names, NAMED)}" for word, names in sorted(found.items()))
    return f"words taken for absent cells, with the number of rows: {listed}"


def taken(word: str, rows: int) -> str:
    """The remark on a word that counts as absent."""
    if not word:
        return f"an empty text in {rows:,} rows is taken for absent; if it is a class, write a word in its place"
    return f"{quoted(word)} in {rows:,} rows is taken for absent; if it is a class, add it to data.classes"


def placeholder(word: str, rows: int) -> str:
    """The remark on a class that may mark absent cells, up to what to do then."""
    return f"{quoted(word)} in {rows:,} rows is a class; if it marks absent cells"


def is_placeholder(word: str) -> bool:
    """Whether a word often marks a missing cell.

    Example:
        >>> is_placeholder("None"), is_placeholder("nun")
        (True, False)
    """
    return word.lower() in PLACEHOLDERS


def _sentinels(columns: Sequence[Profile]) -> Iterator[str]:
    for column in (column for column in columns if column.numeric):
        for end, inner in ((column.distinct[0], column.distinct[1:]), (column.distinct[-1], column.distinct[:-1])):
            if end in SENTINELS and len(inner) > 2 and abs(end) > 3 * max(abs(inner[0]), abs(inner[-1])):
                rows = f"{int((column.values == end).sum()):,} rows"
                yield f"{clip(column.name)}: {end:g} in {rows}, far from all else; if it marks absent cells, data.missing: [{end:g}]"


def _taken_words(columns: Sequence[Profile]) -> Iterator[str]:
    for column in (column for column in columns if not column.numeric):
        for word, rows in column.absent.items():
            yield f"{clip(column.name)}: {taken(word, rows)}"


def _placeholders(columns: Sequence[Profile]) -> Iterator[str]:
    for column in (column for column in columns if not column.numeric):
        for word, rows in zip(column.texts, column.counts(), strict=True):
            if is_placeholder(word):
                yield f"{clip(column.name)}: {placeholder(word, int(rows))}, data.missing: [{quoted(word)}]"


def _limited(remarks: Iterator[str]) -> list[str]:
    found = list(remarks)
    return found[:NAMED] + ([f"{len(found) - NAMED:,} more remarks of this kind"] if len(found) > NAMED else [])
