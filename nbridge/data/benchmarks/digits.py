"""The handwritten digits bundled with scikit-learn; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nbridge.data.batch import Batch
from nbridge.data.schema_match import Available, arrange, check_fields
from nbridge.data.source import DataSource
from nbridge.data.split import Dataset

_AVAILABLE = {
    "image": Available((1, 8, 8)),
    "top": Available((1, 4, 8)),
    "bottom": Available((1, 4, 8)),
    "label": Available((10,), classes=True),
}


class Digits(DataSource):
    """1,797 digits of 8 x 8 pixels with 17 grey levels: ``image``, its halves ``top`` and ``bottom``, and ``label``.

    Pixels are in [0, 1], labels are class indices. There is no official test part.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998)
        | https://archive.ics.uci.edu/dataset/80

    Arguments:
        binarize: Whether pixels are 1 above 7 of 16, and 0 elsewhere.
    """

    def __init__(self, *, binarize: bool = False) -> None:
        self.binarize = binarize

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Loads the requested modalities, in any shape of the same size.

        Raises:
            DataError: when a modality is not one of the four, or can't take its shape.
        """
        check_fields("digits", _AVAILABLE, shapes)
        from sklearn.datasets import load_digits

        rows, classes = map(np.asarray, load_digits(return_X_y=True))
        levels = torch.from_numpy(rows).reshape(-1, 1, 8, 8)
        image = (levels > 7).float() if self.binarize else (levels / 16).float()
        label = torch.from_numpy(classes.astype(np.int64))
        values = {"image": image, "top": image[:, :, :4], "bottom": image[:, :, 4:], "label": label}
        return Dataset(Batch.complete(arrange(values, _AVAILABLE, shapes)))
