"""A programming error inside the library is never reported as a mistake in somebody's data: only what reading raises is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from omics import study
from omics import write as write_omics
from PIL import Image

from nbridge.data.benchmarks import download
from nbridge.data.column import read_column
from nbridge.data.images import files as image_files
from nbridge.data.images.decode import read_colours
from nbridge.data.numpy import members
from nbridge.data.omics import container
from nbridge.data.tables import frames, hub_frames
from nbridge.data.tables.source import Table
from nbridge.draft.checks import check_data
from nbridge.errors import DataError
from nbridge.spec.reader import spec_from_dict


class SlipError(ValueError, TypeError, KeyError):
    """What a slip in the code might raise: any of the errors that readers of damaged files raise as well."""


def broken(*_: object, **__: object) -> Any:
    raise SlipError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image() -> Path:
    path = Path("one.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def test_a_check_of_data_passes_on_what_is_no_mistake_in_them(monkeypatch: pytest.MonkeyPatch):
    Path("rows.csv").write_text("x\n1\n2\n")
    spec = spec_from_dict(
        {"data": {"source": "table", "path": "rows.csv"}, "modalities": {"x": {"shape": 1, "encoder": "mlp", "likelihood": "normal"}}}
    )
    monkeypatch.setattr(Table, "load", broken)
    with pytest.raises(SlipError):
        check_data(spec)


def test_elements_of_an_object_in_memory_are_fetched_without_a_net(monkeypatch: pytest.MonkeyPatch):
    omics = container.omics_of(study(rows=4))
    monkeypatch.setattr(container, "_element", broken)
    with pytest.raises(SlipError):
        container.omics_of(study(rows=4)).whole.read("obs")
    assert len(omics.whole.read("obs")) == 4


def test_whatever_a_reader_of_files_raises_is_a_mistake_in_the_file(here: Path, monkeypatch: pytest.MonkeyPatch):
    write_omics(here / "cells.h5mu", study(rows=4))
    with container.opened(here / "cells.h5mu") as omics:
        monkeypatch.setattr(container.anndata_of().io, "read_elem", broken)
        with pytest.raises(DataError, match=r"cells\.h5mu: obs can't be read \(SlipError\)"):
            omics.whole.read("obs")


def test_rows_of_an_archive_are_cut_without_a_net(here: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(here / "rows.npz", x=np.arange(6.0).reshape(3, 2))
    with zipfile.ZipFile(here / "rows.npz") as archive:
        member = members.archive_member(archive, "x.npy", here / "scratch.npy")
        assert member.rows(1, 3).tolist() == [[2, 3], [4, 5]]
        monkeypatch.setattr(members, "prod", broken)
        with pytest.raises(SlipError):
            member.rows(0, 1)


@pytest.mark.parametrize("name", ["converted", "_sized", "to_array"])
def test_pixels_are_converted_without_a_net(name: str, monkeypatch: pytest.MonkeyPatch):
    target = image_files.ImageTarget("image", (1, 4, 4))
    path = image()
    assert target.decode(path).shape == (1, 4, 4)
    monkeypatch.setattr(image_files.ImageTarget if name == "_sized" else image_files, name, broken)
    with pytest.raises(SlipError):
        target.decode(path)


def test_photographs_are_fetched_without_a_net():
    with pytest.raises(SlipError):
        read_colours(broken, "one.jpg")


@pytest.mark.parametrize("value", [{"bytes": b"no image"}, {"path": "nothing.png"}, {}])
def test_an_image_of_a_dataset_that_cannot_be_read_is_a_mistake(value: dict[str, Any]):
    with pytest.raises(DataError, match=r"^column 'face': the image in row 3 can't be read"):
        hub_frames._pixels("face", 3, {"bytes": None, "path": None, **value})


def test_an_image_of_a_dataset_is_converted_without_a_net(monkeypatch: pytest.MonkeyPatch):
    content = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(content, "PNG")
    monkeypatch.setattr(hub_frames.np, "asarray", broken)
    with pytest.raises(SlipError):
        hub_frames._pixels("face", 0, {"bytes": content.getvalue(), "path": None})


class Silent:
    """What no array can be made of, without a word why."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise ValueError


@pytest.mark.parametrize("read", [lambda array: frames.ArraysFrame({"x": array}), lambda array: read_column("x", array, (2,))])
def test_an_array_that_says_nothing_of_its_mistake_is_one(read: Callable[[Any], Any]):
    with pytest.raises(DataError, match=r"not an array .* \(ValueError\)"):
        read(Silent())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("MD5 hash of downloaded file (x) does not match the known hash"), "the checksum of x is not the published one"),
        (requests.exceptions.InvalidURL("no such place"), "no connection to the server"),
    ],
)
def test_a_download_that_fails_is_told_by_its_reason(here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str):
    assert fetched(here, monkeypatch, error) == message


def test_a_download_passes_on_what_is_neither_the_network_nor_a_checksum(here: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SlipError):
        fetched(here, monkeypatch, SlipError())


def fetched(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> str | None:
    import pooch

    def retrieve(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return download._download(download.Collection("name", "https://nowhere.invalid/", {"x": "0"}), ["x"], folder)
