r"""Modalities guessed from the columns of a table: which of them belong together, and what their values mean.

Columns are grouped by the beginning of their names, before the last ``_``, ``.`` or ``-`` or before digits at the end, and by the rows from
which they are absent together. In a group, columns are parted by what they hold:

============== ==================================================================================================
classes        text of few different values, whole numbers of few; a modality each
binary         two different values
counts         whole numbers from 0 on
numbers        all others, standardised
left out       identifiers, free text, columns of one value or none
============== ==================================================================================================

However many columns there are, modalities are few: n of them have n (n - 1) bridges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from nbridge.data.cells import number_of, spelt_otherwise
from nbridge.data.profiles import Profile
from nbridge.data.table_layout import ADDED
from nbridge.names import free_name
from nbridge.phrases import clip, listing

Kind = Literal["classes", "binary", "counts", "numbers", "left out"]
MOST_MODALITIES = 8
"""More modalities than this are put together."""
CLASSES, FEW = 50, 10
"""Most classes of text, and most different whole numbers that are classes."""
ROWS_A_CLASS = 5
"""Rows that a class has on average, at least."""
ALIKE = 0.7
"""The share of absent rows, of all in which one of two columns is absent, from which on they are absent together."""
OFTEN = 0.02
"""The share of rows from which a column is absent at least for that to tell anything."""
ALONE = 3
"""Fewer columns of a kind than this join those of other groups."""


@dataclass(frozen=True)
class Guess:
    """A modality.

    Arguments:
        name: Its name.
        kind: What its columns hold.
        columns: Its columns.
        why: Why they are one, and are what they are taken for.
    """

    name: str
    kind: Kind
    columns: tuple[Profile, ...]
    why: str

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of columns that have them: of text, and of numbers that are classes."""
        coded = {"classes": lambda _: True, "binary": lambda column: column.distinct != (0, 1)}.get(self.kind, lambda _: False)
        return {column.name: column.texts for column in self.columns if not column.numeric or coded(column)}

    @property
    def size(self) -> int:
        """The number of its elements, or of its classes."""
        classes = self.classes
        widths = [len(classes.get(column.name, ())) for column in self.columns]
        return widths[0] if self.likelihood == "categorical" else sum(width if width > 2 else 1 for width in widths)

    @property
    def likelihood(self) -> str:
        """The likelihood of its values."""
        if self.kind == "classes":
            return "categorical" if len(self.columns) == 1 else "bernoulli"
        return {"binary": "bernoulli", "counts": "negative_binomial"}.get(self.kind, "normal")


