"""CelebA: face photographs with binary attributes, read from a local folder."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nbridge.data.batch import Batch
from nbridge.data.benchmarks.celeba_tables import Attributes, read_attributes, read_identities, read_partition
from nbridge.data.benchmarks.download import locate_folder
from nbridge.data.endings import files_ending, has_ending
from nbridge.data.images.decode import DAMAGED, read_colours, to_array
from nbridge.data.schema_match import Available, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import Dataset
from nbridge.errors import DataError
from nbridge.spec.option_types import PositiveInt, Share

PAPER_ATTRIBUTES = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses", "Gray_Hair", "Heavy_Makeup", "Male",
    "Mouth_Slightly_Open", "Mustache", "Pale_Skin", "Receding_Hairline", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Hat",
)  # fmt: skip
"""The 18 attributes of Yadav et al. (2020), the visually distinctive ones."""

FOLDER = "celeba10k"
"""The default folder."""
_TABLE, _PARTITION, _IDENTITIES, _IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt", "img_align_celeba"
_PARTS = np.array(["train", "validation", "test"])
_GET = (
    "CelebA may not be redistributed: get it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put "
    f"{_IMAGES}.zip and {_TABLE} there"
)


class CelebA(DataSource):
    """Aligned and cropped CelebA faces, as ``image`` in [0, 1] and ``attributes`` of 0 and 1.

    The folder holds ``img_align_celeba/NNNNNN.jpg`` or ``img_align_celeba*.zip``, and ``list_attr_celeba.txt``. The licence permits neither
    redistribution nor commercial use. Rows are split by ``list_eval_partition.txt`` where it has more than one part, else
    by the identities of ``identity_CelebA.txt``, so that no person is in two parts, else at random.

    Each photograph is cropped to its centre square and resized to the shape of ``image`` in the spec with Pillow's bicubic filter. The
    square is slightly larger than usual shapes, a ratio at which a box filter merges pixels unevenly, a triangle filter blurs, and
    Lanczos rings at edges. Values are multiples of 1/255.

    A row of 64 x 64 pixels takes 48 KiB: 0.5 GB for 10,000 images, 10 GB for all 202,599, and four times as much while training starts.

    References:
        | Deep Learning Face Attributes in the Wild (Liu et al., 2015)
        | https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html

    Arguments:
        path: The folder: absolute, or relative to the current folder, or else to $NBRIDGE_DATA; if None, celeba10k in $NBRIDGE_DATA or in
            the cache.
        attributes: Which attributes: the paper's 18, all 40, or a list, in order.
        rows: Number of images to use, from the first; all if None.
        crop: Side of the cropped square, as a fraction of the photograph's shorter side; 148 of 178 pixels is usual.
    """

    def __init__(
        self, *, path: str | None = None, attributes: Literal["paper", "all"] | tuple[str, ...] = "paper", rows: PositiveInt | None = None,
        crop: Share = 0.8315,
    ) -> None:  # fmt: skip
        self.path, self.attributes, self.rows, self.crop = path, attributes, rows, crop

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Reads the requested modalities; photographs are read only for ``image``.

        Raises:
            DataError: when a modality is neither of the two or can't take its shape, or files are missing or damaged.
        """
        check_fields("celeba", {name: Available(shapes.get(name, ())) for name in ("image", "attributes")}, shapes)
        size = _side(shapes["image"]) if "image" in shapes else 0
        folder = locate_folder("celeba", self.path, FOLDER, _GET)
        table = _table(folder)
        images = table.images[: self.rows]
        if self.rows is not None and self.rows > len(images):
            raise DataError(f"celeba: rows: {self.rows}, but there are {len(images)} images")
        values: dict[str, torch.Tensor] = {}
        if "attributes" in shapes:
            chosen = self._chosen(table, shapes["attributes"])[: len(images)]
            values["attributes"] = torch.from_numpy(chosen).float().reshape(-1, *shapes["attributes"])
        identities = folder / _IDENTITIES
        part, groups = _parts(folder, images), read_identities(identities, images) if identities.is_file() else None
        # Last, because it is the slowest.
        if "image" in shapes:
            values["image"] = torch.from_numpy(read_images(folder, table, images, size, self.crop))
        batch = Batch.complete({name: values[name] for name in shapes})
        return Dataset(batch, np.array(images), part, str(folder), groups)

    def _chosen(self, table: Attributes, shape: tuple[int, ...]) -> np.ndarray:
        """The requested attributes, after checking that they match the shape."""
        names = {"paper": PAPER_ATTRIBUTES, "all": table.names}[self.attributes] if isinstance(self.attributes, str) else self.attributes
        chosen = table.columns(names)
        if prod(shape) != len(names):
            said = f"'{self.attributes}'" if isinstance(self.attributes, str) else "your list"
            raise DataError(
                f"modality 'attributes': shape {shape}, but data.attributes, {said}, names {len(names)}; "
                f"write shape: {len(names)}, or name others (paper, all, or a list)"
            )
        return chosen


