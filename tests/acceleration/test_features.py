"""Features computed once are the same in memory and in a file, and a full disk is told in one line."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
import torch

from nbridge.acceleration import features
from nbridge.acceleration.features import cache_features, free_memory
from nbridge.common import memory as machine_memory
from nbridge.errors import NBridgeError

CPU = torch.device("cpu")


def parts():
    torch.manual_seed(0)
    whole = {"a": torch.randn(25, 3), "teacher.loc": torch.randn(25, 4).double()}
    return whole, ({name: x[start : start + 10] for name, x in whole.items()} for start in range(0, 25, 10))


@pytest.mark.parametrize("limit", [0.0, 25 * (3 * 4 + 4 * 8) - 1, 25 * (3 * 4 + 4 * 8), None])
def test_what_is_put_together_equals_the_parts_wherever_it_lies(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []
    monkeypatch.setattr(features, "_on_disk", lambda like, rows, real=features._on_disk: made.append(rows) or real(like, rows))
    whole, given = parts()
    together = cache_features(given, 25, limit)
    assert made == ([] if limit in (None, 25 * (3 * 4 + 4 * 8)) else [25, 25]), "only what is above the limit goes to a file"
    assert together.keys() == whole.keys()
    for name, x in whole.items():
        assert torch.equal(together[name], x)
        assert torch.equal(together[name].index_select(0, torch.tensor([24, 0, 24])), x[[24, 0, 24]])
    assert list(tmp_path.iterdir()) == [], "the file has no name, so nothing can be left behind"


def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    message = (
        f"{tmp_path}: features of 25 rows cannot be written ([Errno 28] No space left on device). "
        "Set TMPDIR to a folder with more space, or training.cache_features to false."
    )
    with pytest.raises(NBridgeError, match=f"^{re.escape(message)}$"):
        cache_features(parts()[1], 25, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_free_memory_is_the_smaller_of_what_the_machine_and_the_container_have(monkeypatch, tmp_path):
    machine, limit, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    monkeypatch.setattr(machine_memory, "_MEMORY", machine)
    monkeypatch.setattr(machine_memory, "_CGROUP", (limit, used))
    assert free_memory(CPU) == float("inf")
    machine.write_text("MemTotal:       8000 kB\nMemAvailable:   4000 kB\n")
    assert free_memory(CPU) == 4000 * 1024
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert free_memory(CPU) == 4000 * 1024
    limit.write_text("1001000\n")
    assert free_memory(CPU) == 1000000
    limit.write_text("10\n")
    assert free_memory(CPU) == 0


def test_the_memory_of_this_machine_can_be_read():
    if not Path("/proc/meminfo").is_file():
        pytest.skip("this system does not say")
    assert 0 < free_memory(CPU) < 2**60
