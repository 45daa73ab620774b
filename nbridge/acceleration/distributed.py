"""Distributed training with several processes started by torchrun: ranks, communication and coordinated shutdown.

A process is alone unless torchrun has set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; a world of one process has no overhead
and changes nothing. Communication uses torch.distributed, gloo between CPUs and NCCL between GPUs, or shared memory between CPUs of one
machine.

When a process ends, the others end too. It stores its reason in the rendezvous store, so that an error is reported once, and the remaining
processes can report one that was killed.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from nbridge.acceleration.devices import pick_device
from nbridge.acceleration.shared_memory import CHUNK, LostPeerError, SharedMemory, share_memory
from nbridge.acceleration.torchrun import address, is_distributed, rank_and_size
from nbridge.errors import LostProcessError, NBridgeError, exit_code

TIMEOUT = timedelta(minutes=5)
"""How long a process waits for others: longer than a step or a checkpoint, short enough to notice a machine that hangs."""
GRACE_SECONDS = 2.0
"""Seconds in which other processes may store why they end; one that stores nothing was killed."""


class _TerminatedError(BaseException):
    """Raised on SIGTERM, which torchrun sends to the other processes once one has ended."""


class World:
    """The processes that train one model; without arguments, a single process. See `join_processes`.

    Arguments:
        rank: The index of this process, from 0.
        local_rank: The index of this process on its machine.

    Attributes:
        memory: The shared memory of processes on the CPUs of one machine.
        reports_error: Whether this process should report the error that ends it.
        advice: What to do when a process is lost, for the error message.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank, self.size, self.local_rank, self.store = rank, size, local_rank, store
        self.small_group: dist.ProcessGroup | None = None
        self.memory: SharedMemory | None = None
        self.reports_error, self.advice = True, ""
        self._turns = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def device(self, name: str) -> torch.device:
        """The device with the given name; with CUDA, each process has its own GPU.

        Raises:
            NBridgeError: if the device is not available.
        """
        device = pick_device(name)
        if self.is_single or device.type != "cuda":
            return device
        if self.local_rank >= (number := torch.cuda.device_count()):
            raise NBridgeError(
                f"process {self.rank}: no GPU left, this machine has {number}; use --nproc-per-node {number} or --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def shard(self, rows: Tensor) -> Tensor:
        """The contiguous part of the rows for this process, by rank; their number must be a multiple of ``size``."""
        own = len(rows) // self.size
        return rows[self.rank * own : (self.rank + 1) * own]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, bit-identical in each; for small tensors, which do not queue behind gradients here."""
        if self.is_single:
            return tensor
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        if self.memory and tensor.device.type == "cpu":
            return self.memory.add_up(tensor)
        self._group().allreduce([tensor]).wait()
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        r"""Gathers the tensors of all processes, shape (size, \*shape); for small tensors."""
        if self.is_single:
            return tensor[None]
        if self.memory and tensor.device.type == "cpu" and tensor.nbytes <= CHUNK:
            return self.memory.gather(tensor)
        found = tensor.new_empty(self.size, *tensor.shape)
        self._group().allgather([list(found.unbind())], [tensor.contiguous()]).wait()
        return found

    def _group(self) -> dist.ProcessGroup:
        """The group, whose methods are called directly: the functions of torch.distributed double the time, and a step has twenty calls."""
        return cast("dist.ProcessGroup", self.small_group or dist.group.WORLD)

    def is_same_everywhere(self, text: str) -> bool:
        """Whether the text is the same in every process."""
        digest = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        return bool((self.gather(digest) == digest).all())

    def barrier(self) -> None:
        """Waits for all processes."""
        self.total(torch.zeros(()))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Runs the block in the main process first, so that the others find what it downloads."""
        self._turns += 1
        key = f"turn/{self._turns}"
        if not self.is_main:
            self._wait_for(key)
        yield
        if self.store is not None and self.is_main:
            self.store.set(key, "")

    def _wait_for(self, key: str) -> None:
        """Waits for a key, without a limit because a download may take hours, unless the main process has ended."""
        store = self._store()
        while not store.check([key]):
            if store.check([_reason(0)]):
                raise self.lost()
            time.sleep(0.05)

    def _store(self) -> Store:
        assert self.store is not None, "a single process has no store"
        return self.store

    # How processes end

    def announce_error(self, error: BaseException) -> BaseException:
        """Announces an error that ends this process, sets ``reports_error``, and returns the exception to raise."""
        if isinstance(error, LostProcessError):
            return error
        if isinstance(error, _TerminatedError) or _is_broken_connection(error):
            return self.lost()
        with suppress(RuntimeError):  # the store may have ended with its process
            self._store().set(_reason(self.rank), _short_reason(error))
            self.reports_error = self._store().add("ended", 1) == 1
            self._disconnect()
            self._leave(self._others())
        return error

    def lost(self) -> LostProcessError:
        """The error of a process that cannot continue because another one has ended."""
        self._disconnect()
        store = self._store()
        try:
            who, why, living = self._ended_process(store)
            self.reports_error = not why.isdecimal() and store.add("lost", 1) == 1
            self._leave(living)
        except RuntimeError:
            # The store has ended with the main process, which holds it if torchrun does not.
            self.reports_error, who, why = True, "process 0", ""
        if why.isdecimal():
            return LostProcessError(f"{who} of this training ended and reported its error", int(why))
        how = f"with a failure ({why})" if why else "without a message (killed, perhaps out of memory)"
        return LostProcessError("; ".join(filter(None, (f"{who} of this training ended {how}", self.advice))))

    def _ended_process(self, store: Store) -> tuple[str, str, list[int]]:
        """The process that ended, its reason (empty if it was killed), and the ranks of the others that still run."""
        store.set(f"waits/{self.rank}", "")
        deadline = time.monotonic() + GRACE_SECONDS
        while True:
            reported = [rank for rank in self._others() if store.check([_reason(rank)])]
            missing = [rank for rank in self._others() if not store.check([f"waits/{rank}"])]
            if reported:
                return f"process {reported[0]}", store.get(_reason(reported[0])).decode(), self._others()
            if not missing or time.monotonic() > deadline:
                who = f"process {' and '.join(map(str, missing))}" if missing else "every process"
                return who, "", [rank for rank in self._others() if rank not in missing]
            time.sleep(0.05)

    def _leave(self, living: list[int]) -> None:
        """Announces that this process no longer needs the store; the main process waits for the others if it holds the store."""
        store, parted = self._store(), [f"parted/{rank}" for rank in living]
        store.set(f"parted/{self.rank}", "")
        deadline = time.monotonic() + 5 * GRACE_SECONDS
        while self.is_main and not dist.is_torchelastic_launched() and not store.check(parted) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _disconnect(self) -> None:
        """Closes all connections, so that waiting processes notice at once; errors are ignored because the connection may be broken."""
        if self.memory:
            self.memory.close()
        for group in (self.small_group, dist.group.WORLD):
            with suppress(Exception):
                cast("Any", group).abort()


ALONE = World()
_current = ALONE


@contextmanager
def join_processes() -> Iterator[World]:
    """Joins the processes of this training, unless already joined; a single process otherwise.

    Raises:
        NBridgeError: if the others cannot be reached.
        LostProcessError: if another process ends within the block.
    """
    global _current  # noqa: PLW0603 (a process is in one world at a time, as in torch.distributed)
    if not is_distributed() or not _current.is_single:
        yield _current
        return
    _current = world = _connect()
    try:
        with _terminable() as ending:
            try:
                yield world
                world.barrier()
            except BaseException as error:
                ending.set()
                reason = world.announce_error(error)
                if reason is error:
                    raise
                raise reason from error
    finally:
        _current = ALONE
        if world.memory:
            world.memory.close()
        with suppress(Exception):
            dist.destroy_process_group()


def _connect() -> World:
    rank, size, local_rank = rank_and_size()
    try:
        store = next(rendezvous("env://", timeout=TIMEOUT))[0]
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        world = World(rank, size, local_rank, PrefixStore("nbridge", store))
        world.memory = share_memory(PrefixStore("memory", store), rank, size, TIMEOUT)
        # Two NCCL communicators can deadlock; gloo connections are independent.
        world.small_group = None if nccl else cast("dist.ProcessGroup", dist.new_group())
    except (RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NBridgeError(f"process {rank} of {size} cannot reach the others at {address()} ({first})") from error
    return world


def _reason(rank: int) -> str:
    return f"reason/{rank}"


def _short_reason(error: BaseException) -> str:
    """The exit code of an error that is reported in one line, the class name of any other."""
    return type(error).__name__ if (code := exit_code(error)) == 1 else str(code)


def _is_broken_connection(error: BaseException) -> bool:
    """Whether an error is a lost connection; gloo raises plain RuntimeErrors, recognised by the source file in their message."""
    return isinstance(error, (dist.DistError, LostPeerError)) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Turns SIGTERM into an exception, so that this process can still report why it ends; ignored once the yielded event is set."""
    ending = threading.Event()

    def stop(*_: object) -> None:
        if not ending.is_set():
            ending.set()
            raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGTERM, before)