@dataclass(frozen=True)
class Guesses:
    """What was guessed of a table.

    Arguments:
        modalities: The modalities.
        left_out: Columns that are in none, each with the reason.
    """

    modalities: tuple[Guess, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def guess_modalities(profiles: Sequence[Profile]) -> Guesses:
    """Modalities of columns.

    Arguments:
        profiles: The columns, without that of identifiers.
    """
    kinds = {profile.name: kind_of(profile) for profile in profiles}
    used = [profile for profile in profiles if kinds[profile.name][0] != "left out"]
    groups = [part for name, group in _by_name(used).items() for part in _by_absence(name, group)]
    guesses = list(_by_kind(groups, {name: kind for name, (kind, _) in kinds.items()}))
    guesses = _fewer(guesses)
    taken: set[str] = set()
    named = []
    for guess in guesses:
        taken.add(name := free_name(guess.name, taken))
        reason = kinds[guess.columns[0].name][1] if len(guess.columns) == 1 else _what(guess)
        named.append(replace(guess, name=name, why=f"{guess.why}; {reason}" if guess.why else reason))
    return Guesses(tuple(named), {name: reason for name, (kind, reason) in kinds.items() if kind == "left out"})


def kind_of(profile: Profile) -> tuple[Kind, str]:
    """What a column holds, and why it is taken for that."""
    rows, different = int(profile.present.sum()), len(profile.distinct if profile.numeric else profile.texts)
    if profile.name.endswith(ADDED):
        return "left out", "tells of other columns"
    if different < 2:
        return "left out", f"holds {clip(profile.texts[0])!r} alone" if profile.texts else "is empty"
    if profile.declared:
        return "binary" if different == 2 else "classes", f"{different} classes, which the data declare"
    if reason := _nothing_to_learn(profile):
        return "left out", reason
    if different == 2:
        return "binary", f"two values, {clip(listing(profile.texts[:2]))}"
    return _kind_of_numbers(profile, different, rows) if profile.numeric else _kind_of_text(profile, different, rows)


def _nothing_to_learn(profile: Profile) -> str:
    """Why a column of many values is none that a modality has; empty where it may be one."""
    if is_identifier(profile):
        return "looks like identifiers: whole numbers in a row, or text, that differ in all rows"
    return spelt_otherwise(profile.texts) if len(profile.texts) > FEW else ""


def _kind_of_numbers(profile: Profile, different: int, rows: int) -> tuple[Kind, str]:
    low, high = profile.distinct[0], profile.distinct[-1]
    if profile.whole and different <= FEW and high - low < 2 * FEW and different * ROWS_A_CLASS <= rows:
        return "classes", f"whole numbers of {different} different values, {low:g} to {high:g}"
    if profile.whole and low == 0:
        return "counts", f"whole numbers from 0 to {high:g}"
    return "numbers", "numbers, standardised"


def _kind_of_text(profile: Profile, different: int, rows: int) -> tuple[Kind, str]:
    if different <= CLASSES and different * ROWS_A_CLASS <= rows:
        return "classes", f"text of {different} different values"
    numbers = sum(number_of(text) is not None for text in profile.texts[:1000])
    mixed = " and numbers" if numbers else ""
    return "left out", f"text{mixed} of {different:,} different values in {rows:,} rows, too many for classes"


def is_identifier(profile: Profile) -> bool:
    """Whether a column tells rows apart, and nothing else: text, or whole numbers in a row, that differ in all rows."""
    rows = len(profile.codes)
    if rows < 2 * ROWS_A_CLASS or not profile.present.all() or len(profile.texts) < rows or spelt_otherwise(profile.texts):
        return False
    return not profile.numeric or (profile.whole and counts_rows(profile.values))


def counts_rows(values: np.ndarray) -> bool:
    """Whether whole numbers that all differ number the rows: they rise from row to row with few gaps, or have none.

    Example:
        >>> counts_rows(np.array([7, 8, 10])), counts_rows(np.array([2, 0, 1])), counts_rows(np.array([30, 18, 25]))
        (True, True, False)
    """
    span = np.ptp(values)
    return bool(span == len(values) - 1 or (span <= 2 * len(values) and (np.diff(values) > 0).all()))


def prefix_of(name: str) -> str:
    """The beginning of the name of a column, by which it is grouped; empty where it has none.

    Example:
        >>> [prefix_of(name) for name in ("lab_12", "gene.TP53", "x7", "age", "blood_pressure_sys")]
        ['lab', 'gene', 'x', '', 'blood_pressure']
    """
    stem, separator, _ = name.rpartition(max("_.-", key=name.rfind))
    if separator and stem.strip("_.- "):
        return stem.strip("_.- ")
    digits = name.rstrip("0123456789")
    return digits.strip("_.- ") if digits != name else ""


def _by_name(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    """Columns by the beginning of their names; those that share it with no other column under an empty one."""
    for cut in (prefix_of, lambda name: re.split(r"[_.\-]|\d+$", name)[0]):
        groups: dict[str, list[Profile]] = {}
        for profile in profiles:
            groups.setdefault(cut(profile.name), []).append(profile)
        shared = {name: group for name, group in groups.items() if name and len(group) > 1}
        if len(shared) < MOST_MODALITIES:
            break
    else:
        return {"": list(profiles)}
    alone = [profile for profile in profiles if not any(profile in group for group in shared.values())]
    return {**shared, **({"": alone} if alone else {})}


def _by_absence(name: str, group: Sequence[Profile]) -> list[tuple[str, str, list[Profile]]]:
    """Columns of a group by the rows that they are absent from together: names, reasons and columns; one group where they hang together."""
    blocks: list[list[Profile]] = []
    for profile in group:
        # Most columns of wide tables lack next to nothing, and none of these begins a block that counts.
        if (~profile.present).mean() < ALIKE * OFTEN:
            continue
        near = next((block for block in blocks if _absent_together(block[0].present, profile.present)), None)
        if near is None:
            blocks.append([profile])
        else:
            near.append(profile)
    large = [block for block in blocks if len(block) >= ALONE and (~block[0].present).mean() >= OFTEN]
    rest = [profile for profile in group if not any(profile in block for block in large)]
    named = f"names begin with {name}" if name else ""
    if not large or (len(large) == 1 and len(rest) < ALONE) or len(large) > MOST_MODALITIES // 2:
        return [(name, named, list(group))]
    parts = [*large, *([rest] if rest else [])]
    why = "absent from the same rows"
    return [(name, "; ".join(filter(None, (named, why if part is not rest else ""))), part) for part in parts]


def _absent_together(one: np.ndarray, other: np.ndarray) -> bool:
    either = (~one | ~other).sum()
    return bool(either and (~one & ~other).sum() >= ALIKE * either)


def _by_kind(groups: Iterable[tuple[str, str, list[Profile]]], kinds: Mapping[str, Kind]) -> Iterable[Guess]:
    """Modalities of one kind each; kinds of few columns in their group join those of other groups."""
    loose: dict[Kind, list[tuple[str, list[Profile]]]] = {}
    for name, why, group in groups:
        parts: dict[Kind, list[Profile]] = {}
        for profile, kind in _settled(name, group, kinds):
            parts.setdefault(kind, []).append(profile)
        for kind, columns in parts.items():
            if kind == "classes":
                yield from (Guess(column.name, kind, (column,), "") for column in columns)
            elif len(columns) >= ALONE or (name and len(parts) == 1):
                yield Guess(name if name and len(parts) == 1 else _called(name, kind), kind, tuple(columns), why)
            else:
                loose.setdefault(kind, []).append((name, columns))
    for kind, found in loose.items():
        columns = [column for _, part in found for column in part]
        name = _called(found[0][0], kind) if len({name for name, _ in found}) == 1 else kind
        yield Guess(columns[0].name if len(columns) == 1 else name, kind, tuple(columns), "")


def _settled(name: str, group: Sequence[Profile], kinds: Mapping[str, Kind]) -> list[tuple[Profile, Kind]]:
    """Kinds in the light of the group: whole numbers among counts are counts, and a few counts among numbers of one name are numbers."""
    found: dict[str, Kind] = {profile.name: kinds[profile.name] for profile in group}
    counts = [column for column, kind in found.items() if kind == "counts"]
    if len(counts) >= ALONE:
        for profile in group:
            few = found[profile.name] == "classes" or (found[profile.name] == "numbers" and 2 * len(counts) > len(group))
            if few and profile.whole and profile.distinct[0] >= 0:
                found[profile.name] = "counts"
    elif name and "numbers" in found.values():
        for column in counts:
            found[column] = "numbers"
    return [(profile, found[profile.name]) for profile in group]


def _called(name: str, kind: Kind) -> str:
    return (name if kind == "numbers" else f"{name}_{kind}") if name else kind


def _fewer(guesses: list[Guess]) -> list[Guess]:
    """No more modalities than may be: single classes become one modality, one-hot, and then the smallest of a kind are put together."""
    single = [guess for guess in guesses if guess.kind == "classes"]
    if len(guesses) > MOST_MODALITIES and len(single) > 1:
        others = [guess for guess in guesses if guess.kind != "classes"]
        columns = tuple(column for guess in single for column in guess.columns)
        guesses = [*others, Guess("classes", "classes", columns, "too many columns of classes for a modality each")]
    while len(guesses) > MOST_MODALITIES:
        kinds: list[Kind] = [guess.kind for guess in guesses]
        many = max(kinds, key=kinds.count)
        one, other = sorted((guess for guess in guesses if guess.kind == many), key=lambda guess: guess.size)[:2]
        joined = Guess(many, many, (*one.columns, *other.columns), "small groups put together")
        guesses = [joined if guess is one else guess for guess in guesses if guess is not other]
    return guesses


def _what(guess: Guess) -> str:
    """What several columns hold, in words."""
    count = len(guess.columns)
    return {
        "numbers": f"{count} columns of numbers, standardised",
        "counts": f"{count} columns of whole numbers from 0 on",
        "binary": f"{count} columns of two values",
        "classes": f"{count} columns of classes, one-hot",
    }[guess.kind]
