"""PolyMNIST: several digits of one class, each on a different photograph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.benchmarks.download import cache_folder, locate, locate_folder
from nbridge.data.benchmarks.mnist import LABEL, MNIST_FILES, read_parts
from nbridge.data.benchmarks.paired import pair
from nbridge.data.endings import files_ending
from nbridge.data.images.decode import read_colours
from nbridge.data.numpy.archive import read_npz, write_npz
from nbridge.data.schema_match import Available, arrange, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import PARTS, Dataset
from nbridge.errors import DataError
from nbridge.spec.option_types import PositiveInt, Probability, Seed

FOLDER = "polymnist_backgrounds"
"""The default folder of background photographs."""
SIDE = 28
"""The side of a digit, and so of a view, in pixels."""
BRIGHT = 128
"""The grey level above which a pixel belongs to the digit."""

_VIEW = Available((3, SIDE, SIDE))
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_GET = "put a photograph of each view there (.jpg or .png)"
_WAY = 2
"""Version of the generation; to be increased with every change that alters the rows."""


class PolyMNIST(DataSource):
    """PolyMNIST: digits of one class on crops of photographs, one photograph per view, as ``view0``, ``view1``, ... and ``label``.

    A view is a random crop of its photograph, 28 x 28 pixels, with inverted colours where an MNIST digit is: above level 128. Each
    view of a row shows a random digit of its label, each used once before any is repeated. Colours are in [0, 1], in steps
    of 1/255. Training rows are built from MNIST's training rows, test rows, which are complete, from its official test part.

    The views correspond to m0, m1, ... of the original, whose photographs and random numbers differ. Photographs are not downloaded:
    the folder's ``.jpg`` and ``.png`` files, sorted by name, are the backgrounds of the views. Each needs at least 28 x 28 pixels.

    Rows are cached in the folder ``polymnist``, under a hash of everything they depend on: the options, the photographs and MNIST's files.
    Damaged files are regenerated; if the cache can't be written, rows are generated each time. A view of a row takes 2 KiB there and 9 KiB
    in memory: for all 70,000 rows of five views 0.8 GB and 3.3 GB.

    References:
        | Generalized Multimodal ELBO (Sutter et al., 2021)
        | https://arxiv.org/abs/2105.02470

    Arguments:
        path: The folder of photographs: absolute, or relative to the current folder, or else to $NBRIDGE_DATA; if None,
            polymnist_backgrounds in $NBRIDGE_DATA or in the cache.
        views: Number of views, at most one per photograph. The first views do not depend on it.
        rows: Number of training rows, from the first; all 60,000 if None.
        test_rows: Number of test rows, from the first; all 10,000 if None.
        missing: Fraction of views absent from training rows, at random; each row keeps at least one view, and its label.
        pairing_seed: Seed of all random draws: digits, crops and absence.
        download: Whether to download MNIST files that are neither in $NBRIDGE_DATA/mnist nor in the cache, to the cache.
    """

    def __init__(
        self, *, path: str | None = None, views: PositiveInt = 5, rows: PositiveInt | None = None, test_rows: PositiveInt | None = None,
        missing: Probability = 0.0, pairing_seed: Seed = 0, download: bool = True,
    ) -> None:  # fmt: skip
        self.path, self.views, self.rows, self.test_rows = path, views, rows, test_rows
        self.missing, self.pairing_seed, self.download = missing, pairing_seed, download

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Loads the requested modalities, training rows first, generating them unless cached.

        Absence is drawn among the requested views; values of absent views are 0.

        Raises:
            DataError: when a modality is not offered or can't take its shape, ``missing`` is too large, photographs are missing, too small
                or damaged, or MNIST's files are missing or damaged or have fewer rows.
        """
        views = [f"view{number}" for number in range(self.views)]
        available = {**dict.fromkeys(views, _VIEW), "label": LABEL}
        check_fields("polymnist", available, shapes)
        asked = [name for name in views if name in shapes]
        check_missing(self.missing, len(asked))
        arrays = self._arrays(views)
        part = np.array(PARTS)[arrays["part"]]
        train = torch.from_numpy(part == "train")
        present = torch.ones(len(part), len(asked), dtype=torch.bool)
        present[train] = draw_presence(int(train.sum()), len(asked), self.missing, _generator(self.pairing_seed, "presence"))
        masks = dict(zip(asked, present.T.contiguous(), strict=True))
        values = {name: _colours(arrays[name], mask) for name, mask in masks.items()}
        values["label"] = torch.from_numpy(arrays["label"]).long()
        masks["label"] = torch.ones(len(part), dtype=torch.bool)
        return Dataset(Batch(arrange(values, available, shapes), {name: masks[name] for name in shapes}), part=part)

    def _arrays(self, views: Sequence[str]) -> dict[str, np.ndarray]:
        """The views as bytes, :math:`(N, 3, 28, 28)`, with the label and the part index of each row, :math:`(N,)`."""
        photographs = find_photographs(locate_folder("polymnist", self.path, FOLDER, _GET), len(views))
        files = locate(MNIST_FILES, MNIST_FILES.md5, download=self.download)
        made_of = {
            "way": _WAY, "rows": [self.rows, self.test_rows], "pairing_seed": self.pairing_seed,
            "photographs": [_checksum(path) for path in photographs], "mnist": [_checksum(files[name]) for name in sorted(files)],
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        path = cache_folder() / "polymnist" / f"{key[:32]}.npz"
        if (kept := _read(path, {*views, "label", "part"})) is not None:
            return kept
        arrays = self._made(views, photographs)
        # Rows that can't be cached are still valid.
        with suppress(OSError, DataError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_npz(path, arrays)
        return arrays

    def _made(self, views: Sequence[str], photographs: Sequence[Path]) -> dict[str, np.ndarray]:
        digits = read_parts(MNIST_FILES, ("image", "label"), download=False)
        labels = {part: digits[part]["label"] for part in PARTS}
        rows = {"train": _count("rows", self.rows, labels["train"]), "test": _count("test_rows", self.test_rows, labels["test"])}
        arrays = {"label": np.concatenate([labels[part][: rows[part]] for part in PARTS])}
        arrays["part"] = np.repeat(np.arange(len(PARTS), dtype=np.uint8), [rows[part] for part in PARTS])
        for name, photograph in zip(views, photographs, strict=True):
            crops = read_crops(photograph)
            made = [
                draw_view(crops, digits[part]["image"], labels[part], rows[part], _generator(self.pairing_seed, name, part))
                for part in PARTS
            ]
            arrays[name] = np.concatenate(made)
        return arrays


def find_photographs(folder: Path, views: int) -> list[Path]:
    """The background photographs of the views, sorted by file name, without hidden files.

    Raises:
        DataError: when there are fewer photographs than views.
    """
    try:
        found = files_ending(folder, *_FORMATS)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{folder}: no photographs; {_GET}")
    if len(found) < views:
        raise DataError(f"{folder}: photographs for {len(found)} of {views} views; {_GET}, or set `views` to {len(found)} or fewer")
    return found[:views]


def read_crops(path: Path) -> np.ndarray:
    """All crops of a photograph as bytes, a view of its pixels, :math:`(H - 27, W - 27, 3, 28, 28)`.

    Raises:
        DataError: when it is damaged, not a photograph, or too small.
    """
    what = f"{path.parent}: {path.name}"
    colours = np.asarray(read_colours(path.read_bytes, what, tuple(sorted({*_FORMATS.values()}))))
    height, width, _ = colours.shape
    if min(height, width) < SIDE:
        raise DataError(f"{what} has {width} x {height} pixels, expected {SIDE} x {SIDE} or more")
    return np.lib.stride_tricks.sliding_window_view(colours, (SIDE, SIDE), axis=(0, 1))  # pyright: ignore[reportCallIssue, reportArgumentType]


def draw_view(crops: np.ndarray, images: np.ndarray, labels: np.ndarray, rows: int, generator: torch.Generator) -> np.ndarray:
    """One view of the first rows as bytes, :math:`(N, 3, 28, 28)`; rows do not depend on how many are generated.

    All crops of the view's photograph are :math:`(H - 27, W - 27, 3, 28, 28)`, digits, as bytes, :math:`(M, 28, 28)`, and their classes,
    which are also those of the rows, :math:`(M,)`.
    """
    chosen = pair(labels[:rows], labels, generator)
    # Drawn for all rows, so that rows don't depend on how many are generated.
    top, left = (torch.randint(places, (len(labels),), generator=generator)[:rows].numpy() for places in crops.shape[:2])
    # Inverts all bits: 255 minus the level.
    return crops[top, left] ^ np.where(images[chosen] > BRIGHT, np.uint8(255), np.uint8(0))[:, None]


def check_missing(missing: float, views: int) -> None:
    """Checks that the missing fraction leaves each row one view.

    Raises:
        DataError: when it doesn't.
    """
    if not 0 <= missing < 1:
        raise DataError(f"missing: {missing:g}, expected a fraction in [0, 1)")
    if views and missing > 1 - 1 / views:
        most = Fraction(views - 1, views)
        raise DataError(f"missing: {missing:g}, but each row keeps one of its {views} views; expected {most} or less")


def draw_presence(rows: int, views: int, missing: float, generator: torch.Generator) -> Tensor:
    r"""Draws which views are present, :math:`(N, V)`: one per row uniformly, each other with probability :math:`1 - s V / (V - 1)`.

    Each view is thus absent with probability s. Rows do not depend on how many are drawn, and a larger s
    only adds absences.

    Example:
        >>> draw_presence(10_000, 5, 0.8, torch.Generator().manual_seed(0)).sum(dim=1).unique()
        tensor([1])
    """
    draws = torch.rand(rows, views + 1, generator=generator, dtype=torch.float64)
    present = draws[:, :views] * (views - 1) >= missing * views
    stays = (draws[:, views] * views).long()
    return present | (torch.arange(views) == stays[:, None])


def _count(option: str, asked: int | None, labels: np.ndarray) -> int:
    """The number of rows of a part to generate."""
    if asked is not None and asked > len(labels):
        raise DataError(f"polymnist: {option}: {asked}, but MNIST has {len(labels)} of them")
    return len(labels) if asked is None else asked


def _colours(levels: np.ndarray, present: Tensor) -> Tensor:
    """Bytes scaled to [0, 1], 0 where a row is absent."""
    values = torch.from_numpy(levels).float()
    # In place: the array may be gigabytes.
    values.div_(255)[~present] = 0
    return values


def _read(path: Path, names: set[str]) -> dict[str, np.ndarray] | None:
    """Cached rows; None if there are none or they are damaged: archives have checksums, and their names a hash."""
    try:
        arrays = read_npz(path)
    except DataError:
        return None
    return arrays if arrays.keys() == names else None


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _generator(seed: int, *words: str) -> torch.Generator:
    """An independent generator per purpose, so that no stream depends on how much another draws."""
    digest = hashlib.sha256("/".join([str(seed), *words]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
