r"""Infers modalities from the columns of a table.

Columns are grouped by the first prefix that their names share, with any separator, and by the rows in which they are missing together.
Within a group, columns are separated by kind:

============== ==================================================================================================
classes        text and whole numbers that repeat; one modality each
binary         two distinct values
counts         nonnegative whole numbers, mostly small, or counts by name
numbers        other numbers, standardised
left out       identifiers, dates, free text, constant or empty columns
============== ==================================================================================================

The number of modalities is limited, because n modalities have n (n - 1) bridges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.dates import holds_dates, is_date, is_duration, is_time_of_day
from nbridge.data.ids import counts_rows
from nbridge.data.output_names import described_by
from nbridge.data.tables.cells import exact_number_of, is_padded, number_of
from nbridge.data.tables.profiles import Profile
from nbridge.draft.column_kinds import FEW, OR_COUNTS, ROWS_A_CLASS, ColumnKind, Kind, Tally, kind_of_numbers, kind_of_text
from nbridge.draft.name_groups import SMALLEST, group_by_prefix
from nbridge.draft.spelling import maybe_codes, same_but_for_case, spelt_otherwise
from nbridge.spec.names import free_name

MOST_MODALITIES = 8
"""Maximum number of modalities; further ones are merged."""
ALIKE = 0.7
"""Minimum Jaccard index of the missing rows of two columns that are missing together."""
OFTEN = 0.02
"""Minimum share of missing rows for a column to be grouped by them."""
ALONE = 3
"""Fewer columns of a kind than this are merged with those of other groups."""
NAMED = 6
"""Maximum number of columns listed in a reason."""


@dataclass(frozen=True)
class Guess:
    """An inferred modality."""

    name: str
    kind: Kind
    columns: tuple[Profile, ...]
    why: str
    group: str = ""

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of categorical columns, of text or numbers."""
        coded = {"classes": lambda _: True, "binary": lambda column: column.distinct != (0, 1)}.get(self.kind, lambda _: False)
        return {column.name: _spellings(column) for column in self.columns if not column.numeric or coded(column)}

    @property
    def size(self) -> int:
        """The number of elements, or of classes."""
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
    """Inferred modalities of a table."""

    modalities: tuple[Guess, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def guess_modalities(profiles: Sequence[Profile]) -> Guesses:
    """Infers the modalities of columns. Identifiers are not among them."""
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
    """Describes the number of missing cells per column; empty if there are none."""
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
    """Infers the kind of a column, with the reason."""
    different = len(profile.distinct if profile.numeric else profile.texts)
    if reason := _nothing_to_learn(profile, different):
        return ColumnKind("left out", reason)
    if doubt := _doubt_of_spelling(profile):
        found = _kind_of_values(profile, different)
        return replace(found, doubt="; ".join(filter(None, (found.doubt, doubt))))
    return _kind_of_values(profile, different)


def _doubt_of_spelling(profile: Profile) -> str:
    if profile.numeric:
        return maybe_codes(profile.texts)
    if profile.declared:
        return ""
    spelt = spelt_otherwise(profile.texts)
    return f"could also be numbers: {spelt}" if spelt else same_but_for_case(profile.texts)


def _kind_of_values(profile: Profile, different: int) -> ColumnKind:
    if profile.declared:
        return ColumnKind("binary" if different == 2 else "classes", f"{different} classes, which the data declare", certain=True)
    if different == 2:
        return ColumnKind("binary", f"two values, {clip(listing(_spellings(profile)))}")
    if profile.numeric:
        return kind_of_numbers(profile.name, Tally(*profile.tally()))
    found = kind_of_text(profile.name, profile.counts(), _what_texts_are(profile.texts))
    words = [text for text in profile.texts if number_of(text) is None]
    if found.kind == "left out" and 0 < len(words) <= NAMED and len(profile.texts) > 2 * len(words) + FEW:
        listed = ", ".join(map(quoted, words))
        return replace(found, why=f"{found.why}; all but {listed} are numbers: if these mark absent cells, data.missing: [{listed}]")
    return found


def _what_texts_are(texts: Sequence[str]) -> str:
    """A word for texts; codes are numbers with leading zeros."""
    numbers = sum(number_of(text) is not None for text in texts[:1000])
    if numbers == min(len(texts), 1000):
        return "codes" if any(map(is_padded, texts)) else "numbers too long to calculate with"
    return "text and numbers" if numbers else "text"


def _nothing_to_learn(profile: Profile, different: int) -> str:
    """The reason why a column is in no modality; empty if it can be."""
    if described_by(profile.name) is not None:
        return "describes other columns"
    if different < 2:
        words = f", beside {listing(map(quoted, profile.absent))}, taken for absent cells" if profile.absent else ""
        return (f"holds {clip(profile.texts[0])!r} alone" if profile.texts else "is empty") + words
    if profile.declared:
        return ""
    if reason := why_dates(profile):
        return reason
    if is_identifier(profile):
        return "looks like identifiers: whole numbers in a row, or text, that differ in all rows"
    return spelt_otherwise(profile.texts) if len(profile.texts) > FEW else ""


def why_dates(profile: Profile) -> str:
    """The reason why a column of dates or times is left out; empty for other columns."""
    if holds_dates(profile.texts):
        first = next(text for text in profile.texts if is_date(text))
        return f"holds dates, such as {clip(first)!r}, which are no numbers; count days since one of them"
    if len(profile.texts) > FEW and all(map(is_time_of_day, profile.texts)):
        return f"holds times of day, such as {clip(profile.texts[0])!r}, which are no numbers; count minutes since midnight"
    if len(profile.texts) > FEW and all(map(is_duration, profile.texts)):
        return f"holds durations, such as {clip(profile.texts[0])!r}, which are no numbers; write all in one unit, such as minutes"
    return ""


def _spellings(profile: Profile) -> tuple[str, ...]:
    """The texts of classes, one per number if numbers have several spellings, such as 1 and 1.0."""
    return tuple({exact_number_of(text): text for text in reversed(profile.texts)}.values())[::-1] if profile.numeric else profile.texts


def is_identifier(profile: Profile) -> bool:
    """Whether a column consists of identifiers: text or consecutive whole numbers, different in all rows."""
    rows = len(profile.codes)
    if rows < 2 * ROWS_A_CLASS or not profile.present.all() or len(profile.texts) < rows or spelt_otherwise(profile.texts):
        return False
    return not why_dates(profile) and (not profile.numeric or (profile.whole and counts_rows(profile.values)))


def _by_name(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    """Groups columns by the first prefix that their names share; the others have an empty prefix."""
    columns = {profile.name: profile for profile in profiles}
    return {prefix: [columns[name] for name in names] for prefix, names in group_by_prefix(list(columns), MOST_MODALITIES).items()}


def _by_absence(name: str, group: Sequence[Profile]) -> list[tuple[str, str, list[Profile]]]:
    """Divides a group by the rows in which columns are missing together; returns names, reasons and columns."""
    blocks: list[list[Profile]] = []
    for profile in group:
        # Most columns of wide tables have hardly any missing rows, and cannot start a block that is large enough.
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
    why = "missing in the same rows"
    return [(name, "; ".join(filter(None, (named, why if part is not rest else ""))), part) for part in parts]


def _absent_together(one: np.ndarray, other: np.ndarray) -> bool:
    either = (~one | ~other).sum()
    return bool(either and (~one & ~other).sum() >= ALIKE * either)


def _by_kind(groups: Iterable[tuple[str, str, list[Profile]]], kinds: Mapping[str, ColumnKind]) -> Iterable[Guess]:
    """Makes modalities of one kind each; kinds with few columns in their group are merged across groups."""
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
    """Adjusts kinds to the other columns of the group, unless column names make them certain.

    Whole numbers among counts become counts, a few counts among numbers with a common prefix become numbers, and columns that could be
    counts and have different ranges all become counts.
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
    """Reduces the number of modalities to `MOST_MODALITIES`.

    First, single categorical columns with a common prefix are merged into one one-hot modality, then all of them, and then the smallest
    modalities of a kind.
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
    """The most common prefix of single categorical columns; empty if there is none."""
    names = [guess.group for guess in guesses if guess.group and _is_single(guess)]
    most = max(names, key=names.count, default="")
    return most if names.count(most) >= SMALLEST else ""


def _together(guesses: Sequence[Guess], joined: Sequence[Guess], name: str) -> list[Guess]:
    """Merges categorical columns into one one-hot modality."""
    columns = tuple(column for guess in joined for column in guess.columns)
    why = f"names begin with {name}" if name else "too many columns of classes for a modality each"
    return [*(guess for guess in guesses if guess not in joined), Guess(name or "classes", "classes", columns, why)]


def _what(guess: Guess, kinds: Mapping[str, ColumnKind]) -> str:
    """Describes the kind of columns, with possible alternatives."""
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
