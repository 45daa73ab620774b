r"""Infers modalities from the columns of a table.

Columns are grouped (`nbridge.draft.grouping`), and each column has a kind:

============== ==================================================================================================
classes        text and whole numbers that repeat
binary         two distinct values
counts         nonnegative whole numbers, mostly small, or counts by name
numbers        other numbers
left out       identifiers, dates, free text, constant or empty columns
============== ==================================================================================================

A group is one modality, whatever its columns are: a mixed one, except that a single column of classes, and columns of numbers, of counts or
of two values that are present in the same rows, or that are many, have a likelihood of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.dates import holds_dates, is_date, is_duration, is_time_of_day
from nbridge.data.ids import counts_rows
from nbridge.data.output_names import described_by
from nbridge.data.tables.cells import exact_number_of, is_padded, number_of
from nbridge.data.tables.profiles import Profile
from nbridge.draft.column_kinds import FEW, OR_NUMBERS, ROWS_A_CLASS, ColumnKind, Tally, kind_of_numbers, kind_of_text
from nbridge.draft.grouping import Group, group_columns
from nbridge.draft.mixed_kinds import column_likelihood
from nbridge.draft.spelling import maybe_codes, same_but_for_case, spelt_otherwise
from nbridge.spec import columns as spec_columns
from nbridge.spec.mixed import MIXED
from nbridge.spec.names import free_name

NAMED = 6
"""Maximum number of columns listed in a reason."""
PROSE = 3
"""Minimum number of words of a text that is no code or name."""
_WORD = re.compile(r"(?<!\S)[^\W\d_]{2,}(?=[\s.,;:!?)'’-]|$)")
"""A word: letters between spaces or before punctuation, so that parts of codes are not words."""


@dataclass(frozen=True)
class Guess:
    """An inferred modality, with the reason, and the likelihood of each column."""

    name: str
    columns: tuple[Profile, ...]
    kinds: Mapping[str, spec_columns.ColumnKind]
    likelihood: str
    why: str = ""

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of categorical columns, of text or numbers."""
        return {column.name: classes for column in self.columns if (classes := classes_of(column, self.kinds[column.name]))}

    @property
    def size(self) -> int:
        """The number of elements, or of classes."""
        if self.likelihood == "categorical":
            return len(self.classes[self.columns[0].name])
        return spec_columns.width_of(self.kinds) if self.likelihood == MIXED else len(self.columns)


