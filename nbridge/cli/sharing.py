"""A command that several processes run together: one of them speaks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from nbridge.acceleration.launched import several_processes
from nbridge.errors import exit_code


@contextmanager
def sharing() -> Iterator[bool]:
    """Joins the processes that torchrun started and says whether this is the main one; without torchrun it is, and torch is not imported.

    Of an error that ends them all, one process keeps the words; the others end with its exit code, in silence.
    """
    if not several_processes():
        yield True
        return
    # Before torch is imported: where one process ends, torch would tell of each of its connections, with its own stack.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from nbridge.acceleration.distributed import ALONE, joined

    world = ALONE
    try:
        with joined() as world:
            yield world.is_main
    except BaseException as error:
        # torchrun ends all processes once one has ended; each of them is about to, with its own exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if world.speaks:
            raise
        raise SystemExit(exit_code(error)) from None
