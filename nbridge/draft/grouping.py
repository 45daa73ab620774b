"""Groups the columns of tables into modalities: by file, by the prefix of their names, and by the rows in which they are missing together.

What columns hold does not matter, except that many columns of numbers, as in omics, are a modality without the others of their group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.tables.profiles import Profile
from nbridge.draft.column_kinds import OR_COUNTS, ColumnKind, Kind
from nbridge.draft.name_groups import group_by_prefix

MOST_MODALITIES = 8
"""Maximum number of modalities, because n of them have n (n - 1) bridges; the smallest of more are merged."""
ALIKE = 0.7
"""Minimum Jaccard index of the missing rows of two columns that are missing together."""
OFTEN = 0.02
"""Minimum share of missing rows for a column to be grouped by them."""
FEWEST = 3
"""Fewer columns with a prefix, or that are missing together, are a group only where all columns have a prefix."""
WIDE = 128
"""More columns of numbers, counts or two values than this are a modality of their own."""
MANY = 0.9
"""Share of columns of numbers from which counts among many of them are numbers as well."""


@dataclass(frozen=True)
class Group:
    """Columns that are one modality, with the reason and the kind of each; ``wide`` if they are many of one kind."""

    name: str
    columns: tuple[Profile, ...]
    why: str = ""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    wide: Kind | None = None


def group_columns(profiles: Sequence[Profile], kinds: Mapping[str, ColumnKind], homes: Mapping[str, str]) -> list[Group]:
    """Groups columns.

    Arguments:
        profiles: The columns.
        kinds: The kind of each of them by itself, which is adjusted to the others of its group.
        homes: The name of the table of each of them.

    Example:
        >>> columns = [Profile(name, ("a", "b"), np.array([0, 1])) for name in ("rna_1", "rna_2", "rna_3", "age", "sex")]
        >>> kinds = {column.name: ColumnKind("binary", "two values") for column in columns}
        >>> groups = group_columns(columns, kinds, {column.name: "rows" for column in columns})
        >>> {group.name: len(group.columns) for group in groups}
        {'rna': 3, 'rows': 2}
    """
    tables = list(dict.fromkeys(homes[profile.name] for profile in profiles))
    if len(tables) > 1:
        groups = [Group(table, tuple(one for one in profiles if homes[one.name] == table), f"columns of {clip(table)}") for table in tables]
    else:
        groups = [part for group in _by_prefix(profiles, tables[0]) for part in _by_absence(group)] if tables else []
    settled = [replace(group, kinds=_settled(group, kinds)) for group in groups]
    return _fewer([part for group in settled for part in _without_wide(group)], tables[0] if len(tables) == 1 else "")


def _by_prefix(profiles: Sequence[Profile], rest: str) -> list[Group]:
    """Groups columns by the first prefix that their names share; those without one, and pairs beside them, are the rest."""
    columns = {profile.name: profile for profile in profiles}
    found = group_by_prefix(list(columns), MOST_MODALITIES)
    small = {prefix for prefix, names in found.items() if not prefix or len(names) < FEWEST} if "" in found else set[str]()
    loose = {name for prefix in small for name in found[prefix]}
    groups = [
        Group(prefix, tuple(columns[name] for name in names), f"names begin with {prefix}")
        for prefix, names in found.items()
        if prefix not in small
    ]
    return [*groups, *([Group(rest, tuple(one for one in profiles if one.name in loose))] if loose else [])]


def _by_absence(group: Group) -> list[Group]:
    """Divides a group by the rows in which columns are missing together."""
    blocks: list[list[Profile]] = []
    for profile in group.columns:
        # Most columns of wide tables have hardly any missing rows, and cannot start a block that is large enough.
        if (~profile.present).mean() < ALIKE * OFTEN:
            continue
        near = next((block for block in blocks if absent_together(block[0].present, profile.present)), None)
        if near is None:
            blocks.append([profile])
        else:
            near.append(profile)
    large = [block for block in blocks if len(block) >= FEWEST and (~block[0].present).mean() >= OFTEN]
    rest = [profile for profile in group.columns if not any(profile in block for block in large)]
    if not large or (len(large) == 1 and len(rest) < FEWEST) or len(large) > MOST_MODALITIES // 2:
        return [group]
    why = "; ".join(filter(None, (group.why, "missing in the same rows")))
    parts = [Group(f"{group.name}_incomplete", tuple(block), why) for block in large]
    return [*([replace(group, columns=tuple(rest))] if rest else []), *parts]


def absent_together(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two columns, by the rows in which they are present, (N,), are missing in nearly the same rows."""
    either = (~one | ~other).sum()
    return bool(either and (~one & ~other).sum() >= ALIKE * either)


