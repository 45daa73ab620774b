"""Name patterns, in which ``*`` matches any characters and everything else is literal; an exact name takes precedence over a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence


def matching(word: str, names: Sequence[str]) -> list[str]:
    """The names that a word refers to, in order: itself if it is one of them, else those it matches as a pattern.

    Arguments:
        word: A name or a pattern.
        names: All names.

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
