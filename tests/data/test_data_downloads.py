"""idx files and where they come from: the data folder, the cache, a server; and what is said when none of them helps."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbridge.data.benchmarks import mnist as idx
from nbridge.data.benchmarks.download import Bar, Collection, locate
from nbridge.data.benchmarks.mnist import MNIST, read_idx
from nbridge.errors import DataError

NAMES = tuple(idx.MNIST_FILES.md5)


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def idx_bytes(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def write_small_mnist(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, rows in zip(NAMES, (5, 5, 3, 3), strict=True):
        array = np.arange(rows) if "labels" in name else np.arange(rows * 784).reshape(rows, 28, 28) % 256
        (folder / name).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda _: folder)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return folder


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 (the name of the method that it replaces)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Collection]:
    """A server on this machine, with its own small files and their checksums."""
    folder = write_small_mnist(tmp_path / "server")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        md5 = {name: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() for name in NAMES}
        yield Collection("mnist", f"http://127.0.0.1:{httpd.server_port}/", md5)
        httpd.shutdown()
        thread.join()


def test_an_idx_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    for array in (np.arange(7), np.arange(24).reshape(2, 3, 4), np.zeros((0, 3))):
        (tmp_path / "file.gz").write_bytes(idx_bytes(array))
        np.testing.assert_array_equal(read_idx(tmp_path / "file.gz"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.arange(1000))[:-20], "truncated gzip file; fetch it again"),
        (b"<html>", "not a gzip file, or damaged (Not a gzipped file (b'<h')); fetch it again"),
        (
            gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x00", mtime=0),
            "begins with 0x00000d01, expected 0x000008 and the number of axes, as an idx file of bytes does",
        ),
        (gzip.compress(b"", mtime=0), "begins with 0x, expected 0x000008 and the number of axes, as an idx file of bytes does"),
        (gzip.compress(b"\x00\x00\x08", mtime=0), "truncated idx header"),
        (gzip.compress(b"\x00\x00\x08\x02\x00\x00\x00\x01", mtime=0), "truncated idx header"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x03ab", mtime=0), "2 values, but the header says 3, shape (3,)"),
    ],
)
def test_an_idx_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with refused(f"{path}: {message}"):
        read_idx(path)


def test_every_damaged_byte_of_a_gzip_file_is_refused_or_harmless(tmp_path: Path) -> None:
    path, whole = tmp_path / "file.gz", idx_bytes(np.arange(50))
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        message, found = outcome(path)
        assert message.startswith(str(path)) or found == list(range(50))


def outcome(path: Path) -> tuple[str, list[int]]:
    try:
        return "", read_idx(path).tolist()
    except DataError as error:
        return str(error), []


def test_files_under_the_data_folder_come_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_mnist(cache / "mnist")
    own = write_small_mnist(tmp_path / "data" / "mnist")
    monkeypatch.setenv("NBRIDGE_DATA", str(tmp_path / "data"))
    (own / NAMES[3]).unlink()
    found = locate(idx.MNIST_FILES, NAMES, download=False)
    assert [found[name].parent for name in NAMES] == [own, own, own, cache / "mnist"]


def test_small_files_load_in_two_parts(tmp_path: Path, cache: Path) -> None:
    write_small_mnist(cache / "mnist")
    dataset = MNIST(download=False, rows=4).load({"label": (10,), "image": (784,)})
    assert dataset.part is not None
    assert dataset.part.tolist() == ["train"] * 4 + ["test"] * 3
    assert dataset.batch.values["label"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    torch.testing.assert_close(dataset.batch.values["image"][0], torch.arange(784) % 256 / 255)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (NAMES[0], np.zeros((4, 28, 28)), "mnist: 4 images, but 5 labels in the train files"),
        (NAMES[2], np.zeros((3, 27, 28)), "{path}: shape (3, 27, 28), expected (rows, 28, 28)"),
        (NAMES[3], np.zeros((3, 1)), "{path}: shape (3, 1), expected (rows,)"),
        (NAMES[1], np.array([0, 1, 10, 3, 4]), "{path}: row 2 holds 10, expected a class index from 0 to 9"),
    ],
)
def test_files_that_do_not_belong_together_are_named(cache: Path, name: str, array: np.ndarray, message: str) -> None:
    path = write_small_mnist(cache / "mnist") / name
    path.write_bytes(idx_bytes(array))
    with refused(message.format(path=path)):
        MNIST(download=False).load({"image": (784,), "label": (10,)})


def test_without_files_and_without_download_the_files_and_places_are_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = (
        "mnist: train-labels-idx1-ubyte.gz, t10k-labels-idx1-ubyte.gz not found, and not downloaded from "
        f"{idx.MNIST_FILES.url} (`download` is false); put them in "
    )
    with refused(f"{start}{cache / 'mnist'}, or set NBRIDGE_DATA to a folder that has them in mnist/"):
        MNIST(download=False).load({"label": (10,)})
    monkeypatch.setenv("NBRIDGE_DATA", str(tmp_path))
    with refused(f"{start}{tmp_path / 'mnist'} or {cache / 'mnist'}"):
        MNIST(download=False).load({"label": (10,)})


def test_missing_files_are_downloaded_once_and_quietly(
    server: Collection, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx.MNIST, "files", server)
    dataset = MNIST().load({"image": (1, 28, 28), "label": (10,)})
    assert len(dataset.batch) == 8
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(NAMES)
    monkeypatch.setattr(idx.MNIST, "files", replace(server, url="http://127.0.0.1:1/"))
    assert len(MNIST().load({"label": (10,)}).batch) == 8
    assert capfd.readouterr() == ("", "")


def test_a_download_of_another_checksum_is_thrown_away(server: Collection, cache: Path) -> None:
    wrong = replace(server, md5={**server.md5, NAMES[1]: "0" * 32})
    with refused(
        f"mnist: {NAMES[1]} not found, and not downloaded from {server.url} (the checksum of {NAMES[1]} is not the published one); "
        f"put them in {cache / 'mnist'}, or set NBRIDGE_DATA to a folder that has them in mnist/"
    ):
        locate(wrong, NAMES[:2], download=True)
    assert [path.name for path in (cache / "mnist").iterdir()] == [NAMES[0]]


def test_a_server_that_is_out_of_reach_or_refuses_is_one_line(server: Collection, cache: Path) -> None:
    with pytest.raises(DataError, match=r"^mnist: .* \(no connection to the server\); put them in .*$"):
        locate(replace(server, url="http://127.0.0.1:1/"), NAMES, download=True)
    with pytest.raises(DataError, match=r"^mnist: .* \(the server answered 404\); put them in .*$"):
        locate(replace(server, url=f"{server.url}other/"), NAMES, download=True)


def test_a_cache_that_cannot_be_written_is_one_line(server: Collection, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"^mnist: .* not downloaded from .*; put them in .*$"):
        locate(server, NAMES, download=True)


def test_a_bar_shows_the_bytes_that_came() -> None:
    from rich.progress import Progress

    progress = Progress(disable=True)
    bar = Bar(progress, "file")
    bar.total = 10
    bar.update(4)
    task = progress.tasks[0]
    assert (task.completed, task.total, bar.total) == (4, 10, 10)
    bar.reset()
    bar.update(10)
    bar.close()
    assert task.finished
