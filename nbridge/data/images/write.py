"""Where images are written, and which file each of them becomes that was imputed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

import numpy as np

from nbridge.common.messages import quoted
from nbridge.errors import DataError

_LONGEST = 200
"""Bytes of the name of a file, for which systems have 255."""


@dataclass(frozen=True)
class Place:
    """Where the images of a modality are written.

    Arguments:
        folder: The folder, relative to the one that all is written to.
        column: The column of a table that holds their paths, relative to that folder; empty where their names are identifiers.
    """

    folder: str
    column: str = ""


@dataclass(frozen=True, eq=False)
class NewImages:
    """The files of images that are imputed.

    Arguments:
        names: Their paths, relative to the folder of their modality: those of the draws of a row side by side.
        starts: The number of the first of each row, (N,); those of other rows mean nothing.
        draws: The number of images of a row.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    draws: int

    def of(self, row: int) -> Sequence[str]:
        """The files of a row, one for each draw."""
        return self.names[self.starts[row] : self.starts[row] + self.draws]

    def numbers(self) -> np.ndarray:
        """The number of the file of each draw of each row, (K, N)."""
        return self.starts + np.arange(self.draws)[:, None]


def name_images(
    modality: str,
    rows: Sequence[int],
    stems: Sequence[str],
    of: int,
    taken: set[str],
    *,
    samples: int | None = None,
    beside: str | None = None,
) -> NewImages:
    """Finds a file for each image that is imputed.

    Arguments:
        modality: The modality.
        rows: The rows from which it is absent.
        stems: What each of these is called.
        of: The number of all rows.
        taken: Files that are there; those that are found join them.
        samples: The number K of draws; None for one image of each row.
        beside: The folder of the file, where a column holds its path, so that it may bear any name.

    Raises:
        DataError: when a row is called what no file can be called, or its file is there.

    Example:
        >>> taken = {"imgs/4.png"}
        >>> name_images("scan", [1, 3], ["2", "4"], 5, taken, beside="imgs").names
        ('imgs/2.png', 'imgs/4_scan.png')
    """
    endings = [".png"] if samples is None else [f".{draw + 1}.png" for draw in range(samples)]
    starts = np.zeros(of, dtype=np.int64)
    starts[list(rows)] = np.arange(len(rows)) * len(endings)
    found: list[list[str]] = []
    for stem in stems:
        _check_stem(stem, modality)
        names = _names(stem, beside, endings)
        if clash := sorted(taken.intersection(names)):
            if beside is None:
                raise DataError(
                    f"modality {modality!r}: {clash[0]} is there, and would be an image of row {quoted(stem)} as well; rename it"
                )
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


def _check_stem(stem: str, name: str) -> None:
    if not stem or stem.startswith(".") or any(character in stem for character in "/\\\0") or len(stem.encode()) > _LONGEST:
        raise DataError(f"row {quoted(stem)}: not the name of a file, so that no image of {name!r} can be written for it; rename the row")
