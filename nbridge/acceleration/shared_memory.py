"""What processes of one machine tell each other through memory that they share, some ten times sooner than through its network.

Each process writes into a part of its own, then raises its counter, and reads the others' parts once their counters stand as high. Parts
alternate between two places, so that a process that is ahead never writes over what another one still reads; it cannot be further ahead,
since it waits for everyone in each exchange. A process locks one byte of the file behind the memory, and that lock ends with it: this is
how the others notice that it was killed.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributed.distributed_c10d import Store

PLACE = Path("/dev/shm")  # noqa: S108 (a random name, nameless as soon as all have opened it)
"""Where files lie in memory, of one machine by their nature."""
CHUNK = 2**20
"""Bytes that a process tells at once: small enough that the parts of all stay in the processor's cache."""
LINE = 64
"""Bytes of a line of that cache; each counter lies on one of its own."""
LOOKS = 2**10
"""Looks at the counters after which a process that waits begins to sleep between them, and then to see whether the others live."""
NAP = 1e-4
"""Seconds of such a sleep."""


class LostMemberError(RuntimeError):
    """Another process that shares the memory has ended, or has said nothing for too long."""


def share_memory(store: Store, rank: int, size: int, timeout: timedelta) -> SharedMemory | None:
    """Memory for all processes that met in a store, or None where they are on several machines or the system has nothing to offer.

    Arguments:
        store: What they met in.
        rank: This process, from 0.
        size: The number of processes.
        timeout: How long to wait for another process in an exchange.
    """
    if rank == 0:
        store.set("path", str(_new_file(size)) if _is_supported() else "")
    path = Path(store.get("path").decode())
    memory = None
    with suppress(OSError):
        memory = SharedMemory(path, rank, size, timeout)
    store.set(f"member/{rank}", "shared" if memory else "")
    # Everyone's word is waited for, also after one that cannot.
    everywhere = all([store.get(f"member/{other}") for other in range(size)])  # noqa: C419
    if rank == 0:
        # Nameless from here on: it goes with the last process that holds it.
        with suppress(OSError):
            path.unlink()
    if memory and not everywhere:
        memory.close()
    return memory if everywhere else None


def _is_supported() -> bool:
    """Whether files can lie in memory, and processors show each other what they store in the order in which they store it."""
    return PLACE.is_dir() and platform.machine() in {"x86_64", "AMD64"}


def _new_file(size: int) -> Path | str:
    path = PLACE / f"nbridge-{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            # Not as a hole, which would end the process when it is written to and no memory is left.
            os.posix_fallocate(file.fileno(), 0, size * (LINE + 2 * CHUNK))
    except OSError:
        with suppress(OSError):
            path.unlink()
        return ""
    return path


class SharedMemory:
    """Memory that processes of one machine share.

    Arguments:
        path: The file behind it, the same in all processes.
        rank: This process, from 0.
        size: The number of processes.
        timeout: How long to wait for another process in an exchange.

    Raises:
        OSError: when there is no such file.
    """

    def __init__(self, path: Path, rank: int, size: int, timeout: timedelta) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout.total_seconds()
        self._file = path.open("r+b")
        self._file.seek(rank)
        os.lockf(self._file.fileno(), os.F_TLOCK, 1)
        # As a plain array: to look at a counter takes half the time.
        memory = np.asarray(np.memmap(self._file, np.uint8, "r+"))
        self._counters = memory[: size * LINE].view(np.int64)[:: LINE // 8]
        self._parts = torch.from_numpy(memory[size * LINE :]).view(2, size, CHUNK)
        self._turn = 0

    def gather(self, tensor: Tensor) -> Tensor:
        r"""What every process holds, shape (size, \*shape), of a tensor of up to `CHUNK` bytes.

        Raises:
            LostMemberError: when another process has ended.
        """
        return self._exchange(tensor.reshape(-1)).reshape(self.size, *tensor.shape).clone()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Makes a contiguous tensor of any size the sum over all processes, in place, bit for bit the same in each of them.

        Raises:
            LostMemberError: when another process has ended.
        """
        for piece in tensor.view(-1).split(CHUNK // tensor.element_size()):
            first, *others = self._exchange(piece)
            piece.copy_(first)
            for other in others:
                piece.add_(other)
        return tensor

    def close(self) -> None:
        """Ends this process's part in it, so that those who wait for it notice at once."""
        self._file.close()

    def _exchange(self, flat: Tensor) -> Tensor:
        """What every process holds, shape (size, N): a view, which stays as it is until the next exchange but one."""
        self._turn += 1
        parts = self._parts[self._turn % 2, :, : flat.nbytes].view(flat.dtype)
        parts[self.rank].copy_(flat)
        self._counters[self.rank] = self._turn
        self._wait()
        return parts

    def _wait(self) -> None:
        looks, began = 0, time.monotonic()
        while (self._counters < self._turn).any():
            looks += 1
            if looks < LOOKS:
                os.sched_yield()
                continue
            time.sleep(NAP)
            if looks % LOOKS == 0:
                self._check_others(began)

    def _check_others(self, began: float) -> None:
        for rank in range(self.size):
            # In this order: one that said its last word and ended since the last look has been heard.
            if rank != self.rank and self._has_ended(rank) and self._counters[rank] < self._turn:
                raise LostMemberError(f"process {rank}, which shares memory, has ended")
        if time.monotonic() - began > self.timeout:
            raise LostMemberError(f"a process that shares memory has said nothing for {self.timeout:.0f} s")

    def _has_ended(self, rank: int) -> bool:
        self._file.seek(rank)
        try:
            os.lockf(self._file.fileno(), os.F_TEST, 1)
        except OSError:
            return False
        return True
