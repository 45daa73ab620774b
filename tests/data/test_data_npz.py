"""NumPy archives: whole or not at all, without pickles, and each damage has its own line."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbridge.data.numpy.archive import read_npz, write_npz
from nbridge.data.numpy.npz import NPZ
from nbridge.errors import DataError

NAN = float("nan")


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(3),
        "a/b": np.array([[1.5, NAN]]),
        "text": np.array(["ä", "b"]),
        "scalar": np.array(2.0),
        "none": np.zeros((0, 3)),
    }
    path = tmp_path / "rows.npz"
    write_npz(path, arrays)
    for found in (read_npz(path), dict(np.load(path))):
        assert found.keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array)
            assert found[key].dtype == array.dtype
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "one.npz", {"x": np.arange(3)})
    monkeypatch.setattr("time.time", lambda: 0.0)
    write_npz(tmp_path / "two.npz", {"x": np.arange(3)})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_failed_write_leaves_the_older_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.npz"
    write_npz(path, {"x": np.arange(3)})
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("os.fsync", "numpy.lib.format.write_array", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with refused(f"{path}: cannot be written (No space left on device)"):
                write_npz(path, {"x": np.arange(4)})
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_npz(tmp_path / "rows.npz", {"x": np.arange(4)})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with refused(f"{tmp_path / 'rows.npz'}: array 'x' is of dtype object, expected numbers or text"):
        write_npz(tmp_path / "rows.npz", {"x": np.array([None])})
    with refused(f"{tmp_path / 'no' / 'rows.npz'}: cannot be written (No such file or directory)"):
        write_npz(tmp_path / "no" / "rows.npz", {"x": np.array([1])})


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    with refused(f"{tmp_path / 'folder.npz'}: cannot be written (Is a directory)"):
        write_npz(tmp_path / "folder.npz", {"x": np.array([1])})
    with pytest.raises(DataError, match=r"^\.: cannot be written"):
        write_npz("", {"x": np.array([1])})
    (tmp_path / "file").touch()
    with refused(f"{tmp_path / 'file' / 'rows.npz'}: cannot be written (Not a directory)"):
        write_npz(tmp_path / "file" / "rows.npz", {"x": np.array([1])})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_a_source_reads_values_presence_and_ids(tmp_path: Path) -> None:
    arrays = {
        "pix": np.arange(12.0).reshape(3, 4),
        "pix__present": np.array([1, 0, 1]),
        "y": np.array([0, NAN, 2]),
        "id": np.array(["a", "b", "c"]),
    }
    np.savez(tmp_path / "rows.npz", **arrays, notes=np.array("passed over"))
    dataset = NPZ(path="rows.npz", keys={"x": "pix"}).load({"x": (1, 2, 2), "y": (3,)})
    assert dataset.batch.present["x"].tolist() == [True, False, True]
    assert dataset.batch.present["y"].tolist() == [True, False, True]
    assert dataset.batch.values["x"].shape == (3, 1, 2, 2)
    assert dataset.batch.values["y"].dtype == torch.int64
    assert dataset.ids is not None
    assert dataset.ids.tolist() == ["a", "b", "c"]
    assert dataset.part is None


def test_a_relative_path_is_looked_for_here_first_and_then_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(f"rows.npz: no such file in {tmp_path}; set NBRIDGE_DATA to the folder that holds your data, or write an absolute path"):
        read_npz("rows.npz")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("NBRIDGE_DATA", str(tmp_path / "data"))
    with refused(f"rows.npz: no such file in {tmp_path} or in $NBRIDGE_DATA ({tmp_path / 'data'})"):
        read_npz("rows.npz")
    write_npz(tmp_path / "data" / "rows.npz", {"x": [1]})
    assert read_npz("rows.npz")["x"].tolist() == [1]
    write_npz(tmp_path / "rows.npz", {"x": [2]})
    assert read_npz("rows.npz")["x"].tolist() == [2]
    with refused(f"{tmp_path / 'data'}: a folder, expected a file"):
        read_npz(tmp_path / "data")
    with refused(f"{tmp_path / 'none.npz'}: no such file"):
        read_npz(tmp_path / "none.npz")
    with refused(f"{'x' * 300}: cannot be read (File name too long)"):
        read_npz("x" * 300)
    with pytest.raises(DataError, match=r"^~nobody-of-this-name/rows.npz: no such file in "):
        read_npz("~nobody-of-this-name/rows.npz")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    for content in (b"", b"x,y\n1,2\n"):
        path.write_bytes(content)
        with refused(f"{path}: not an npz file; np.savez writes one"):
            read_npz(path)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    with refused(f"{path}: not an npz file; np.savez writes one"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    with refused(f"{path}: 'notes.txt' is not an array; np.savez writes them"):
        read_npz(path)


def test_every_truncation_and_every_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    write_npz(path, {"x": np.arange(40, dtype=np.uint8)})
    whole = path.read_bytes()
    for size in range(2, len(whole), 7):
        path.write_bytes(whole[:size])
        with refused(f"{path}: truncated or damaged npz file"):
            read_npz(path)
    for at in range(2, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        message, found = outcome(path)
        assert message.startswith(str(path)) or all(array.tolist() == list(range(40)) for array in found.values())
        assert "\n" not in message


def outcome(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    try:
        return "", read_npz(path)
    except DataError as error:
        return str(error), {}


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with refused(f"{path}: array 'x' holds pickled Python objects, expected numbers or text"):
        read_npz(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NPZ(path="rows.npz"), "{path}: no array 'label'. Did you mean 'labels'? Found: image, labels, id"),
        (NPZ(path="rows.npz", keys={"label": "tag"}), "{path}: no array 'tag' for modality 'label'. Found: image, labels, id"),
        (NPZ(path="rows.npz", keys={"lable": "labels"}), "keys: 'lable' is not a modality. Did you mean 'label'? Modalities: image, label"),
        (NPZ(path="rows.npz", keys={"label": "labels"}), "{path}: modality 'label': row 1 holds 7, expected a class index from 0 to 2"),
        (NPZ(path="rows.npz", keys={"label": "id"}), "{path}: modality 'label': row 0 holds 4, expected a class index from 0 to 2"),
        (NPZ(path="rows.npz", keys={"label": "id"}, id="imge"), "{path}: no array 'imge'. Did you mean 'image'? Found: image, labels, id"),
        (
            NPZ(path="rows.npz", keys={"label": "image"}, id="labels"),
            "{path}: modality 'label': array of shape (2, 2), expected (rows, 3) or class indices (rows,)",
        ),
    ],
)
def test_an_archive_that_does_not_fit_the_spec_is_named(tmp_path: Path, source: NPZ, message: str) -> None:
    path = tmp_path / "rows.npz"
    write_npz(path, {"image": np.zeros((2, 2)), "labels": [0, 7], "id": [4, 4]})
    with refused(message.format(path=path)):
        source.load({"image": (2,), "label": (3,)})


def test_an_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    write_npz(path, {"image": np.zeros((2, 2)), "id": [4, 4]})
    with refused(f"{path}: ids: duplicate 4 in row 0 and row 1"):
        NPZ(path="rows.npz").load({"image": (2,)})


def test_an_archive_with_a_test_part_of_its_own_is_read_as_it_is(tmp_path: Path) -> None:
    """What only one part has an array of is absent from the other; text is classes; masks count where they are."""
    write_npz(
        tmp_path / "rows.npz",
        {
            "train_x": np.ones((3, 2)), "train_y": np.array(["b", "", "a"]),
            "train_z": np.ones((3, 2)), "train_id": np.array(["p", "q", "r"]),
            "test_x": np.full((2, 2), 2.0), "test_y": np.array(["a", "a"]), "test_x__present": np.array([True, False]),
            "test_id": np.array(["s", "t"]),
        },
    )  # fmt: skip
    dataset = NPZ(path="rows.npz", parts=True, classes={"y": ["a", "b"]}).load({"x": (2,), "y": (2,), "z": (2,)})
    batch = dataset.batch
    assert dataset.part is not None
    assert dataset.part.tolist() == ["train"] * 3 + ["test"] * 2
    assert dataset.ids is not None
    assert dataset.ids.tolist() == list("pqrst")
    assert batch.present["x"].tolist() == [True, True, True, True, False]
    assert batch.present["y"].tolist() == [True, False, True, True, True]
    assert batch.values["y"].tolist() == [1, 0, 0, 0, 0]
    assert batch.present["z"].tolist() == [True, True, True, False, False]
    assert batch.values["x"][:, 0].tolist() == [1, 1, 1, 2, 0]


def test_parts_and_classes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_npz(tmp_path / "rows.npz", {"train_x": np.ones((3, 2)), "test_x": np.ones((1, 2)), "train_y": np.array(["a", "c", "b"])})
    shapes = {"x": (2,), "y": (2,)}
    path = tmp_path / "rows.npz"
    with refused(f"{path}: no array 'train_w' for modality 'y'. Did you mean 'train_y'? Found: train_x, test_x, train_y"):
        NPZ(path=str(path), parts=True, keys={"y": "w"}).load(shapes)
    with refused(f"{path}: modality 'y': row 1 holds 'c', expected one of a, b, or an empty text"):
        NPZ(path=str(path), parts=True, classes={"y": ["a", "b"]}).load(shapes)
    with refused("classes: 'w' is not a modality. Modalities: x, y"):
        NPZ(path=str(path), parts=True, classes={"w": ["a", "b"]}).load(shapes)
