"""Commands run by several processes under torchrun: only one process prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from nbridge.acceleration.torchrun import is_distributed
from nbridge.errors import exit_code


@contextmanager
def main_process() -> Iterator[bool]:
    """Joins the process group of torchrun and yields whether this is the main process; without torchrun yields True, without torch.

    An error is printed by one process only; the others exit silently with its exit code.
    """
    if not is_distributed():
        yield True
        return
    # Set before importing torch, which otherwise logs a stack trace for each lost connection when a process ends.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from nbridge.acceleration.distributed import ALONE, join_processes

    world = ALONE
    try:
        with join_processes() as world:
            yield world.is_main
    except BaseException as error:
        # torchrun terminates all processes once one has exited; ignore that, so that each exits with its own code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if world.reports_error:
            raise
        raise SystemExit(exit_code(error)) from None
