"""Infers the column of identifiers, and reports columns that would be identifiers but for errors."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nbridge.common.messages import listing
from nbridge.data.ids import check_ids, counts_rows
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.profiles import Profile
from nbridge.draft.columns import is_identifier
from nbridge.errors import DataError

ID_WORDS = re.compile(r"(^|[_.\- ])(ids?|key|uuid|barcode|sample|subject|patient|participant|index)$|[a-z]Id$|[a-zA-Z]ID$")
"""Typical names of identifier columns."""
MOSTLY = 0.9
"""Minimum share of distinct values in a column that was presumably meant as identifiers."""


def common_id(files: Sequence[TableFile]) -> str:
    """Finds the column to join files on: one that all of them have.

    Raises:
        DataError: if there is no such column, or several.
    """
    common = [column for column in files[0].columns if all(column in file.columns for file in files)]
    chosen = next((column for column in ("id", *common) if column in common and (column == "id" or ID_WORDS.search(column))), None)
    if chosen is None and len(common) != 1:
        shown = f"they share {listing(common)}" if common else "they share no column"
        raise DataError(f"several files are joined on a column of identifiers, and {shown}; name one with --id")
    return chosen or common[0]


def found_id(profiles: Sequence[Profile]) -> str | None:
    """Finds the column of identifiers, by name or as the first column; None if no column is unique."""
    # A column without a name can't be named.
    telling = [profile for profile in profiles if profile.name and profile.present.all() and len(profile.texts) == len(profile.codes)]
    named = [profile.name for profile in telling if profile.name == "id" or (ID_WORDS.search(profile.name) and is_identifier(profile))]
    if named:
        return "id" if "id" in named else named[0]
    return profiles[0].name if profiles and profiles[0] in telling and is_identifier(profiles[0]) else None


def damaged_ids(profiles: Sequence[Profile], file: TableFile) -> dict[str, str]:
    """Finds columns that are named like identifiers and nearly unique, with the error in each of them."""
    return {profile.name: _mistake(profile, file) for profile in profiles if _is_nearly_id(profile)}


def _is_nearly_id(profile: Profile) -> bool:
    rows, different = len(profile.codes), len(profile.texts)
    if not ID_WORDS.search(profile.name) or different == rows or different < MOSTLY * rows:
        return False
    return not profile.numeric or (profile.whole and counts_rows(np.array(profile.distinct)))


def _mistake(profile: Profile, file: TableFile) -> str:
    texts = np.array([*profile.texts, ""], dtype=object)
    try:
        check_ids(texts[profile.codes], wording=file.id_wording(profile.name))
    except DataError as error:
        return f"no identifiers, as {str(error).partition(': ')[2]}"
    return "no identifiers"
