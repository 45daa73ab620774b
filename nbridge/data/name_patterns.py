"""Patterns of names, in which ``*`` stands for any characters and everything else for itself; a name that is there wins over a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence


def matching(word: str, names: Sequence[str]) -> list[str]:
    """The names that a word stands for, in their order: itself where it is one of them, else those that it matches as a pattern.

    Arguments:
        word: A name or a pattern.
        names: The names that there are.

    Example:
        >>> matching("lab_*", ["lab_2", "age", "lab_1"]), matching("x*", ["x1", "x*"]), matching("x[1]*", ["x1", "x[1]a"])
        (['lab_2', 'lab_1'], ['x*'], ['x[1]a'])
    """
    if word in names:
        return [word]
    if "*" not in word:
        return []
    pattern = re.compile(".*".join(map(re.escape, word.split("*"))), re.DOTALL)
    return [name for name in names if pattern.fullmatch(name)]
