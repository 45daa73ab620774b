"""Memory that processes share: sums and gathers are those of a loop, and a member that ends is noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from nbridge.acceleration import shared_memory
from nbridge.acceleration.shared_memory import LostPeerError, SharedMemory, share_memory

pytestmark = pytest.mark.skipif(not shared_memory._is_supported(), reason="this system shares no memory")
SECOND = timedelta(seconds=1)
Result = TypeVar("Result")


def in_each(members: int, work: Callable[[int], Result]) -> list[Result]:
    with ThreadPoolExecutor(members) as threads:
        return list(threads.map(work, range(members)))


@contextmanager
def shared(number: int) -> Iterator[list[SharedMemory]]:
    store = dist.HashStore()
    found = in_each(number, lambda rank: share_memory(store, rank, number, 60 * SECOND))
    members = [memory for memory in found if memory is not None]
    yield members
    for memory in members:
        memory.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "CHUNK", 64)
    # Members that are threads hold their locks as one process, and see each other's as free.
    monkeypatch.setattr(SharedMemory, "_has_ended", lambda self, rank: False)


DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8])
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(
        dtype,
        st.tuples(st.integers(1, 4), st.integers(0, 60)),
        elements=st.integers(0, 9) if np.issubdtype(dtype, np.integer) else st.floats(-1e3, 1e3, width=32),
    )
)


@pytest.mark.usefixtures("small_chunks")
@given(ARRAYS, st.integers(0, 2))
def test_every_member_finds_the_sum_in_order_of_rank_whatever_the_size(rows: np.ndarray, late: int):
    """Rows are what the members hold; one of them comes late."""
    with shared(len(rows)) as members:

        def add_up(rank: int) -> list[Tensor]:
            found = []
            for turn in range(3):
                time.sleep(1e-3 * (rank == late))
                found.append(members[rank].add_up(torch.tensor(rows[rank]) + turn))
            return found

        found = in_each(len(rows), add_up)
    for turn in range(3):
        expected = torch.tensor(rows[0]) + turn
        for row in rows[1:]:
            expected += torch.tensor(row) + turn
        for sums in found:
            assert torch.equal(sums[turn], expected)


@pytest.mark.usefixtures("small_chunks")
@given(npst.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4)), elements=st.floats(-9, 9, width=32)))
def test_every_member_finds_what_each_holds_and_keeps_it(rows: np.ndarray):
    with shared(len(rows)) as members:

        def gather(rank: int) -> list[Tensor]:
            return [members[rank].gather(torch.tensor(rows[rank]) + turn) for turn in range(4)]

        gathered = in_each(len(rows), gather)
    for found in gathered:
        for turn, tensor in enumerate(found):
            assert torch.equal(tensor, torch.tensor(rows) + turn)


def test_no_file_is_left_while_memory_is_shared():
    before = set(shared_memory.DIRECTORY.iterdir())
    with shared(2) as members:
        assert set(shared_memory.DIRECTORY.iterdir()) == before
        assert len(members) == 2


def test_where_no_file_can_lie_in_memory_nothing_is_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for place in (tmp_path / "missing", Path("/proc")):
        monkeypatch.setattr(shared_memory, "DIRECTORY", place)
        with shared(2) as members:
            assert members == []


def test_all_do_without_where_one_is_on_another_machine(monkeypatch: pytest.MonkeyPatch):
    before = set(shared_memory.DIRECTORY.iterdir())
    make = SharedMemory.__init__

    def elsewhere(self: SharedMemory, path: Path, rank: int, size: int, timeout: timedelta) -> None:
        make(self, Path("/no/such") if rank == 1 else path, rank, size, timeout)

    monkeypatch.setattr(SharedMemory, "__init__", elsewhere)
    with shared(3) as members:
        assert members == []
    assert set(shared_memory.DIRECTORY.iterdir()) == before


# Members that end

OTHER = """
import sys, time
from datetime import timedelta
from pathlib import Path
from nbridge.acceleration.shared_memory import SharedMemory

memory = SharedMemory(Path(sys.argv[1]), 1, 2, timedelta(seconds=60))
print("there", flush=True)
if sys.argv[2] == "closes":
    memory.close()
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("is killed", "process 1, which shares memory, has ended"),
        ("closes", "process 1, which shares memory, has ended"),
        ("is silent", "no message from a process that shares memory for 1 s"),
    ],
)
def test_a_member_that_ends_or_is_silent_is_told(other: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_memory, "POLLS", 16)
    path = Path(shared_memory._new_file(2))
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(path), other], stdout=subprocess.PIPE, text=True)
    try:
        memory = SharedMemory(path, 0, 2, SECOND)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        if other == "is killed":
            process.kill()
            process.wait()
        with pytest.raises(LostPeerError) as refused:
            memory.gather(torch.zeros(1))
        memory.close()
        assert str(refused.value) == message
    finally:
        path.unlink()
        process.kill()
        process.communicate()


def test_the_last_word_of_a_member_that_ends_at_once_is_heard(monkeypatch: pytest.MonkeyPatch):
    """It says it and ends between a look at its counter and the question whether it lives."""
    monkeypatch.setattr(shared_memory, "POLLS", 1)
    with shared(2) as (one, other):

        def ends(memory: SharedMemory, rank: int) -> bool:
            other._exchange(torch.tensor([2.0]))
            return True

        with monkeypatch.context() as patch:
            patch.setattr(SharedMemory, "_has_ended", ends)
            assert one.gather(torch.tensor([1.0])).tolist() == [[1.0], [2.0]]
