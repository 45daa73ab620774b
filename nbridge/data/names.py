"""Many names: found, and compared with each other, in time proportional to their number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T", bound=Hashable)


class Names(tuple[str, ...]):
    """A tuple of different names with a fast ``in`` and ``index``.

    Example:
        >>> names = Names(["a", "b"])
        >>> "b" in names, "c" in names, names.index("b")
        (True, False, 1)
    """

    @cached_property
    def _places(self) -> dict[object, int]:
        return {name: place for place, name in enumerate(self)}

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def index(self, value: Any, *_: Any) -> int:
        return self._places[value]


def repeated(names: Iterable[T]) -> T | None:
    """The first name that occurs again; None if all are different.

    Example:
        >>> repeated("abcb"), repeated("abc")
        ('b', None)
    """
    seen = set[T]()
    # An addition to a set returns None.
    return next((name for name in names if name in seen or seen.add(name)), None)
