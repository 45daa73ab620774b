"""Mistakes that a user can mend: one clear line each, never a traceback on the command line."""

from __future__ import annotations


class NBridgeError(ValueError):
    """A user's mistake. The text says what was found, where, what was expected and what to do."""


class SpecError(NBridgeError):
    """A spec that does not hold: every mistake at once, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DataError(NBridgeError):
    """Data that does not fit the spec: the modality, the first offending row and its value."""


class RunError(NBridgeError):
    """A run folder or checkpoint that cannot be used as it is."""


def require_positive(**numbers: int) -> None:
    """Checks that options are 1 or more.

    Raises:
        DataError: naming the first that is not.
    """
    for name, number in numbers.items():
        if number < 1:
            raise DataError(f"{name} is {number}, expected 1 or more")
