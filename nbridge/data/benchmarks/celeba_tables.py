"""Parsers for CelebA's published tables: whitespace-separated columns, one image per line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbridge.common.messages import did_you_mean, listing, quoted
from nbridge.errors import DataError


@dataclass(frozen=True)
class Attributes:
    """Attributes of images; ``values`` are whether image n has attribute a, :math:`(N, A)`."""

    path: Path
    images: list[str]
    names: list[str]
    values: np.ndarray

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """The values of these attributes, :math:`(N, len(names))`.

        Raises:
            DataError: when one is unknown or repeated.
        """
        for place, name in enumerate(names):
            if name not in self.names:
                found = f"{did_you_mean(name, self.names)} Found: {listing(self.names)}"
                raise DataError(f"attributes: {self.path} has no {quoted(name)}.{found}")
            if name in names[:place]:
                raise DataError(f"attributes: duplicate {quoted(name)}")
        return self.values[:, [self.names.index(name) for name in names]]


def read_attributes(path: Path) -> Attributes:
    """Reads an attribute table: the number of images, the attribute names, then one line per image with -1 or 1 for each attribute.

    Raises:
        DataError: for the first malformed line.
    """
    first, second, *lines = [*_lines(path), "", ""]
    lines = lines[:-2]
    if not first.strip().isdecimal():
        raise DataError(f"{path}: line 1: {quoted(first)}, expected the number of images")
    if int(first) != len(lines) or not lines:
        raise DataError(f"{path}: line 1 says {int(first)} images, but {len(lines)} rows follow the names; fetch it again")
    names, rows = second.split(), [line.split() for line in lines]
    for number, row in enumerate(rows, start=3):
        if len(row) != 1 + len(names):
            raise DataError(f"{path}: line {number}: {len(row)} columns, expected an image and {len(names)} attributes")
    values = np.array([row[1:] for row in rows])
    if len(bad := np.argwhere((values != "1") & (values != "-1"))):
        row, column = bad[0]
        raise DataError(f"{path}: line {row + 3}: {names[column]} is {quoted(rows[row][1 + column])}, expected -1 or 1")
    return Attributes(path, list(_numbered(path, [row[0] for row in rows], start=3)), names, values == "1")


def read_identities(path: Path, images: Sequence[str]) -> np.ndarray:
    """The identity of each image, as a number, :math:`(N,)`.

    Raises:
        DataError: when a line is malformed, or an image has no identity.
    """
    return _read_numbers(path, images, r"\d{1,18}", "an image and an identity number")


def read_partition(path: Path, images: Sequence[str]) -> np.ndarray:
    """The official part of each image, :math:`(N,)`: 0 for training, 1 for validation, 2 for test.

    Raises:
        DataError: when a line is malformed, or an image has no part.
    """
    return _read_numbers(path, images, "[012]", "an image and 0, 1 or 2 (train, validation, test)")


def _read_numbers(path: Path, images: Sequence[str], pattern: str, expected: str) -> np.ndarray:
    """One number per image, from a file of two columns that may list other images too."""
    lines = _lines(path)
    rows = [line.split() for line in lines]
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=1):
        if len(row) != 2 or not re.fullmatch(pattern, row[1], re.ASCII):
            raise DataError(f"{path}: line {number}: {quoted(line)}, expected {expected}")
    places = _numbered(path, [row[0] for row in rows], start=1)
    if missing := [image for image in images if image not in places]:
        raise DataError(f"{path}: {len(missing)} of {len(images)} images have no row, the first is {missing[0]}; fetch it again")
    return np.array([int(rows[places[image] - 1][1]) for image in images])


def _numbered(path: Path, images: Sequence[str], start: int) -> dict[str, int]:
    """The line of each image, after checking that images are unique."""
    places: dict[str, int] = {}
    for number, image in enumerate(images, start):
        if places.setdefault(image, number) != number:
            raise DataError(f"{path}: line {number}: duplicate image {quoted(image)}, also in line {places[image]}")
    return places


def _lines(path: Path) -> list[str]:
    """The lines of a text file, without trailing blank lines."""
    try:
        return path.read_text("utf-8", "replace").rstrip().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
