"""Reads files in MNIST's idx format, and the two sources published in it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.benchmarks.download import Collection, locate
from nbridge.data.schema_match import Available, arrange, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import PARTS, Dataset
from nbridge.errors import DataError
from nbridge.spec.option_types import PositiveInt

MNIST_FILES = Collection(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_FILES = Collection(
    "fashion_mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)

IMAGE, LABEL = Available((1, 28, 28)), Available((10,), classes=True)
_AVAILABLE = {"image": IMAGE, "label": LABEL}
TEXT_WIDTH = 8
"""Characters of a line of text: the longest name has five."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The names of the digits."""
_FILES = {
    ("train", "image"): "train-images-idx3-ubyte.gz",
    ("train", "label"): "train-labels-idx1-ubyte.gz",
    ("test", "image"): "t10k-images-idx3-ubyte.gz",
    ("test", "label"): "t10k-labels-idx1-ubyte.gz",
}
_BYTES = b"\x00\x00\x08"
"""The first bytes of an idx file of unsigned bytes; the number of axes follows."""


class _Images(DataSource):
    """Images of 28 x 28 grey levels in ten classes, with an official test part; subclasses document the options."""

    files: ClassVar[Collection]
    available: ClassVar[Mapping[str, Available]] = _AVAILABLE

    def __init__(self, *, download: bool = True, binarize: bool = False, rows: PositiveInt | None = None) -> None:
        self.download, self.binarize, self.rows = download, binarize, rows

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Loads the requested modalities, training rows first.

        Raises:
            DataError: when a modality is neither of the two, or files are missing or damaged.
        """
        check_fields(self.files.name, self.available, shapes)
        parts = self._parts(shapes)
        joined = {kind: np.concatenate([parts[part][kind] for part in PARTS]) for kind in parts["train"]}
        values = {kind: self._values(kind, joined, shape) for kind, shape in shapes.items()}
        return Dataset(Batch.complete(arrange(values, self.available, shapes)), part=part_names(parts))

    def _parts(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, np.ndarray]]:
        return read_parts(self.files, tuple(shapes), download=self.download, rows=self.rows)

    def _values(self, kind: str, joined: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002 (for texts)
        return pixels(joined[kind], binarize=self.binarize) if kind == "image" else torch.from_numpy(joined[kind]).long()


class MNIST(_Images):
    """70,000 handwritten digits of 28 x 28 grey levels, as ``image`` in [0, 1] and ``label``; the last 10,000 are the official test part.

    A third modality is the ``text`` of MNIST-SVHN-Text: the name of the digit at a random place in a line of eight characters, for a
    likelihood of type text and a shape of 9 or more.

    References:
        | Generalized Multimodal ELBO (Sutter et al., 2021), https://arxiv.org/abs/2105.02470
        | Gradient-based learning applied to document recognition (LeCun et al., 1998)
        | http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf

    Arguments:
        download: Whether to download files that are neither in $NBRIDGE_DATA/mnist nor in the cache, to the cache.
        binarize: Whether pixels are 1 above 127 of 255, and 0 elsewhere.
        rows: Number of training rows to use, from the first; all if None. The test part is unaffected.
    """

    files = MNIST_FILES
    available: ClassVar[Mapping[str, Available]] = {**_AVAILABLE, "text": Available((TEXT_WIDTH + 1,))}

    def texts_of(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        if name != "text":
            return [*super().texts_of(name, shapes)]
        labels = self._parts({"label": LABEL.shape})
        return [text for part in PARTS for text in spelt_out(labels[part]["label"], part)]

    def _parts(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, np.ndarray]]:
        parts = super()._parts(
            {**{name: shape for name, shape in shapes.items() if name != "text"}, **({"label": ()} if "text" in shapes else {})}
        )
        if "text" not in shapes:
            return parts
        return {part: {**arrays, "text": np.array(spelt_out(arrays["label"], part))} for part, arrays in parts.items()}

    def _values(self, kind: str, joined: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Tensor:
        if kind != "text":
            return super()._values(kind, joined, shape)
        if kind not in self.texts:
            raise DataError(f"modality 'text': {self.files.name} offers texts; use likelihood: text")
        return torch.from_numpy(self.texts[kind].numbers(joined[kind].tolist(), "modality 'text': row {}".format)).long()


class FashionMNIST(_Images):
    """70,000 images of clothing of 28 x 28 grey levels, as ``image`` in [0, 1] and ``label``; the last 10,000 are the official test part.

    References:
        | Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et al., 2017)
        | https://arxiv.org/abs/1708.07747

    Arguments:
        download: Whether to download files that are neither in $NBRIDGE_DATA/fashion_mnist nor in the cache, to the cache.
        binarize: Whether pixels are 1 above 127 of 255, and 0 elsewhere.
        rows: Number of training rows to use, from the first; all if None. The test part is unaffected.
    """

    files = FASHION_FILES


def spelt_out(labels: np.ndarray, part: str) -> list[str]:
    """The name of each digit at a random place in a line of blanks, which depends on the row and the part only.

    Example:
        >>> spelt_out(np.array([4, 1]), "train")
        ['   four ', ' one    ']
    """
    places = np.random.default_rng(PARTS.index(part)).random(len(labels))
    names = [NAMES[label] for label in labels.tolist()]
    starts = [int(place * (TEXT_WIDTH + 1 - len(name))) for place, name in zip(places.tolist(), names, strict=True)]
    return [(" " * start + name).ljust(TEXT_WIDTH) for start, name in zip(starts, names, strict=True)]


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes.

    Format: two zero bytes, the dtype (8: unsigned bytes), the number of axes, their lengths (32 bits, big-endian), the values.

    Raises:
        DataError: when the file is truncated, damaged, or in another format.
    """
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read()
    except EOFError as error:
        raise DataError(f"{path}: truncated gzip file; fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file, or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if raw[:3] != _BYTES:
        raise DataError(f"{path}: begins with 0x{raw[:4].hex()}, expected 0x000008 and the number of axes, as an idx file of bytes does")
    axes = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * axes
    if axes == 0 or len(raw) < start:
        raise DataError(f"{path}: truncated idx header")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if len(raw) - start != prod(shape):
        raise DataError(f"{path}: {len(raw) - start} values, but the header says {prod(shape)}, shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_parts(files: Collection, kinds: Sequence[str], *, download: bool, rows: int | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Pixels, :math:`(N, 28, 28)`, and labels, :math:`(N,)`, as bytes, by part (train, test) and kind (image, label).

    Files are MNIST's, or others with the same layout; the first ``rows`` training rows are kept.

    Raises:
        DataError: when files are missing, damaged, malformed, or have fewer training rows.
    """
    paths = locate(files, [_FILES[part, kind] for part in PARTS for kind in kinds], download=download)
    parts = {part: {kind: _read(paths[_FILES[part, kind]], kind) for kind in kinds} for part in PARTS}
    for part, arrays in parts.items():
        if len(counts := {kind: len(array) for kind, array in arrays.items()}) > 1 and len(set(counts.values())) > 1:
            raise DataError(f"{files.name}: {counts['image']} images, but {counts['label']} labels in the {part} files")
    if rows is not None:
        available = len(next(iter(parts["train"].values())))
        if rows > available:
            raise DataError(f"{files.name}: rows: {rows}, but there are {available} training rows")
        parts["train"] = {kind: array[:rows] for kind, array in parts["train"].items()}
    return parts


def pixels(levels: np.ndarray, *, binarize: bool = False) -> Tensor:
    """Grey levels from 0 to 255 scaled to [0, 1], :math:`(N, 1, 28, 28)`."""
    tensor = torch.from_numpy(levels).unsqueeze(1)
    return (tensor > 127).float() if binarize else tensor.float().div_(255)


def _read(path: Path, kind: str) -> np.ndarray:
    array = read_idx(path)
    if kind == "image" and array.shape[1:] != (28, 28):
        raise DataError(f"{path}: shape {array.shape}, expected (rows, 28, 28)")
    if kind == "label":
        if array.ndim != 1:
            raise DataError(f"{path}: shape {array.shape}, expected (rows,)")
        if (bad := np.flatnonzero(array > 9)).size:
            raise DataError(f"{path}: row {bad[0]} holds {array[bad[0]]}, expected a class index from 0 to 9")
    return array


def part_names(parts: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """The part of each row, for rows ordered by part."""
    return np.repeat(PARTS, [len(next(iter(parts[part].values()))) for part in PARTS])
