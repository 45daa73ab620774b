"""Drafts modalities of folders of text files."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nbridge.common.vocabulary import split
from nbridge.data.tables.profiles import Profile
from nbridge.draft.writer import Part
from nbridge.spec.names import free_name

LONGEST = 64
"""Most tokens of a drafted modality, the end of the text included; longer texts are cut."""


def parts_of_texts(columns: Sequence[Profile], taken: Collection[str]) -> list[tuple[Part, str]]:
    """A modality of each column of texts, with its column.

    Arguments:
        columns: The columns, called as their folders.
        taken: Names that other modalities have.
    """
    found: list[tuple[Part, str]] = []
    for column in columns:
        name = free_name(column.name, {*taken, *(part.name for part, _ in found)})
        found.append((_part(name, column), column.name))
    return found


def _part(name: str, column: Profile) -> Part:
    longest = max((len(split("words", text)) for text in column.texts), default=1)
    number = int(column.present.sum())
    count, cut = f"{number:,} text{'s' if number != 1 else ''} of at most {longest:,} words", longest >= LONGEST
    why = f"{count}; cut after {LONGEST - 1} of them" if cut else count
    likelihood = f"{{type: text, tokens: words{', longer: cut' if cut else ''}}}"
    return Part(name, (min(LONGEST, longest + 1),), likelihood, why, encoder="text")
