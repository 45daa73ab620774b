"""What differs between two specs, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ABSENT = object()
"""The value of a key that one of them lacks."""


class Difference(NamedTuple):
    """A key, and its values in both."""

    key: str
    one: Any
    other: Any


def differences(one: Any, other: Any, key: str = "") -> Iterator[Difference]:
    """The keys whose values differ, innermost ones, in the order of the first document and then of the second.

    Example:
        >>> [found.key for found in differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": {"e": 1}})]
        ['a.c', 'd.e']
    """
    pair: list[Any] = [{} if value is ABSENT else value for value in (one, other)]
    if all(isinstance(value, Mapping) for value in pair) and any(pair):
        for name in dict.fromkeys((*pair[0], *pair[1])):
            yield from differences(pair[0].get(name, ABSENT), pair[1].get(name, ABSENT), f"{key}.{name}".strip("."))
        return
    if one != other:
        yield Difference(key, one, other)
