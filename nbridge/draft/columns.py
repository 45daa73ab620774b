r"""Modalities guessed from the columns of a table: which of them belong together, and what their values mean.

Columns are grouped by the first prefix that their names share, whatever separates it, and by the rows from which they are absent together.
In a group, columns are parted by what they hold:

============== ==================================================================================================
classes        text, and whole numbers, that repeat; a modality each
binary         two different values
counts         whole numbers from 0 on of which small ones prevail, or that are counts by their name
numbers        all others, standardised
left out       identifiers, dates, free text, columns of one value or none
============== ==================================================================================================

However many columns there are, modalities are few: n of them have n (n - 1) bridges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.data.dates import holds_dates, is_date, is_time_of_day
from nbridge.data.tables.cells import exact_number_of, is_padded, number_of, spelt_otherwise
from nbridge.data.tables.layout import ADDED
from nbridge.data.tables.profiles import Profile
from nbridge.draft.column_kinds import FEW, OR_COUNTS, ROWS_A_CLASS, ColumnKind, Kind, Tally, kind_of_numbers, kind_of_text
from nbridge.draft.name_groups import SMALLEST, group_by_prefix
from nbridge.spec.names import free_name

MOST_MODALITIES = 8
"""More modalities than this are put together."""
ALIKE = 0.7
"""The share of absent rows, of all in which one of two columns is absent, from which on they are absent together."""
OFTEN = 0.02
"""The share of rows from which a column is absent at least for that to tell anything."""
ALONE = 3
"""Fewer columns of a kind than this join those of other groups."""
NAMED = 6
"""Columns that a reason names."""


@dataclass(frozen=True)
class Guess:
    """A modality.

    Arguments:
        name: Its name.
        kind: What its columns hold.
        columns: Its columns.
        why: Why they are one, and are what they are taken for.
        group: The prefix that their names share.
    """

    name: str
    kind: Kind
    columns: tuple[Profile, ...]
    why: str
    group: str = ""

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of columns that have them: of text, and of numbers that are classes."""
        coded = {"classes": lambda _: True, "binary": lambda column: column.distinct != (0, 1)}.get(self.kind, lambda _: False)
        return {column.name: _spellings(column) for column in self.columns if not column.numeric or coded(column)}

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
    used = [profile for profile in profiles if kinds[profile.name].kind != "left out"]
    groups = [part for name, group in _by_name(used).items() for part in _by_absence(name, group)]
    guesses = _fewer(list(_by_kind(groups, kinds)))
    taken: set[str] = set()
    named = []
    for guess in guesses:
        taken.add(name := free_name(guess.name, taken))
        named.append(replace(guess, name=name, why="; ".join(filter(None, (guess.why, _what(guess, kinds), empty_cells(guess.columns))))))
    return Guesses(tuple(named), {name: found.why for name, found in kinds.items() if found.kind == "left out"})


def empty_cells(columns: Sequence[Profile]) -> str:
    """How many rows lack columns, in words; empty where none does."""
    lacking = {column.name: int((~column.present).sum()) for column in columns}
    lacking = {name: rows for name, rows in lacking.items() if rows}
    if not lacking:
        return ""
    total = f"of {len(columns[0].codes):,} rows"
    counts = set(lacking.values())
    if len(lacking) == len(columns) and len(counts) == 1:
        return f"empty in {counts.pop():,} {total}"
    most = sorted(lacking, key=lambda name: -lacking[name])
    shown = listing(f"{clip(name)} {lacking[name]:,}" for name in most[:NAMED])
    return f"empty cells {total}: {shown}" + (f" and {len(most) - NAMED:,} more columns" if len(most) > NAMED else "")


def kind_of(profile: Profile) -> ColumnKind:
    """What a column holds, and why it is taken for that."""
    different = len(profile.distinct if profile.numeric else profile.texts)
    if reason := _nothing_to_learn(profile, different):
        return ColumnKind("left out", reason)
    if profile.declared:
        return ColumnKind("binary" if different == 2 else "classes", f"{different} classes, which the data declare", certain=True)
    if different == 2:
        return ColumnKind("binary", f"two values, {clip(listing(_spellings(profile)))}")
    if profile.numeric:
        return kind_of_numbers(profile.name, Tally(*profile.tally()))
    return kind_of_text(profile.name, profile.counts(), _what_texts_are(profile.texts))


