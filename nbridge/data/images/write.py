"""Chooses output folders and file names for imputed images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

import numpy as np

from nbridge.common.messages import quoted
from nbridge.data.ids import check_stem
from nbridge.errors import DataError


@dataclass(frozen=True)
class Place:
    """Where the images of a modality are written.

    Arguments:
        folder: The folder, relative to the output folder.
        column: The table column of their paths, relative to that folder; empty if file names are identifiers.
    """

    folder: str
    column: str = ""


@dataclass(frozen=True, eq=False)
class NewImages:
    """The files of imputed images.

    Arguments:
        names: Paths relative to the modality's folder; the draws of a row are consecutive.
        starts: The index of each row's first file, (N,); undefined for rows without one.
        draws: The number of images per row.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    draws: int

    def of(self, row: int) -> Sequence[str]:
        """The files of a row, one per draw."""
        return self.names[self.starts[row] : self.starts[row] + self.draws]

    def numbers(self) -> np.ndarray:
        """The file index of each draw of each row, (K, N)."""
        return self.starts + np.arange(self.draws)[:, None]


def name_images(
    modality: str,
    rows: Sequence[int],
    stems: Sequence[str],
    of: int,
    taken: set[str],
    *,
    draws: int | None = None,
    beside: str | None = None,
) -> NewImages:
    """Chooses a file name for each imputed image.

    Arguments:
        modality: The modality.
        rows: The rows where it is absent.
        stems: The file stem of each of these rows.
        of: The total number of rows.
        taken: Existing files; chosen names are added.
        draws: The number K of draws; None for one image per row.
        beside: The folder of the files, if a column holds their paths and names are free.

    Raises:
        DataError: when a row's stem is not a valid file name, or its file exists.

    Example:
        >>> taken = {"imgs/4.png"}
        >>> name_images("scan", [1, 3], ["2", "4"], 5, taken, beside="imgs").names
        ('imgs/2.png', 'imgs/4_scan.png')
    """
    endings = [".png"] if draws is None else [f".{draw + 1}.png" for draw in range(draws)]
    starts = np.zeros(of, dtype=np.int64)
    starts[list(rows)] = np.arange(len(rows)) * len(endings)
    found: list[list[str]] = []
    for stem in stems:
        check_stem(stem, f"an image of {modality!r}")
        names = _names(stem, beside, endings)
        if clash := sorted(taken.intersection(names)):
            if beside is None:
                raise DataError(f"modality {modality!r}: {clash[0]} already exists, but row {quoted(stem)} needs its name; rename it")
            names = _free(f"{stem}_{modality}", beside, endings, taken)
        taken.update(names)
        found.append(names)
    return NewImages(tuple(chain.from_iterable(found)), starts, len(endings))


def _free(stem: str, beside: str, endings: Sequence[str], taken: Collection[str]) -> list[str]:
    number = 1
    while not set(taken).isdisjoint(names := _names(stem if number == 1 else f"{stem}_{number}", beside, endings)):
        number += 1
    return names


def _names(stem: str, beside: str | None, endings: Sequence[str]) -> list[str]:
    return [str(PurePosixPath(beside or "", stem + ending)) for ending in endings]