def read_images(folder: Path, table: Attributes, images: Sequence[str], size: int, crop: float) -> np.ndarray:
    """Photographs cropped to squares of this size, :math:`(N, 3, S, S)`, in [0, 1].

    The folder is the parent of the photograph folder or zip file; ``crop`` is the side of the centre square, as a fraction of the shorter
    side.

    Raises:
        DataError: when photographs are missing, not in the table, or damaged.
    """
    with _opened(folder) as store:
        if missing := [image for image in images if image not in store.members]:
            raise DataError(
                f"{store.path}: {len(missing)} of {len(images)} images are missing, the first is {missing[0]}; "
                "fetch them again, or set `rows` to use the first ones only"
            )
        if spare := sorted(store.members.keys() - set(table.images)):
            raise DataError(
                f"{store.path}: {len(spare)} images have no row in {table.path.name}, the first is {spare[0]}; fetch that again"
            )
        pixels = np.empty((len(images), 3, size, size), np.float32)
        for row, image in enumerate(images):
            pixels[row] = read_square(store, image, size, crop)
    # In place: the array may be gigabytes.
    pixels /= 255
    return pixels


@dataclass(frozen=True)
class Store:
    """A container of photographs."""

    path: Path
    members: Mapping[str, str]
    read: Callable[[str], bytes]


@contextmanager
def _opened(folder: Path) -> Iterator[Store]:
    """Finds the photographs of a folder, by file name."""
    if (plain := folder / _IMAGES).is_dir():
        yield Store(plain, _photographs(path.name for path in plain.iterdir()), lambda name: (plain / name).read_bytes())
        return
    archives = [path for path in files_ending(folder, ".zip") if path.name.startswith(_IMAGES)]
    if not archives:
        raise DataError(f"{folder}: neither a folder {_IMAGES} nor a file {_IMAGES}*.zip; {_GET}")
    if len(archives) > 1:
        raise DataError(f"{folder}: {archives[0].name} and {archives[1].name}, expected one archive; move the other elsewhere")
    try:
        archive = zipfile.ZipFile(archives[0])
    except DAMAGED as error:
        raise DataError(f"{archives[0]}: not a zip file, or damaged ({error}); fetch it again") from error
    with archive:
        yield Store(archives[0], _photographs(archive.namelist()), archive.read)


def _photographs(paths: Iterator[str] | Sequence[str]) -> dict[str, str]:
    """Paths of JPEG files by file name, without the hidden files that some systems add."""
    files = {path.rpartition("/")[2]: path for path in paths}
    return {name: path for name, path in files.items() if has_ending(name, ".jpg") and not name.startswith(".")}


def read_square(store: Store, image: str, size: int, crop: float) -> np.ndarray:
    """The centre square of a photograph as bytes, :math:`(3, S, S)`. Its side is ``crop`` times the shorter side.

    Raises:
        DataError: when it is damaged, or not a JPEG image.
    """
    from PIL import Image

    colours = read_colours(lambda: store.read(store.members[image]), f"{store.path}: {image}")
    side = max(1, round(crop * min(colours.size)))
    left, top = ((edge - side) / 2 for edge in colours.size)
    return to_array(colours.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))


def _side(shape: tuple[int, ...]) -> int:
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise DataError(f"modality 'image': celeba offers colour squares of any size, shape (3, S, S), which can't take the shape {shape}")
    return shape[1]


def _table(folder: Path) -> Attributes:
    if not (folder / _TABLE).is_file():
        raise DataError(f"{folder}: no {_TABLE}; {_GET}")
    return read_attributes(folder / _TABLE)


def _parts(folder: Path, images: Sequence[str]) -> np.ndarray | None:
    """The official part of each image, if there is more than one."""
    if not (folder / _PARTITION).is_file():
        return None
    numbers = read_partition(folder / _PARTITION, images)
    return _PARTS[numbers] if len(set(numbers.tolist())) > 1 else None
