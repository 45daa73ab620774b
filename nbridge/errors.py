"""Mistakes that a user can mend: one clear line each, never a traceback on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike


class NBridgeError(ValueError):
    """A user's mistake. The text says what was found, where, what was expected and what to do."""


class SpecError(NBridgeError):
    """A spec that does not hold: every mistake at once, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DataError(NBridgeError):
    """Data that does not fit the spec: the modality, the first offending row and its value."""


class CellError(DataError):
    """A value that no model takes in, among the rows of an array.

    Arguments:
        text: What is wrong, and where in the array.
        cell: Its modality, its row and its element.
        problem: What is wrong with it.
    """

    def __init__(self, text: str, cell: tuple[str, int, int], problem: str) -> None:
        self.cell, self.problem = cell, problem
        super().__init__(text)

    def at(self, place: Callable[[str, int, int], str] | None) -> DataError:
        """The same with the place of the cell as a file has it, where it has any."""
        return self if place is None else DataError(f"{place(*self.cell)}: {self.problem}")


class RunError(NBridgeError):
    """A run folder or checkpoint that cannot be used as it is."""


class NBridgeWarning(UserWarning):
    """Something about rows or a model that a user should know and that is no mistake."""


class LostProcessError(NBridgeError):
    """Another process of the same training ended, so that this one cannot go on.

    Arguments:
        text: Which one, and what to do.
        exit_code: What it ended with, if it told its reason itself.
    """

    def __init__(self, text: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(text)


def exit_code(error: BaseException) -> int:
    """What the command line ends with: 2 on a mistake of the user, 130 when interrupted, 1 on a failure of nbridge."""
    if isinstance(error, LostProcessError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, NBridgeError | OSError) else 1


def require_positive(**numbers: int) -> None:
    """Checks that options are 1 or more.

    Raises:
        DataError: naming the first that is not.
    """
    for name, number in numbers.items():
        if number < 1:
            raise DataError(f"{name} is {number}, expected 1 or more")


@contextmanager
def naming(origin: str | PathLike[str]) -> Iterator[None]:
    """Puts the file that a mistake in the data is in before it, where it is not there yet."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(f"{origin}: ") else f"{origin}: {error}") from error