def _what_texts_are(texts: Sequence[str]) -> str:
    """A word for texts: those of a column of codes are all numbers that must not be calculated with."""
    numbers = sum(number_of(text) is not None for text in texts[:1000])
    if numbers == min(len(texts), 1000):
        return "codes" if any(map(is_padded, texts)) else "numbers too long to calculate with"
    return "text and numbers" if numbers else "text"


def _nothing_to_learn(profile: Profile, different: int) -> str:
    """Why a column is none that a modality has; empty where it may be one."""
    if profile.name.endswith(ADDED):
        return "tells of other columns"
    if different < 2:
        return f"holds {clip(profile.texts[0])!r} alone" if profile.texts else "is empty"
    if profile.declared:
        return ""
    if reason := why_dates(profile):
        return reason
    if is_identifier(profile):
        return "looks like identifiers: whole numbers in a row, or text, that differ in all rows"
    return spelt_otherwise(profile.texts) if len(profile.texts) > FEW else ""


def why_dates(profile: Profile) -> str:
    """Why a column of dates is left out; empty where it holds something else."""
    if holds_dates(profile.texts):
        first = next(text for text in profile.texts if is_date(text))
        return f"holds dates, such as {clip(first)!r}, which are no numbers; count days since one of them"
    if len(profile.texts) > FEW and all(map(is_time_of_day, profile.texts)):
        return f"holds times of day, such as {clip(profile.texts[0])!r}, which are no numbers; count minutes since midnight"
    return ""


def _spellings(profile: Profile) -> tuple[str, ...]:
    """The texts of classes, one for each number where numbers are spelt in several ways, such as 1 and 1.0."""
    return tuple({exact_number_of(text): text for text in reversed(profile.texts)}.values())[::-1] if profile.numeric else profile.texts


def is_identifier(profile: Profile) -> bool:
    """Whether a column tells rows apart, and nothing else: text, or whole numbers in a row, that differ in all rows."""
    rows = len(profile.codes)
    if rows < 2 * ROWS_A_CLASS or not profile.present.all() or len(profile.texts) < rows or spelt_otherwise(profile.texts):
        return False
    return not why_dates(profile) and (not profile.numeric or (profile.whole and counts_rows(profile.values)))


def counts_rows(values: np.ndarray) -> bool:
    """Whether whole numbers that all differ number the rows: they rise from row to row with few gaps, or have none.

    Example:
        >>> counts_rows(np.array([7, 8, 10])), counts_rows(np.array([2, 0, 1])), counts_rows(np.array([30, 18, 25]))
        (True, True, False)
    """
    span = np.ptp(values)
    return bool(span == len(values) - 1 or (span <= 2 * len(values) and (np.diff(values) > 0).all()))


