"""Groups column names by the first prefix that they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

SMALLEST = 2
"""Minimum number of columns with a prefix."""
_SEPARATOR = re.compile(r"[\W_]+")


def prefix_of(name: str, depth: int = 1) -> str:
    """The first pieces of a name, before a separator or trailing digits; empty if nothing follows them.

    Pieces are separated by any characters other than letters and digits.

    Example:
        >>> [prefix_of(name) for name in ("lab_12", "gene.TP53", "gene_a.b", "sepal length (cm)", "x7", "age", "2")]
        ['lab', 'gene', 'gene', 'sepal', 'x', '', '']
        >>> prefix_of("lab_blood_na", 2), prefix_of("lab_blood", 2)
        ('lab_blood', '')
    """
    stem = _SEPARATOR.sub("_", name).strip("_")
    pieces = stem.split("_")
    if len(pieces) > depth:
        return "_".join(pieces[:depth])
    bare = stem.rstrip("0123456789").strip("_")
    return bare if len(pieces) == depth and bare != stem else ""


def group_by_prefix(names: Sequence[str], most: int) -> dict[str, list[str]]:
    """Groups names by the first prefix that they share with others; the others have an empty prefix.

    If all names share one prefix, longer ones are tried. If there are `most` groups or more, prefixes without trailing digits are tried
    (``q1_a`` and ``q2_a``); if there are still too many, all names are one group.

    Example:
        >>> group_by_prefix(["gene_a.b", "gene_c", "age", "bill-length", "bill-depth"], 8)
        {'gene': ['gene_a.b', 'gene_c'], 'bill': ['bill-length', 'bill-depth'], '': ['age']}
        >>> group_by_prefix(["p_lab_1", "p_lab_2", "p_rna_1", "p_rna_2"], 8)
        {'p_lab': ['p_lab_1', 'p_lab_2'], 'p_rna': ['p_rna_1', 'p_rna_2']}
    """
    first = _shared(names, prefix_of)
    if len(first) == 1 and len(next(iter(first.values()))) == len(names):
        longest = max(len(_SEPARATOR.split(name)) for name in names)
        deeper = (_shared(names, lambda name, depth=depth: prefix_of(name, depth)) for depth in range(2, longest + 1))
        first = next((groups for groups in deeper if 1 < len(groups) < most), first)
    groups = first if len(first) < most else _shared(names, lambda name: prefix_of(name).rstrip("0123456789").strip("_"))
    if len(groups) >= most:
        return {"": list(names)}
    grouped = {name for group in groups.values() for name in group}
    alone = [name for name in names if name not in grouped]
    return {**groups, **({"": alone} if alone else {})}


def _shared(names: Sequence[str], prefix: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(prefix(name), []).append(name)
    return {start: group for start, group in groups.items() if start and len(group) >= SMALLEST}
