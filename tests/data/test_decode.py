"""Images from anywhere are decoded by one function: known formats alone, upright, within bounds, and each mistake in a line."""

from __future__ import annotations

import io
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbridge.data.images.decode import FORMATS, UnreadableImageError, decoded
from nbridge.data.tables.hub_frames import HubFrame
from nbridge.errors import DataError

TURNED = 6
"""EXIF: turn by a quarter, clockwise."""
PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 12


def written(form: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, form, **options)
    return content.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return written(exif=exif)


def test_an_image_is_upright_whoever_opens_it():
    expected = np.rot90(PIXELS, -1)
    assert np.array_equal(np.asarray(decoded(turned())), expected)
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": turned(), "path": None}]}, features=datasets.Features({"image": datasets.Image()})
    )
    found = np.array(HubFrame(table).arrow("image").to_pylist()[0])
    assert np.array_equal(found, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("form", ["EPS", "PDF", "TGA"])
def test_other_formats_are_refused_though_pillow_knows_them(form: str):
    with pytest.raises(UnreadableImageError, match=r"^not a PNG, JPEG, .* file$"):
        decoded(written(form))
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": written(form), "path": None}]}, features=datasets.Features({"image": datasets.Image()})
    )
    with pytest.raises(DataError, match=r"^column 'image': the image in row 0 can't be read \(not a PNG, JPEG, .* file\)$"):
        HubFrame(table).arrow("image")


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