@dataclass(frozen=True)
class Guesses:
    """Inferred modalities of a table."""

    modalities: tuple[Guess, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def guess_modalities(profiles: Sequence[Profile], homes: Mapping[str, str]) -> Guesses:
    """Infers the modalities of columns. Identifiers are not among them.

    Arguments:
        profiles: The columns.
        homes: The name of the table of each column.
    """
    kinds = {profile.name: kind_of(profile) for profile in profiles}
    used = [profile for profile in profiles if kinds[profile.name].kind != "left out"]
    taken: set[str] = set()
    found = []
    for group in group_columns(used, kinds, homes):
        alone = len(group.columns) == 1
        taken.add(name := free_name(group.columns[0].name if alone else group.name, taken))
        found.append(_guess(name, group, kinds))
    return Guesses(tuple(found), {name: found.why for name, found in kinds.items() if found.kind == "left out"})


def classes_of(profile: Profile, kind: spec_columns.ColumnKind) -> tuple[str, ...]:
    """The texts of the classes of a column; none for numbers, also if they are 0 and 1."""
    if kind.type in spec_columns.CLASSES or not profile.numeric or (kind.binary and profile.distinct != (0, 1)):
        return _spellings(profile)
    return ()


def _guess(name: str, group: Group, kinds: Mapping[str, ColumnKind]) -> Guess:
    """The modality of a group."""
    tallies = {one.name: Tally(*one.tally()) if one.numeric else None for one in group.columns}
    likelihoods = {
        one.name: column_likelihood(one.name, group.kinds[one.name], tallies[one.name], len(_spellings(one))) for one in group.columns
    }
    likelihood = _plain(group, likelihoods)
    reason = _alone(group, kinds, likelihoods) if len(group.columns) == 1 else _what(group, kinds, likelihoods, likelihood)
    return Guess(name, group.columns, likelihoods, likelihood, "; ".join(filter(None, (group.why, reason, empty_cells(group.columns)))))


def _plain(group: Group, likelihoods: Mapping[str, spec_columns.ColumnKind]) -> str:
    """The likelihood of a group: mixed, unless one likelihood is right for all cells."""
    of_kinds = {"numbers": "normal", "counts": "negative_binomial", "binary": "bernoulli"}
    if group.wide:
        return of_kinds[group.wide]
    found = list(likelihoods.values())
    if len(found) == 1 and found[0].type in spec_columns.CLASSES:
        return "categorical"
    first = group.columns[0].present
    if any((column.present != first).any() for column in group.columns):
        return MIXED
    if all(kind.type == "bernoulli" for kind in found):
        return "bernoulli"
    if all(kind.type in spec_columns.COUNTS and not kind.zero_inflated for kind in found):
        return "negative_binomial"
    return "normal" if all(kind.type == "normal" and not kind.whole for kind in found) else MIXED


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


def is_prose(texts: Sequence[str]) -> bool:
    """Whether texts are sentences or notes: half of them have three or more words, which codes and names of people seldom have.

    Example:
        >>> is_prose(["mild pain, left knee", "no complaints today"]), is_prose(["AB 12 C", "AB 13 D"]), is_prose(["Ada King"])
        (True, False, False)
    """
    shown = texts[:1000]
    return 2 * sum(len(_WORD.findall(text)) >= PROSE for text in shown) >= len(shown) > 0


def is_identifier(profile: Profile) -> bool:
    """Whether a column consists of identifiers: codes, names or consecutive whole numbers, different in all rows."""
    rows = len(profile.codes)
    if rows < 2 * ROWS_A_CLASS or not profile.present.all() or len(profile.texts) < rows or spelt_otherwise(profile.texts):
        return False
    if not profile.numeric and is_prose(profile.texts):
        return False
    return not why_dates(profile) and (not profile.numeric or (profile.whole and counts_rows(profile.values)))


_WORDS = {
    "bernoulli": "of two values", "categorical": "of classes", "ordinal": "of ordered levels", "poisson": "of counts",
    "negative_binomial": "of counts", "normal": "of numbers", "lognormal": "of positive skewed numbers",
}  # fmt: skip
"""What columns of a likelihood are."""


def _alone(group: Group, kinds: Mapping[str, ColumnKind], likelihoods: Mapping[str, spec_columns.ColumnKind]) -> str:
    """Describes a single column."""
    (name,) = likelihoods
    skewed = "positive and skewed" if likelihoods[name].type == "lognormal" else ""
    return "; ".join(filter(None, (kinds[name].reason, skewed))) if group.kinds[name] == kinds[name].kind else ""


def _what(group: Group, kinds: Mapping[str, ColumnKind], likelihoods: Mapping[str, spec_columns.ColumnKind], likelihood: str) -> str:
    """Describes the kinds of columns, with possible alternatives."""
    count = len(group.columns)
    plain = {
        "normal": f"{count} columns of numbers, standardised",
        "negative_binomial": f"{count} columns of whole numbers from 0 on",
        "bernoulli": f"{count} columns of two values",
    }
    numbers = Counter(_WORDS[kind.type] for kind in likelihoods.values())
    parts = [f"{number} {words}" for words, number in numbers.items()] if len(numbers) > 1 else list(numbers)
    doubts = _doubts(group, kinds, likelihoods)
    mixed = f"{count} columns" + (": " if len(parts) > 1 else " ") + listing(parts)
    return "; ".join((plain.get(likelihood, mixed), *doubts))


def _doubts(group: Group, kinds: Mapping[str, ColumnKind], likelihoods: Mapping[str, spec_columns.ColumnKind]) -> list[str]:
    """Alternatives for columns of a group; those of several columns without details that differ."""
    found: dict[str, dict[str, str]] = {}
    for column in group.columns:
        doubt = kinds[column.name].doubt
        what = doubt.partition(":")[0]
        ordered = likelihoods[column.name].type == "ordinal" and doubt in OR_NUMBERS
        if doubt and what != f"could also be {group.kinds[column.name]}" and not ordered:
            found.setdefault(what, {})[clip(column.name)] = doubt
    shown = []
    for what, doubts in found.items():
        names, texts = list(doubts), set(doubts.values())
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        shown.append(f"{listing(names[:NAMED])}{more} {texts.pop() if len(texts) == 1 else what}")
    return shown
