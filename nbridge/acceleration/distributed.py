"""Several processes that train one model, as torchrun starts them: who they are, what they tell each other, how they end together.

A process is alone unless its environment says otherwise (torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT); a world
of one process costs nothing and changes nothing. What travels goes through torch.distributed, gloo between CPUs and NCCL between GPUs, or,
between CPUs of one machine, through memory that they share.

A process that ends takes the others with it. It leaves its reason in the store that they met in, so that a mistake is told once, and those
that remain can tell of one that was killed.
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
from nbridge.acceleration.launched import address, place, several_processes
from nbridge.acceleration.shared_memory import CHUNK, LostMemberError, SharedMemory, share_memory
from nbridge.errors import LostProcessError, NBridgeError, exit_code

TIMEOUT = timedelta(minutes=5)
"""How long a process waits for what another computes: more than a step or a checkpoint takes, and a machine that hangs is still noticed."""
GRACE = 2.0
"""Seconds in which the others may say why they end; one that says nothing by then was killed."""


class _TerminatedError(BaseException):
    """SIGTERM, which torchrun sends to the other processes once one has ended."""


class World:
    """The processes that train one model; one that is made without arguments is alone. See `joined`.

    Arguments:
        rank: This process, from 0.
        size: The number of processes.
        local_rank: This process among those of its machine.
        store: What they met in.

    Attributes:
        memory: What processes on the CPUs of one machine share.
        speaks: Whether an error that ends this process is its own to tell.
        advice: What to do when a process is lost.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank, self.size, self.local_rank, self.store = rank, size, local_rank, store
        self.small: dist.ProcessGroup | None = None
        self.memory: SharedMemory | None = None
        self.speaks, self.advice = True, ""
        self._turns = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def device(self, name: str) -> torch.device:
        """The device of that name; of several GPUs in a machine, each process has its own.

        Raises:
            NBridgeError: when there is no such device here.
        """
        device = pick_device(name)
        if self.alone or device.type != "cuda":
            return device
        if self.local_rank >= (number := torch.cuda.device_count()):
            raise NBridgeError(
                f"process {self.rank}: no GPU is left for it, this machine has {number}; use --nproc-per-node {number} or --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of rows whose number the processes divide: one piece, in order of rank."""
        own = len(rows) // self.size
        return rows[self.rank * own : (self.rank + 1) * own]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, bit for bit the same in each of them; for small tensors, which do not queue behind gradients here."""
        if self.alone:
            return tensor
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        if self.memory and tensor.device.type == "cpu":
            return self.memory.add_up(tensor)
        self._group().allreduce([tensor]).wait()
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        r"""What every process holds, shape (size, \*shape); for small tensors as well."""
        if self.alone:
            return tensor[None]
        if self.memory and tensor.device.type == "cpu" and tensor.nbytes <= CHUNK:
            return self.memory.gather(tensor)
        found = tensor.new_empty(self.size, *tensor.shape)
        self._group().allgather([list(found.unbind())], [tensor.contiguous()]).wait()
        return found

    def _group(self) -> dist.ProcessGroup:
        """Called directly: the functions of torch.distributed take about as long again on CPUs, and a step has twenty calls."""
        return cast("dist.ProcessGroup", self.small or dist.group.WORLD)

    def agrees(self, text: str) -> bool:
        """Whether every process holds the same text."""
        digest = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        return bool((self.gather(digest) == digest).all())

    def barrier(self) -> None:
        """Waits for all processes."""
        self.total(torch.zeros(()))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Lets the main process do this before the others, so that what it downloads is there for them."""
        self._turns += 1
        key = f"turn/{self._turns}"
        if not self.is_main:
            self._wait_for(key)
        yield
        if self.store is not None and self.is_main:
            self.store.set(key, "")

    def _wait_for(self, key: str) -> None:
        """Waits without end, for a download may take hours, unless the main process has ended."""
        store = self._store()
        while not store.check([key]):
            if store.check([_reason(0)]):
                raise self.lost()
            time.sleep(0.05)

    def _store(self) -> Store:
        assert self.store is not None, "a process that is alone has no store"
        return self.store

    # How processes end

    def ends(self, error: BaseException) -> BaseException:
        """What to raise when this process ends by an error, once the others can learn of it; decides whether it speaks."""
        if isinstance(error, LostProcessError):
            return error
        if isinstance(error, _TerminatedError) or _is_broken_connection(error):
            return self.lost()
        with suppress(RuntimeError):  # the store may be gone with the process that held it
            self._store().set(_reason(self.rank), _in_short(error))
            self.speaks = self._store().add("ended", 1) == 1
            self._disconnect()
            self._part(self._others())
        return error

    def lost(self) -> LostProcessError:
        """The error of a process that cannot go on without another one."""
        self._disconnect()
        store = self._store()
        try:
            who, why, living = self._who_ended(store)
            self.speaks = not why.isdecimal() and store.add("lost", 1) == 1
            self._part(living)
        except RuntimeError:
            # The store is gone with the main process, which holds it where torchrun does not.
            self.speaks, who, why = True, "process 0", ""
        if why.isdecimal():
            return LostProcessError(f"{who} of this training ended and told why", int(why))
        how = f"by a failure ({why})" if why else "without a word (killed, perhaps for lack of memory)"
        return LostProcessError("; ".join(filter(None, (f"{who} of this training ended {how}", self.advice))))

    def _who_ended(self, store: Store) -> tuple[str, str, list[int]]:
        """Which process ended, why in short (nothing when it was killed), and the others that still live."""
        store.set(f"waits/{self.rank}", "")
        deadline = time.monotonic() + GRACE
        while True:
            told = [rank for rank in self._others() if store.check([_reason(rank)])]
            missing = [rank for rank in self._others() if not store.check([f"waits/{rank}"])]
            if told:
                return f"process {told[0]}", store.get(_reason(told[0])).decode(), self._others()
            if not missing or time.monotonic() > deadline:
                who = f"process {' and '.join(map(str, missing))}" if missing else "every process"
                return who, "", [rank for rank in self._others() if rank not in missing]
            time.sleep(0.05)

    def _part(self, living: list[int]) -> None:
        """Says that this process needs the store no more; the main one waits for that where the store would go with it."""
        store, parted = self._store(), [f"parted/{rank}" for rank in living]
        store.set(f"parted/{self.rank}", "")
        deadline = time.monotonic() + 5 * GRACE
        while self.is_main and not dist.is_torchelastic_launched() and not store.check(parted) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _disconnect(self) -> None:
        """Closes all connections, so that those who wait for this process notice at once; what fails here has failed already."""
        if self.memory:
            self.memory.close()
        for group in (self.small, dist.group.WORLD):
            with suppress(Exception):
                cast("Any", group).abort()


ALONE = World()
_current = ALONE


@contextmanager
def joined() -> Iterator[World]:
    """The processes of this training: joined here, unless they are already, or this one alone.

    Raises:
        NBridgeError: when the others cannot be reached.
        LostProcessError: when another process ended within the body.
    """
    global _current  # noqa: PLW0603 (a process is in one world at a time; so it is for torch.distributed)
    if not several_processes() or not _current.alone:
        yield _current
        return
    _current = world = _join()
    try:
        with _terminable() as ending:
            try:
                yield world
                world.barrier()
            except BaseException as error:
                ending.set()
                reason = world.ends(error)
                if reason is error:
                    raise
                raise reason from error
    finally:
        _current = ALONE
        if world.memory:
            world.memory.close()
        with suppress(Exception):
            dist.destroy_process_group()


def _join() -> World:
    rank, size, local_rank = place()
    try:
        store = next(rendezvous("env://", timeout=TIMEOUT))[0]
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        world = World(rank, size, local_rank, PrefixStore("nbridge", store))
        world.memory = share_memory(PrefixStore("memory", store), rank, size, TIMEOUT)
        # Two communicators of NCCL can lock each other out; the connections of gloo are independent.
        world.small = None if nccl else cast("dist.ProcessGroup", dist.new_group())
    except (RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NBridgeError(f"process {rank} of {size} does not reach the others at {address()} ({first})") from error
    return world


def _reason(rank: int) -> str:
    return f"reason/{rank}"


def _in_short(error: BaseException) -> str:
    """The exit code of an error that is told in a line, the name of any other."""
    return type(error).__name__ if (code := exit_code(error)) == 1 else str(code)


def _is_broken_connection(error: BaseException) -> bool:
    """Gloo raises bare RuntimeErrors, known by the file of its own that they name."""
    return isinstance(error, (dist.DistError, LostMemberError)) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Makes SIGTERM an exception, so that this process can still say why it ends; once it ends, the signal changes nothing more."""
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
