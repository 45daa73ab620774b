"""Commands run by several processes under torchrun: only one process prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from nbridge.acceleration.launched import several_processes
from nbridge.errors import exit_code


@contextmanager
def sharing() -> Iterator[bool]:
    """Joins the process group of torchrun and yields whether this is the main process; without torchrun yields True, without torch.

    An error is printed by one process only; the others exit silently with its exit code.
    """
    if not several_processes():
        yield True
        return
    # Set before importing torch, which otherwise logs a stack trace for each lost connection when a process ends.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from nbridge.acceleration.distributed import ALONE, joined

    world = ALONE
    try:
        with joined() as world:
            yield world.is_main
    except BaseException as error:
        # torchrun terminates all processes once one has exited; ignore that, so that each exits with its own code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if world.speaks:
            raise
        raise SystemExit(exit_code(error)) from None
