"""Communication of processes on one machine through shared memory, about ten times faster than through its network interface.

Each process writes to its own slot, increments its counter, and reads the other slots once their counters have caught up. There are two
alternating sets of slots, so that a process that is one exchange ahead never overwrites what another still reads; it cannot be further
ahead, because every exchange waits for all. Each process locks one byte of the underlying file; the lock ends with the process, which is
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

DIRECTORY = Path("/dev/shm")  # noqa: S108 (a random name, unlinked as soon as all processes have opened it)
"""The in-memory file system of a machine."""
CHUNK = 2**20
"""Bytes that a process exchanges at once: small enough that all slots stay in the CPU cache."""
CACHE_LINE = 64
"""Bytes of a cache line; each counter has its own."""
POLLS = 2**10
"""Number of polls after which a waiting process sleeps between polls; after each further such number it checks that the others run."""
SLEEP_SECONDS = 1e-4
"""Seconds of such a sleep."""


class LostPeerError(RuntimeError):
    """Another process that shares the memory has ended or timed out."""


def share_memory(store: Store, rank: int, size: int, timeout: timedelta) -> SharedMemory | None:
    """Memory shared by all processes of a store; None if they are on several machines or the system does not support it.

    An exchange waits for another process as long as ``timeout``.
    """
    if rank == 0:
        store.set("path", str(_new_file(size)) if _is_supported() else "")
    path = Path(store.get("path").decode())
    memory = None
    with suppress(OSError):
        memory = SharedMemory(path, rank, size, timeout)
    store.set(f"member/{rank}", "shared" if memory else "")
    # A list, to wait for every process even if one has failed.
    everywhere = all([store.get(f"member/{other}") for other in range(size)])  # noqa: C419
    if rank == 0:
        # Unlinked, so that the memory is freed with the last process that holds it.
        with suppress(OSError):
            path.unlink()
    if memory and not everywhere:
        memory.close()
    return memory if everywhere else None


def _is_supported() -> bool:
    """Whether there is an in-memory file system, and cores see each other's writes in program order (x86)."""
    return DIRECTORY.is_dir() and platform.machine() in {"x86_64", "AMD64"}


def _new_file(size: int) -> Path | str:
    path = DIRECTORY / f"nbridge-{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            # Allocated now, because writing to a sparse file without free memory would kill the process.
            os.posix_fallocate(file.fileno(), 0, size * (CACHE_LINE + 2 * CHUNK))
    except OSError:
        with suppress(OSError):
            path.unlink()
        return ""
    return path


class SharedMemory:
    """Memory shared by the processes of one machine.

    Arguments:
        path: The underlying file, the same in all processes.
        timeout: How long to wait for another process in an exchange.

    Raises:
        OSError: if the file does not exist.
    """

    def __init__(self, path: Path, rank: int, size: int, timeout: timedelta) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout.total_seconds()
        self._file = path.open("r+b")
        self._file.seek(rank)
        os.lockf(self._file.fileno(), os.F_TLOCK, 1)
        # A plain array, because reading a counter through a memmap takes twice as long.
        memory = np.asarray(np.memmap(self._file, np.uint8, "r+"))
        self._counters = memory[: size * CACHE_LINE].view(np.int64)[:: CACHE_LINE // 8]
        self._parts = torch.from_numpy(memory[size * CACHE_LINE :]).view(2, size, CHUNK)
        self._turn = 0

    def gather(self, tensor: Tensor) -> Tensor:
        r"""Gathers a tensor of up to `CHUNK` bytes from all processes, shape (size, \*shape).

        Raises:
            LostMemberError: if another process has ended.
        """
        return self._exchange(tensor.reshape(-1)).reshape(self.size, *tensor.shape).clone()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sums a contiguous tensor of any size over all processes, in place, bit-identical in each of them.

        Raises:
            LostMemberError: if another process has ended.
        """
        for piece in tensor.view(-1).split(CHUNK // tensor.element_size()):
            first, *others = self._exchange(piece)
            piece.copy_(first)
            for other in others:
                piece.add_(other)
        return tensor

    def close(self) -> None:
        """Leaves the exchange, so that waiting processes notice at once."""
        self._file.close()

    def _exchange(self, flat: Tensor) -> Tensor:
        """Gathers a flat tensor, shape (size, N): a view that is valid until the next exchange but one."""
        self._turn += 1
        parts = self._parts[self._turn % 2, :, : flat.nbytes].view(flat.dtype)
        parts[self.rank].copy_(flat)
        self._counters[self.rank] = self._turn
        self._wait()
        return parts

    def _wait(self) -> None:
        polls, began = 0, time.monotonic()
        while (self._counters < self._turn).any():
            polls += 1
            if polls < POLLS:
                os.sched_yield()
                continue
            time.sleep(SLEEP_SECONDS)
            if polls % POLLS == 0:
                self._check_others(began)

    def _check_others(self, began: float) -> None:
        for rank in range(self.size):
            # In this order, because a process may write its last message and end between the two checks.
            if rank != self.rank and self._has_ended(rank) and self._counters[rank] < self._turn:
                raise LostPeerError(f"process {rank}, which shares memory, has ended")
        if time.monotonic() - began > self.timeout:
            raise LostPeerError(f"no message from a process that shares memory for {self.timeout:.0f} s")

    def _has_ended(self, rank: int) -> bool:
        self._file.seek(rank)
        try:
            os.lockf(self._file.fileno(), os.F_TEST, 1)
        except OSError:
            return False
        return True
