"""A command that several processes run together: one of them speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nbridge.acceleration.launched import several_processes
from nbridge.errors import LostProcessError, NBridgeError


@contextmanager
def sharing() -> Iterator[bool]:
    """Joins the processes that torchrun started and says whether this is the main one; without torchrun it is, and torch is not imported.

    Of an error that ends them all, one process keeps the words; the others end with its exit code, in silence.
    """
    if not several_processes():
        yield True
        return
    from nbridge.acceleration.distributed import ALONE, joined

    world = ALONE
    try:
        with joined() as world:
            yield world.is_main
    except BaseException as error:
        if world.speaks:
            raise
        raise SystemExit(_exit_code(error)) from None


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, NBridgeError | OSError) and not isinstance(error, LostProcessError) else 1
