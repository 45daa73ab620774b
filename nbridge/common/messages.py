"""Formatting of values and names in messages: printable, short and on one line."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence

_MAX_LENGTH = 40
"""Maximum number of quoted characters."""


def clip(text: object, longest: int = _MAX_LENGTH) -> str:
    r"""Replaces unprintable characters by ``?`` and truncates to ``longest`` characters.

    Example:
        >>> clip("a\nb"), clip("abcdef", 3)
        ('a?b', 'abc...')
    """
    line = "".join(character if character.isprintable() else "?" for character in str(text)[: longest + 1])
    return line if len(line) <= longest else line[:longest] + "..."


def quoted(text: str) -> str:
    """A string in double quotes, escaped and truncated."""
    return json.dumps(text[:_MAX_LENGTH], ensure_ascii=not text.isprintable()) + ("..." if len(text) > _MAX_LENGTH else "")


def shown(value: object) -> str:
    """Formats a YAML value for a message; of mappings and lists only the type is shown.

    Example:
        >>> shown("abc"), shown(True), shown(None), shown([1, 2])
        ('"abc"', 'true', 'nothing', 'a list')
    """
    if value is None:
        return "nothing"
    spellings = {bool: lambda value: str(value).lower(), int: str, float: _number, str: quoted}
    return spellings.get(type(value), noun)(value)


def noun(value: object) -> str:
    """The type of a value in words.

    Example:
        >>> noun({}), noun(3.5)
        ('a mapping', 'a number')
    """
    if isinstance(value, Mapping):
        return "a mapping"
    nouns = {list: "a list", tuple: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "nothing"}
    return nouns.get(type(value), f"a {type(value).__name__}")


def did_you_mean(word: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Suggests the closest known word, ignoring case, with a leading space; empty if none is close.

    Example:
        >>> did_you_mean("MPL", ["conv", "mlp"])
        " Did you mean 'mlp'?"
    """
    spelled = {candidate.lower(): candidate for candidate in known if candidate != word}
    close = difflib.get_close_matches(clip(word).lower(), spelled, n=1, cutoff=cutoff)
    return f" Did you mean '{clip(spelled[close[0]])}'?" if close else ""


def listing(names: Iterable[str]) -> str:
    """Names separated by commas, or "nothing"."""
    return ", ".join(names) or "nothing"


def some_of(names: Sequence[str], most: int) -> str:
    """The first ``most`` names, separated by commas, and the number of the others.

    Example:
        >>> some_of(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    return listing(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def number(x: float) -> str:
    """Formats a number with about four significant digits.

    Example:
        >>> number(-52170.04), number(-98.757), number(1.23456), number(0.91234), number(3.5e-15), number(math.nan)
        ('-52,170.0', '-98.76', '1.235', '0.9123', '3.5e-15', '-')
    """
    if not math.isfinite(x):
        return "-" if math.isnan(x) else str(x)
    size = abs(x)
    if 0 < size < 5e-5:
        return f"{x:.1e}"
    return f"{x:,.1f}" if size >= 1000 else f"{x:.2f}" if size >= 10 else f"{x:.3f}" if size >= 1 else f"{x:.4f}"


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    return repr(value) if math.isfinite(value) else f"{'-' if value < 0 else ''}.inf"
