"""How imputed values are named in files and frames: ``NAME__imputed``, ``NAME__mean``, ``NAME__lower_0.9``, ``NAME__draw_0``, ``draw``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nbridge.data.column import PRESENT
from nbridge.data.imputed import BY_LEVEL, STATISTICS, Imputed, marks_of
from nbridge.data.marks import IMPUTED

DRAW = "draw"
"""The column that numbers the draws of a row, from 1, in tables of single values."""
_DERIVED = re.compile(rf"(.*)__(?:imputed|draw_\d+|{'|'.join(STATISTICS)})(?:_[\d.]+)?", re.DOTALL)


def draw_suffix(number: int) -> str:
    """The suffix of a draw that is an element of its own."""
    return f"__draw_{number}"


def statistic_suffix(what: str, level: float | None = None) -> str:
    """The suffix of a statistic; several levels of intervals have their level in it.

    Example:
        >>> statistic_suffix("sd"), statistic_suffix("lower", 0.9)
        ('__sd', '__lower_0.9')
    """
    return f"__{what}" + ("" if level is None else f"_{level:g}")


def owner_of(key: str) -> str | None:
    """The modality or column that an element written by an earlier imputation describes; None for any other element.

    Example:
        >>> owner_of("prot__lower_0.9"), owner_of("stage__draw_12"), owner_of("prot")
        ('prot', 'stage', None)
    """
    found = _DERIVED.fullmatch(key)
    return None if found is None else found[1]


def described_by(key: str) -> str | None:
    """The modality or column that a mask of presence, or an element of an earlier imputation, describes; None for any other element.

    Example:
        >>> described_by("lab__present"), described_by("lab__upper_0.5"), described_by("lab_1")
        ('lab', 'lab', None)
    """
    return key.removesuffix(PRESENT) if key.endswith(PRESENT) else owner_of(key)


def written_names(keys: Sequence[str], *, statistics: bool) -> set[str]:
    """The names of the masks, and statistics, of arrays or columns.

    Arguments:
        keys: The arrays or columns.
        statistics: Whether statistics are written.
    """
    return {key + suffix for key in keys for suffix in (IMPUTED, *(map(statistic_suffix, STATISTICS) if statistics else ()))}


def statistics_by_level(imputed: Imputed[np.ndarray], name: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """The statistics of a modality, each interval end by itself: name, suffix and array, rows first.

    Arguments:
        imputed: Imputed rows.
        name: The modality.
    """
    if imputed.statistics is None:
        return
    levels = imputed.statistics.levels
    named = levels if len(levels) > 1 else (None,)
    for what, array in imputed.statistics.of(name).items():
        ends = zip(named, array, strict=True) if what in BY_LEVEL else [(None, array)]
        yield from ((what, statistic_suffix(what, level), end) for level, end in ends)


def named_arrays(imputed: Imputed[np.ndarray], keys: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Imputed rows as arrays: name, array, and axis of rows. Each modality is followed by its mask and its statistics.

    Draws come first, in an array (K, N, ...), as do several levels of interval ends.

    Arguments:
        imputed: Imputed rows.
        keys: The array of each modality.
    """
    for name, key in keys.items():
        yield key, imputed.values[name], 0 if imputed.draws is None else 1
        yield key + IMPUTED, marks_of(imputed, name), 0
        for what, array in {} if imputed.statistics is None else imputed.statistics.of(name).items():
            by_level = what in BY_LEVEL
            several = by_level and len(array) > 1
            yield key + statistic_suffix(what), array[0] if by_level and not several else array, int(several)
