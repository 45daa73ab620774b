"""Files appear whole or not at all, whatever fails and whoever else writes."""

from __future__ import annotations

import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nbridge.common.atomic_files import write_atomically, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_utf8_with_the_newlines_it_has(tmp_path: Path):
    write_text(tmp_path / "a.txt", "é\nb\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\nb\r\n"


def test_json_is_indented_readable_and_ends_in_a_newline(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "café", "values": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "café", "values": [1, 2.5, None]}
    assert text.startswith('{\n  "name": "café",\n')
    assert text.endswith("]\n}\n")


def test_an_older_file_is_replaced(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old and longer")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), OSError("no number")], ids=["ValueError", "interrupted", "OSError"]
)
def test_a_failure_half_way_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: BaseException):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomically(path, half)
    assert caught.value is error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a.txt", lambda _: 1 / 0)
    assert names(tmp_path) == []


def test_a_full_disk_is_told_of_the_file_that_was_asked_for(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(path, full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_a_flush_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_that_is_missing_or_in_the_way_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "none" / "a.txt", "new")
    assert caught.value.filename == str(tmp_path / "none" / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "folder", "new")
    assert caught.value.filename == str(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "new")
        write_atomically(tmp_path / "tensors", lambda temporary: save_file({"a": torch.zeros(1)}, temporary))
        after = os.umask(mask)
    finally:
        os.umask(before)
    assert after == mask
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_of_several_writers_at_once_one_wins_whole(tmp_path: Path):
    path = tmp_path / "a.txt"
    texts = [str(number) * 50_000 for number in range(8)]
    write_text(path, texts[0])

    def write(number: int) -> bool:
        for _ in range(4):
            write_text(path, texts[number])
            if path.read_text() not in texts:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(8)))
    assert names(tmp_path) == ["a.txt"]