def _settled(group: Group, kinds: Mapping[str, ColumnKind]) -> dict[str, Kind]:
    """Adjusts kinds to the other columns of the group, unless column names make them certain.

    Whole numbers among counts become counts, columns that could be counts and have different ranges all become counts, and a few counts
    among many columns of numbers become numbers.
    """
    found: dict[str, Kind] = {profile.name: kinds[profile.name].kind for profile in group.columns}
    open_ = [profile for profile in group.columns if not kinds[profile.name].certain and profile.numeric]
    counts = [column for column, kind in found.items() if kind == "counts"]
    small = [profile for profile in open_ if found[profile.name] == "classes" and kinds[profile.name].doubt == OR_COUNTS]
    mostly = 2 * len(counts) > len(found)
    if list(found.values()).count("numbers") > max(WIDE, MANY * len(found)):
        return _with(found, (one for one in open_ if found[one.name] == "counts"), "numbers")
    if len(counts) >= FEWEST and (group.why or mostly):
        few = {profile.name: found[profile.name] == "classes" or (found[profile.name] == "numbers" and mostly) for profile in open_}
        return _with(found, (one for one in open_ if few[one.name] and one.whole and one.distinct[0] >= 0), "counts")
    if group.why and len(small) >= FEWEST and len({profile.distinct[-1] for profile in small}) > 1:
        return _with(found, small, "counts")
    return found


def _with(kinds: Mapping[str, Kind], columns: Iterable[Profile], kind: Kind) -> dict[str, Kind]:
    """Kinds in which some columns have another one."""
    return {**kinds, **{column.name: kind for column in columns}}


def _without_wide(group: Group) -> list[Group]:
    """Separates many columns of one kind from the others of their group."""
    kinds = list(group.kinds.values())
    wide: list[Kind] = [kind for kind in dict.fromkeys(kinds) if kind != "classes" and kinds.count(kind) > WIDE]
    rest = tuple(profile for profile in group.columns if group.kinds[profile.name] not in wide)
    if not rest and len(wide) == 1:
        return [replace(group, wide=wide[0])]
    parts = [
        replace(group, name=f"{group.name}_{kind}", columns=tuple(one for one in group.columns if group.kinds[one.name] == kind), wide=kind)
        for kind in wide
    ]
    return [*([replace(group, columns=rest)] if rest else []), *parts]


def _fewer(groups: list[Group], rest: str) -> list[Group]:
    """Merges the smallest groups until there are few enough: first into the columns without a group, then those of many columns."""
    small = sorted((group for group in groups if not group.wide), key=lambda group: (group.name != rest, len(group.columns)))
    groups = _merged(groups, small[: len(groups) - MOST_MODALITIES + 1], rest)
    while len(groups) > MOST_MODALITIES:
        kinds = [group.wide for group in groups]
        many = max(kinds, key=kinds.count)
        alike = sorted((group for group in groups if group.wide == many), key=lambda group: len(group.columns))
        groups = _merged(groups, alike[:2], many or rest)
    return groups


def _merged(groups: list[Group], some: Sequence[Group], name: str) -> list[Group]:
    """Merges some of the groups, unless there are few enough."""
    if len(groups) <= MOST_MODALITIES or len(some) < 2:
        return groups
    columns = tuple(column for group in groups if group in some for column in group.columns)
    kinds: dict[str, Kind] = {column: kind for group in some for column, kind in group.kinds.items()}
    joined = Group(name or some[0].name, columns, "small groups put together", kinds, some[0].wide)
    return [joined if group is some[0] else group for group in groups if group is some[0] or group not in some]
