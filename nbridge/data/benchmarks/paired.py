"""Clothing and digit images paired by class label: three modalities from two image collections."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nbridge.data.batch import Batch
from nbridge.data.benchmarks.mnist import FASHION_FILES, IMAGE, LABEL, MNIST_FILES, part_names, pixels, read_parts
from nbridge.data.schema_match import arrange, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import PARTS, Dataset
from nbridge.errors import DataError
from nbridge.spec.option_types import PositiveInt

_AVAILABLE = {"fashion": IMAGE, "mnist": IMAGE, "label": LABEL}
_KINDS = ("image", "label")


class MNISTFashion(DataSource):
    """Fashion-MNIST and MNIST paired by label, as ``fashion``, ``mnist`` and ``label``: the trimodal set of the paper's table 4.

    Each clothing image is paired with a random digit of its class, so that the label is all that the two images share. Training rows and
    official test rows are paired separately.

    Arguments:
        download: Whether to download files that are neither in $NBRIDGE_DATA nor in the cache, to the cache.
        pairing_seed: Seed of the pairing.
        rows: Number of training rows to use, from the first of Fashion-MNIST; all if None. It does not change their pairs.
    """

    def __init__(self, *, download: bool = True, pairing_seed: int = 0, rows: PositiveInt | None = None) -> None:
        self.download, self.pairing_seed, self.rows = download, pairing_seed, rows

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Loads the requested modalities, training rows first.

        Raises:
            DataError: when a modality is not one of the three, or files are missing or damaged.
        """
        check_fields("mnist_fashion", _AVAILABLE, shapes)
        fashion = read_parts(FASHION_FILES, _KINDS, download=self.download, rows=self.rows)
        mnist = read_parts(MNIST_FILES, _KINDS, download=self.download)
        generator = torch.Generator().manual_seed(self.pairing_seed)
        chosen = {part: pair(fashion[part]["label"], mnist[part]["label"], generator) for part in PARTS}
        values = {
            "fashion": pixels(np.concatenate([fashion[part]["image"] for part in PARTS])),
            "mnist": pixels(np.concatenate([mnist[part]["image"][chosen[part]] for part in PARTS])),
            "label": torch.from_numpy(np.concatenate([fashion[part]["label"] for part in PARTS])).long(),
        }
        return Dataset(Batch.complete(arrange(values, _AVAILABLE, shapes)), part=part_names(fashion))


def pair(tags: np.ndarray, pool: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Draws for each label a random pool row of the same label, each once before any is repeated.

    The result for the first labels does not depend on how many follow. Both ``tags``, :math:`(N,)`, and ``pool`` are class indices.

    Raises:
        DataError: when the pool lacks a label.
    """
    rows = np.empty(len(tags), dtype=np.int64)
    for tag in np.unique(np.concatenate([tags, pool])):
        alike, asking = np.flatnonzero(pool == tag), np.flatnonzero(tags == tag)
        if len(asking) and not len(alike):
            raise DataError(f"label: no row to pair with label {tag}")
        # Every label of the pool is shuffled, used or not, so that the pairs don't depend on the number of rows.
        order = alike[torch.randperm(len(alike), generator=generator).numpy()]
        rows[asking] = np.resize(order, len(asking))
    return rows