def _by_name(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    """Columns by the first prefix that their names share; those that share none under an empty one."""
    columns = {profile.name: profile for profile in profiles}
    return {prefix: [columns[name] for name in names] for prefix, names in group_by_prefix(list(columns), MOST_MODALITIES).items()}


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


def _by_kind(groups: Iterable[tuple[str, str, list[Profile]]], kinds: Mapping[str, ColumnKind]) -> Iterable[Guess]:
    """Modalities of one kind each; kinds of few columns in their group join those of other groups."""
    loose: dict[Kind, list[tuple[str, list[Profile]]]] = {}
    for name, why, group in groups:
        parts: dict[Kind, list[Profile]] = {}
        for profile, kind in _settled(name, group, kinds):
            parts.setdefault(kind, []).append(profile)
        one = len(parts.keys() - {"classes"}) == 1
        for kind, columns in parts.items():
            if kind == "classes":
                yield from (Guess(column.name, kind, (column,), "", name) for column in columns)
            elif len(columns) >= ALONE or (name and one and len(columns) >= SMALLEST):
                yield Guess(name if name and one else _called(name, kind), kind, tuple(columns), why, name)
            else:
                loose.setdefault(kind, []).append((name, columns))
    for kind, found in loose.items():
        columns = [column for _, part in found for column in part]
        name = _called(found[0][0], kind) if len({name for name, _ in found}) == 1 else kind
        yield Guess(columns[0].name if len(columns) == 1 else name, kind, tuple(columns), "")


def _settled(name: str, group: Sequence[Profile], kinds: Mapping[str, ColumnKind]) -> list[tuple[Profile, Kind]]:
    """Kinds in the light of the group, but for those that names make certain.

    Whole numbers among counts are counts, a few counts among numbers of one name are numbers, and columns that could be counts and have
    different ranges are counts together.
    """
    found: dict[str, Kind] = {profile.name: kinds[profile.name].kind for profile in group}
    open_ = [profile for profile in group if not kinds[profile.name].certain]
    counts = [column for column, kind in found.items() if kind == "counts"]
    small = [
        profile for profile in open_ if found[profile.name] == "classes" and profile.numeric and kinds[profile.name].doubt == OR_COUNTS
    ]
    if len(counts) >= ALONE:
        for profile in open_:
            few = found[profile.name] == "classes" or (found[profile.name] == "numbers" and 2 * len(counts) > len(group))
            if few and profile.whole and profile.distinct[0] >= 0:
                found[profile.name] = "counts"
    elif name and "numbers" in found.values():
        for column in counts:
            found[column] = "counts" if kinds[column].certain else "numbers"
    elif name and len(small) >= ALONE and len({profile.distinct[-1] for profile in small}) > 1:
        found |= dict.fromkeys((profile.name for profile in small), "counts")
    return [(profile, found[profile.name]) for profile in group]


def _called(name: str, kind: Kind) -> str:
    return (name if kind == "numbers" else f"{name}_{kind}") if name else kind


def _fewer(guesses: list[Guess]) -> list[Guess]:
    """No more modalities than may be.

    Single classes of one name become one modality, one-hot, then all single classes, and then the smallest of a kind are put together.
    """
    while len(guesses) > MOST_MODALITIES and (name := _most_common_group(guesses)):
        guesses = _together(guesses, [guess for guess in guesses if _is_single(guess) and guess.group == name], name)
    if len(guesses) > MOST_MODALITIES and sum(map(_is_single, guesses)) > 1:
        guesses = _together(guesses, [guess for guess in guesses if _is_single(guess)], "")
    while len(guesses) > MOST_MODALITIES:
        kinds: list[Kind] = [guess.kind for guess in guesses]
        many = max(kinds, key=kinds.count)
        one, other = sorted((guess for guess in guesses if guess.kind == many), key=lambda guess: guess.size)[:2]
        joined = Guess(many, many, (*one.columns, *other.columns), "small groups put together")
        guesses = [joined if guess is one else guess for guess in guesses if guess is not other]
    return guesses


def _is_single(guess: Guess) -> bool:
    return guess.kind == "classes" and len(guess.columns) == 1


def _most_common_group(guesses: Sequence[Guess]) -> str:
    """The name that most single classes have in common; empty where there is none."""
    names = [guess.group for guess in guesses if guess.group and _is_single(guess)]
    most = max(names, key=names.count, default="")
    return most if names.count(most) >= SMALLEST else ""


def _together(guesses: Sequence[Guess], joined: Sequence[Guess], name: str) -> list[Guess]:
    """Classes as one modality, one-hot."""
    columns = tuple(column for guess in joined for column in guess.columns)
    why = f"names begin with {name}" if name else "too many columns of classes for a modality each"
    return [*(guess for guess in guesses if guess not in joined), Guess(name or "classes", "classes", columns, why)]


def _what(guess: Guess, kinds: Mapping[str, ColumnKind]) -> str:
    """What columns hold, in words, with what else they could be."""
    if len(guess.columns) == 1:
        return kinds[guess.columns[0].name].reason
    count = len(guess.columns)
    what = {
        "numbers": f"{count} columns of numbers, standardised",
        "counts": f"{count} columns of whole numbers from 0 on",
        "binary": f"{count} columns of two values",
        "classes": f"{count} columns of classes, one-hot",
    }[guess.kind]
    doubts: dict[str, list[str]] = {}
    for column in guess.columns:
        if doubt := kinds[column.name].doubt:
            doubts.setdefault(doubt.partition(":")[0], []).append(clip(column.name))
    shown = [
        f"{listing(names[:NAMED])}{f' and {len(names) - NAMED:,} more' if len(names) > NAMED else ''} {doubt}"
        for doubt, names in doubts.items()
        if doubt != f"could also be {guess.kind}"
    ]
    return "; ".join((what, *shown))
