"""Images from anywhere are decoded by one function: known formats alone, upright, within bounds, and each mistake in a line."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

import nbridge
from nbridge.data.benchmarks.celeba import Store, read_square
from nbridge.data.benchmarks.polymnist import read_crops
from nbridge.data.images.decode import FORMATS, UnknownFormatError, UnreadableImageError, converted, decoded, to_array
from nbridge.data.images.files import Size, size_of
from nbridge.data.images.source import Images
from nbridge.data.tables.hub_frames import HubFrame
from nbridge.errors import DataError
from nbridge.explore.session import Session
from nbridge.explore.uploads import read_pixels, upload
from nbridge.spec.reader import spec_from_dict
from nbridge.visual.png import DATA_URI_PREFIX

QUARTER = 6
"""EXIF: turn by a quarter, clockwise."""
PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 12
SIDE = 28
SQUARE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def written(form: str = "PNG", pixels: np.ndarray = PIXELS, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form, **options)
    return content.getvalue()


def turned(form: str = "PNG", pixels: np.ndarray = PIXELS, orientation: int = QUARTER) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(form, pixels, exif=exif)


def test_one_file_of_the_package_opens_images():
    package = Path(nbridge.__file__).parent
    opening = {path.relative_to(package).as_posix(): path.read_text().count("Image.open(") for path in package.rglob("*.py")}
    assert {path: count for path, count in opening.items() if count} == {"data/images/decode.py": 1}


# Each of these reads an image of SIDE x SIDE pixels, as bytes of shape (3, SIDE, SIDE), from the content of its file.


def from_folder(content: bytes, folder: Path) -> np.ndarray:
    (folder / "a.png").write_bytes(content)
    return levels(Images(folders={"face": str(folder)}))


def from_column(content: bytes, folder: Path) -> np.ndarray:
    (folder / "a.png").write_bytes(content)
    (folder / "rows.csv").write_text("file\na.png\n")
    return levels(Images(files={"face": "file"}, table=str(folder / "rows.csv")))


def levels(source: Images) -> np.ndarray:
    return (source.load({"face": (3, SIDE, SIDE)}).batch.values["face"][0] * 255).round().byte().numpy()


def from_dataset(content: bytes, _: Path) -> np.ndarray:
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": [{"bytes": content, "path": None}]}, features=features)
    return np.array(HubFrame(table).arrow("image").to_pylist()[0], np.uint8)


def from_celeba(content: bytes, folder: Path) -> np.ndarray:
    return read_square(Store(folder, {"a.jpg": "a.jpg"}, lambda _: content), "a.jpg", SIDE, 1.0)


def from_polymnist(content: bytes, folder: Path) -> np.ndarray:
    (folder / "a.png").write_bytes(content)
    return read_crops(folder / "a.png")[0, 0]


def from_upload(content: bytes, _: Path) -> np.ndarray:
    part = {"shape": [3, SIDE, SIDE], "encoder": "mlp", "likelihood": "bernoulli"}
    model = nbridge.build_model(spec_from_dict({"modalities": {"image": part}}))
    # Of its session an upload needs only the model.
    picture = upload(cast("Session", SimpleNamespace(model=model)), "image", content)["picture"]
    return from_page(base64.b64decode(picture.removeprefix(DATA_URI_PREFIX)), Path())


def from_page(content: bytes, _: Path) -> np.ndarray:
    return read_pixels("image", DATA_URI_PREFIX + base64.b64encode(content).decode(), (3, SIDE, SIDE))


Read = Callable[[bytes, Path], np.ndarray]
SUPPORTED = "not a supported image format: png, jpg, jpeg, webp, bmp, gif, tif, tiff, pgm, ppm"
UPLOAD = "image: the image cannot be read ({})"
READERS: dict[str, tuple[Read, str, str, str]] = {
    "folder": (from_folder, "PNG", "{here}/a.png: cannot be read ({})", SUPPORTED),
    "column of paths": (from_column, "PNG", "{here}/a.png: cannot be read ({})", SUPPORTED),
    "dataset": (from_dataset, "PNG", "column 'image': the image in row 0 can't be read ({})", f"not a {', '.join(FORMATS)} file"),
    "celeba": (from_celeba, "JPEG", "{here}: a.jpg cannot be read ({}); fetch it again", "not a JPEG image"),
    "polymnist": (from_polymnist, "PNG", "{here}: a.png cannot be read ({}); fetch it again", "not a JPEG or PNG image"),
    "upload": (from_upload, "PNG", UPLOAD, "not a PNG, JPEG, WEBP, BMP, GIF file"),
    "page": (from_page, "PNG", UPLOAD, "not a PNG file"),
}
"""All that read images: a format that they accept, their message, and what it says of other formats."""
readers = pytest.mark.parametrize("name", READERS)


def refused(message: str, folder: Path, reason: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message.format(reason, here=folder))}$")


@readers
def test_every_reader_turns_images_upright(name: str, tmp_path: Path):
    read, form, *_ = READERS[name]
    plain = read(written(form, SQUARE), tmp_path)
    assert form == "JPEG" or np.array_equal(plain, SQUARE.transpose(2, 0, 1))
    assert np.array_equal(read(turned(form, SQUARE), tmp_path), np.rot90(plain, -1, axes=(1, 2)))


@readers
@pytest.mark.parametrize("other", ["EPS", "PDF", "TGA"])
def test_every_reader_refuses_other_formats_though_pillow_knows_them(name: str, other: str, tmp_path: Path):
    read, _, message, reason = READERS[name]
    with refused(message, tmp_path, reason):
        read(written(other, SQUARE), tmp_path)


@readers
def test_every_reader_refuses_too_many_pixels_before_they_are_decoded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read, form, message, _ = READERS[name]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE * SIDE // 2 - 1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with refused(message, tmp_path, "too many pixels"):
        read(written(form, SQUARE), tmp_path)


@readers
def test_every_reader_refuses_what_is_damaged(name: str, tmp_path: Path):
    read, form, message, _ = READERS[name]
    reason = "damaged" if name in ("dataset", "upload", "page") else "Truncated File Read" if form == "JPEG" else "image file is truncated"
    with refused(message, tmp_path, reason):
        read(written(form, SQUARE)[: 100 if form == "JPEG" else -400], tmp_path)


@pytest.mark.parametrize("read", [read for read, form, *_ in READERS.values() if form == "PNG"])
def test_every_reader_puts_what_is_transparent_on_white(read: Read, tmp_path: Path):
    content = io.BytesIO()
    image = Image.fromarray(SQUARE).quantize(7)
    clear = np.asarray(image) == 3
    assert clear.any()
    expected = np.where(clear, 255, np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    image.save(content, "PNG", transparency=3)
    assert np.array_equal(read(content.getvalue(), tmp_path), expected)


def test_the_alpha_channel_of_an_image_of_a_dataset_is_kept():
    colours = np.random.default_rng(1).integers(0, 256, (4, 5, 4), np.uint8)
    assert np.array_equal(from_dataset(written("PNG", colours), Path()), colours.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "MPO"])
def test_a_header_has_the_size_of_the_decoded_image_without_decoding_it(
    form: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.png"
    path.write_bytes(turned(form, PIXELS, orientation) if orientation else written(form))
    size = decoded(path).size
    assert (size == (3, 2)) == (orientation < 5)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    assert size_of(path) == Size(*size, 3)


def test_a_header_is_refused_as_the_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, message = tmp_path / "a.png", READERS["folder"][2]
    for content in (written("EPS"), written("TGA"), b""):
        path.write_bytes(content)
        with refused(message, tmp_path, SUPPORTED):
            size_of(path)
    path.write_bytes(written())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with refused(message, tmp_path, "too many pixels"):
        size_of(path)


def test_a_file_that_cannot_be_opened_is_refused_with_the_reason_of_the_system(tmp_path: Path):
    for path, reason in ((tmp_path / "none.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
            decoded(path)


def test_of_sixteen_bits_the_upper_eight_are_kept():
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for options in ({}, {"transparency": 257}):
        image = decoded(written("PNG", deep, **options))
        assert np.array_equal(to_array(converted(image, 1))[0], deep >> 8)
        assert np.array_equal(to_array(converted(image, 3)), np.stack([deep >> 8] * 3))


@pytest.mark.parametrize("form", ["EPS", "PDF", "TGA"])
def test_other_formats_are_refused(form: str):
    with pytest.raises(UnknownFormatError, match=r"^not a PNG, JPEG, .* file$"):
        decoded(written(form))


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnreadableImageError, match="3 × 2 pixels, at most 5 are allowed"):
        decoded(written(), most=5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(UnreadableImageError, match=r"^too many pixels$"):
        decoded(written())


@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF"]))
def test_damaged_files_are_decoded_or_refused_and_nothing_else(data: st.DataObject, form: str):
    content = bytearray(written(form))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    try:
        image = decoded(bytes(content[:cut]), FORMATS, 10_000)
    except UnreadableImageError:
        return
    assert image.width * image.height <= 10_000
