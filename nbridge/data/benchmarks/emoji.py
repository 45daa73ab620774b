"""Emoji: two drawings of each, its name and keywords as texts, and its category, read from a local file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.folders import find_file
from nbridge.data.numpy.archive import read_npz
from nbridge.data.schema_match import Available, arrange, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import Dataset
from nbridge.errors import DataError
from nbridge.spec.option_types import PositiveInt

_DRAWING = Available((3, 32, 32))
_ARRAYS = {"google": "image_google", "twitter": "image_twitter", "category": "category", "name": "name", "keywords": "keywords"}
_TEXTS = ("name", "keywords")
_SKIN_TONE = re.compile(r"-1F3F[B-F]")


class Emoji(DataSource):
    """3,486 emoji: drawings ``google`` and ``twitter`` of 32 x 32 colours in [0, 1], ``name`` and ``keywords`` as texts, and ``category``.

    An emoji and its variants of other skin tones are one group, which is never split. Texts need a likelihood of type text.

    References:
        | emoji-datasource (Cal Henderson): drawings of Google's Noto (Apache 2.0) and of Twitter's Twemoji (CC BY 4.0)
        | https://github.com/iamcal/emoji-data

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        rows: Number of emoji to use, evenly spaced in the file, whose order is that of their codes; all if None.
    """

    def __init__(self, *, path: str = "emoji/emoji32.npz", rows: PositiveInt | None = None) -> None:
        self.path, self.rows = path, rows

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Loads the requested modalities.

        Raises:
            DataError: when a modality is not one of the five, or can't take its shape, or the file is missing, damaged or has fewer rows.
        """
        available = self._available(shapes)
        check_fields("emoji", available, shapes)
        arrays = self._arrays()
        values = {name: self._values(name, arrays[_ARRAYS[name]]) for name in shapes}
        groups = np.array([_SKIN_TONE.sub("", code) for code in arrays["unified"].tolist()])
        return Dataset(Batch.complete(arrange(values, available, shapes)), ids=arrays["unified"], groups=groups)

    def texts_of(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        if name not in _TEXTS:
            return [*super().texts_of(name, shapes)]
        return self._arrays()[name].tolist()

    def class_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[str]]:
        return {"category": self._arrays()["category_names"].tolist()} if "category" in shapes else {}

    def _available(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Available]:
        texts = {name: Available(shapes.get(name, (1,))) for name in _TEXTS}
        return {"google": _DRAWING, "twitter": _DRAWING, "category": Available((9,), classes=True), **texts}

    def _arrays(self) -> dict[str, np.ndarray]:
        found = read_npz(path := find_file(self.path))
        if missing := [key for key in (*_ARRAYS.values(), "unified", "category_names") if key not in found]:
            raise DataError(f"{path}: no array {missing[0]!r}, expected the file of emoji")
        available = len(found["unified"])
        if self.rows is None:
            return found
        if self.rows > available:
            raise DataError(f"{path}: rows: {self.rows}, but there are {available} emoji")
        kept = np.arange(self.rows) * available // self.rows
        return found | {key: found[key][kept] for key in (*_ARRAYS.values(), "unified")}

    def _values(self, name: str, array: np.ndarray) -> Tensor:
        if name in _TEXTS:
            if name not in self.texts:
                raise DataError(f"modality {name!r}: emoji offers texts; use likelihood: text")
            return torch.from_numpy(self.texts[name].numbers(array.tolist(), f"modality {name!r}: row {{}}".format)).long()
        tensor = torch.from_numpy(array)
        return tensor.long() if name == "category" else tensor.permute(0, 3, 1, 2).float() / 255
