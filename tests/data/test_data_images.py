"""Images in files: what folders and columns of paths give, who is present, and what is said of files that can't be used."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nbridge.data.images.files import ImageTarget, write_png
from nbridge.data.images.source import Images
from nbridge.data.split import Dataset
from nbridge.draft.checks import check_data
from nbridge.errors import DataError
from nbridge.spec.reader import parse_spec, spec_from_dict

GREY, COLOUR = (1, 4, 6), (3, 4, 6)


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def pixels(seed: int, shape: tuple[int, ...] = (4, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def folder(path: Path, names: Sequence[str], shape: tuple[int, ...] = (4, 6, 3)) -> Path:
    for seed, name in enumerate(names):
        save(path / name, pixels(seed, shape))
    return path


def table(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def loaded(shapes: Mapping[str, tuple[int, ...]], **options: Any) -> Dataset:
    return Images(**options).load(shapes)


def seen(path: Path, shape: tuple[int, ...] = COLOUR, **options: Any) -> np.ndarray:
    """The first image of a folder, (C, H, W), as levels."""
    values = loaded({"face": shape}, folders={"face": str(path)}, **options).batch.values["face"]
    return (values[0] * 255).round().numpy().astype(np.uint8)


@given(st.sampled_from([GREY, COLOUR]).flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_an_image_that_is_written_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, levels: np.ndarray):
    path = tmp_path_factory.mktemp("png") / "one.png"
    write_png(path, levels / 255)
    assert np.array_equal(ImageTarget("face", levels.shape).decode(path), levels)
    values = loaded({"face": levels.shape}, folders={"face": str(path.parent)}).batch.values["face"]
    assert torch.equal(values, torch.from_numpy(levels)[None] / 255)


def test_rows_of_folders_and_tables_are_joined_on_the_names_of_files(tmp_path: Path):
    front = folder(tmp_path / "front view", ["a b.png", "ünïcode.bmp", "c.PNG"])
    back = folder(tmp_path / "back", ["c.png", "d.png"], (4, 6))
    people = table(tmp_path / "people.csv", {"who": ["d", "ünïcode", "e"], "height": ["1.7", "", "1.6"], "note": ["x", "y", "z"]})
    dataset = loaded(
        {"front": COLOUR, "back": GREY, "height": (1,)}, folders={"front": str(front), "back": str(back)}, table=str(people), id="who"
    )  # fmt: skip
    assert dataset.ids is not None
    assert dataset.ids.tolist() == ["d", "ünïcode", "e", "a b", "c"]
    there = {name: mask.tolist() for name, mask in dataset.batch.present.items()}
    assert there == {
        "front": [False, True, False, True, True],
        "back": [True, False, False, False, True],
        "height": [True, False, True, False, False],
    }
    for name, path, row in (("front", front / "ünïcode.bmp", 1), ("back", back / "d.png", 0)):
        levels = stored(path).reshape(4, 6, -1).transpose(2, 0, 1)
        assert torch.equal(dataset.batch.values[name][row], torch.from_numpy(levels.copy()) / 255)
    assert dataset.place is not None
    assert dataset.place("front", 3, 0) == f"{front}: modality 'front', column 'front', a b.png"


def test_a_column_of_paths_is_a_modality(tmp_path: Path):
    folder(tmp_path / "my scans", ["1.png", "2.png"])
    outside = save(tmp_path / "elsewhere" / "3.png", pixels(7))
    paths = ["my scans/2.png", "", "unknown", str(outside)]
    people = table(tmp_path / "people.csv", {"scan file": paths, "age": ["5", "6", "", "8"]})
    options: dict[str, Any] = {"files": {"scan": "scan file"}, "table": str(people)}
    dataset = loaded({"scan": COLOUR, "age": (1,)}, missing=("unknown",), **options)
    assert dataset.ids is None
    assert dataset.batch.present["scan"].tolist() == [True, False, False, True]
    assert torch.equal(dataset.batch.values["scan"][3], torch.from_numpy(pixels(7).transpose(2, 0, 1).copy()) / 255)
    moved = table(tmp_path / "elsewhere" / "people.csv", {"scan file": paths, "age": ["5", "6", "", "8"]})
    other = loaded({"scan": COLOUR}, **{**options, "table": str(moved), "root": str(tmp_path)}, missing=("unknown",))
    assert torch.equal(other.batch.values["scan"], dataset.batch.values["scan"])
    with refused(
        f"{people}: column 'scan file': row 2 (line 4) names \"unknown\", no such file in {tmp_path}; leave cells of absent "
        "images empty, or set data.missing_files: absent"
    ):
        loaded({"scan": COLOUR}, **options)
    lenient = loaded({"scan": COLOUR}, missing_files="absent", **options)
    assert lenient.batch.present["scan"].tolist() == [True, False, False, True]
    with refused(f"{people}: no column 'scann' for modality 'scan'. Found: scan file, age"):
        loaded({"scan": COLOUR}, files={"scan": "scann"}, table=str(people))


def test_colours_and_greys_are_those_of_the_shape(tmp_path: Path):
    colour, grey = pixels(0), pixels(1, (4, 6))
    save(tmp_path / "colour" / "a.png", colour)
    assert np.array_equal(seen(tmp_path / "colour", GREY)[0], np.asarray(Image.fromarray(colour).convert("L")))
    save(tmp_path / "grey" / "a.png", grey)
    assert np.array_equal(seen(tmp_path / "grey"), np.stack([grey] * 3))
    save(tmp_path / "ink" / "a.png", grey > 100)
    assert np.array_equal(seen(tmp_path / "ink", GREY)[0], 255 * (grey > 100))


def test_what_is_transparent_lies_on_white(tmp_path: Path):
    colour = pixels(0)
    alpha = np.zeros((4, 6, 1), np.uint8)
    alpha[1:] = 255
    save(tmp_path / "a.png", np.concatenate([colour, alpha], axis=2))
    expected = colour.copy()
    expected[0] = 255
    assert np.array_equal(seen(tmp_path), expected.transpose(2, 0, 1))


def test_a_photograph_is_turned_as_its_camera_was(tmp_path: Path):
    turned = Image.fromarray(pixels(0, (6, 4, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(seen(tmp_path), np.rot90(np.asarray(turned), -1).transpose(2, 0, 1))


def test_images_of_another_size_are_resized_where_the_spec_says_so(tmp_path: Path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 3:9] = 255
    save(tmp_path / "a.png", wide)
    assert (seen(tmp_path, (3, 4, 6), resize="crop") == 255).all()
    stretched = seen(tmp_path, (3, 4, 6), resize="stretch")
    assert (stretched[:, :, [0, 5]] < 60).all()
    assert (stretched[:, :, 2:4] > 200).all()
    padded = seen(tmp_path, (3, 12, 12), resize="pad")
    assert np.array_equal(padded[:, 4:8], wide.transpose(2, 0, 1))
    assert (padded[:, :4] == 0).all()
    with refused(
        f"{tmp_path / 'a.png'}: 12 x 4 pixels, expected 6 x 4 (width x height), the shape [3, 4, 6] of modality 'face'; set data.resize "
        "to crop, pad or stretch"
    ):
        seen(tmp_path)


def test_hidden_files_and_those_that_are_no_images_are_passed_over_and_told(tmp_path: Path):
    folder(tmp_path, ["a.png", "b.png"])
    plain = seen(tmp_path)
    for name in (".hidden.png", "._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "more.png").mkdir()
    assert np.array_equal(seen(tmp_path), plain)
    source = Images(folders={"face": str(tmp_path)})
    assert source.remarks({"face": COLOUR}) == (f"{tmp_path}: passed over, no images by their names: more.png, notes.txt",)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def animated(path: Path) -> None:
    frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


KNOWN = "png, jpg, jpeg, webp, bmp, gif, tif, tiff, pgm, ppm"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cannot be read (image file is truncated)"),
        (lambda path: path.write_bytes(b""), f"cannot be read (not a supported image format: {KNOWN})"),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), f"cannot be read (not a supported image format: {KNOWN})"),
        (animated, "holds 3 images, expected one; save each to its own file"),
        (
            lambda path: Image.fromarray(pixels(0, (4, 6)).astype(np.uint16) * 200).save(path),
            "more than 8 bits per channel (mode I;16), expected 8; scale it and save it again",
        ),
    ],
    ids=["truncated", "empty", "a program", "animated", "16 bits"],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, damage: Callable[[Path], Any], message: str):
    folder(tmp_path, ["a.png", "b c.png", "d.png"], (40, 60, 3))
    damage(tmp_path / "b c.png")
    with refused(f"{tmp_path / 'b c.png'}: {message}"):
        seen(tmp_path, (3, 40, 60))


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path):
    with refused(f"{tmp_path}: no image in this folder (.png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff, .pgm, .ppm)"):
        seen(tmp_path)
    folder(tmp_path, ["a.png", "a.jpg", "b.png"])
    with refused(f"{tmp_path}: a.jpg and a.png have the same stem, so the row's image is ambiguous; remove one"):
        seen(tmp_path)
    with refused(f"{tmp_path / 'none'}: no such folder"):
        seen(tmp_path / "none")


def test_files_that_have_no_row_in_common_are_told(tmp_path: Path):
    faces = folder(tmp_path / "faces", ["000001.png"])
    people = table(tmp_path / "people.csv", {"id": ["1", "2"], "age": ["5", "6"]})
    with refused(f'{faces}: no identifier in common with the other files ("000001" here, "1" in {people}), so no row can be joined'):
        loaded({"face": COLOUR, "age": (1,)}, folders={"face": str(faces)}, table=str(people))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("110", ""),
        ("111", "row 2 (line 4) says that face is present, but all its cells are empty"),
        ("010", "row 0 (line 2) says that face is absent, but it has values; empty its cells, or set 1"),
        ("112", "row 2 (line 4) is neither 1 nor 0"),
    ],
)  # fmt: skip
def test_a_column_of_presence_says_what_the_folder_has_or_is_told(tmp_path: Path, said: str, message: str):
    faces = folder(tmp_path / "faces", ["a.png", "b.png"])
    people = table(tmp_path / "people.csv", {"id": ["b", "a", "c"], "age": ["5", "6", "7"], "face__present": list(said)})
    shapes, options = {"face": COLOUR, "age": (1,)}, {"folders": {"face": str(faces)}, "table": str(people)}
    if message:
        with refused(f"{people}: column 'face__present': {message}"):
            loaded(shapes, **options)
    else:
        assert loaded(shapes, **options).batch.present["face"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        (
            {},
            {"face": COLOUR},
            "images: neither folders nor files; name the folder of a modality, folders: {image: faces}, or source: table",
        ),
        ({"folders": {"fase": "x"}}, {"face": COLOUR}, "folders: 'fase' is not a modality. Did you mean 'face'? Modalities: face"),
        ({"files": {"face": "x"}}, {"face": COLOUR}, "files: columns of a table, but data.table is not set"),
        (
            {"folders": {"face": "x"}, "columns": {"face": "y"}},
            {"face": COLOUR},
            "modality 'face': in folders, columns, expected one of them",
        ),
        (
            {"folders": {"face": "."}},
            {"face": (2, 4, 6)},
            "modality 'face': shape [2, 4, 6], expected that of images, [1, height, width] for grey ones or [3, height, width] for colour",
        ),
        (
            {"folders": {"face": "."}, "id": ""},
            {"face": COLOUR},
            "id: folders of images have identifiers, the names of their files; leave id out, or name the column of a table",
        ),
    ],
)
def test_options_that_do_not_go_together_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], shapes: dict[str, tuple[int, ...]], message: str
):
    monkeypatch.chdir(folder(tmp_path, ["a.png"]))
    with refused(message):
        loaded(shapes, **options)


def test_every_kind_of_mistake_is_told_at_once(tmp_path: Path):
    front, back = folder(tmp_path / "front", ["a.png"], (5, 5, 3)), folder(tmp_path / "back", ["a.png", "b.png"])
    cut(back / "b.png")
    people = table(tmp_path / "people.csv", {"id": ["a"], "age": ["old"]})
    shapes = {"front": COLOUR, "back": COLOUR, "age": (1,)}
    source = Images(folders={"front": str(front), "back": str(back)}, table=str(people))
    lines = source.mistakes(shapes)
    assert [line.partition(": ")[0] for line in lines] == [str(front / "a.png"), str(back / "b.png"), str(people)]


def test_a_likelihood_of_bytes_is_doubted(tmp_path: Path):
    folder(tmp_path / "faces", [f"{row}.png" for row in range(40)])
    part = {"shape": list(COLOUR), "encoder": "mlp", "likelihood": {"type": "discretized_logistic", "high": 255}}
    spec = {"modalities": {"face": part}, "data": {"source": "images", "folders": {"face": str(tmp_path / "faces")}}}
    told = "modality 'face': no value above 1, but its likelihood has high: 255; set its high"
    assert check_data(spec_from_dict(spec)).warnings == (told,)
    part["likelihood"] = "discretized_logistic"
    assert check_data(spec_from_dict(spec)).warnings == ()


def test_the_spec_that_is_shown_holds():
    shown = (Path(__file__).parents[2] / "docs" / "howto" / "images.md").read_text()
    spec = parse_spec(re.findall(r"```yaml\n(data:.*?)```", shown, re.DOTALL)[0])
    assert Images(**spec.data.source.kwargs).folders == {"front": "shots/front", "back": "shots/back"}


def test_real_photographs_are_read_as_they_are(tmp_path: Path, real_data: Path):
    with zipfile.ZipFile(next((real_data / "celeba10k").glob("*.zip"))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:5]
        archive.extractall(tmp_path, names)
    dataset = loaded({"face": (3, 109, 89)}, folders={"face": str(tmp_path / Path(names[0]).parent)})
    assert dataset.ids is not None
    assert dataset.ids.tolist() == [Path(name).stem for name in names]
    for name, image in zip(names, dataset.batch.values["face"], strict=True):
        levels = stored(tmp_path / name).transpose(2, 0, 1)
        assert torch.equal(image, torch.from_numpy(levels.copy()) / 255)
