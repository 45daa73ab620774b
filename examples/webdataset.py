"""Draft, training and imputation of a format that nbridge does not know: WebDataset tars, by the plug-in of webdataset_source.py.

Digits whose bottom half or label is missing in some samples are written to a tar, from which a spec is drafted, a model trained, and the
missing halves and labels imputed into another tar.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from webdataset_source import WebDataset, add

import nbridge


def write_tar(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as samples; rows of NaN are left out."""
    with tarfile.open(path, "w") as tar:
        for row in range(len(next(iter(rows.values())))):
            for name, array in rows.items():
                if not np.isnan(array[row]).all():
                    add(tar, f"{row:05}.{name}.npy", array[row])


def main(updates: int = 400) -> None:
    from sklearn.datasets import load_digits

    pixels, classes = map(np.asarray, load_digits(return_X_y=True))
    images = pixels.reshape(-1, 1, 8, 8) / 16
    rows = {"top": images[:, :, :4], "bottom": images[:, :, 4:], "label": classes.astype(float)}
    rows["label"][1200:], rows["bottom"][:300] = np.nan, np.nan
    with tempfile.TemporaryDirectory() as folder:
        write_tar(path := Path(folder, "digits.tar"), rows)
        run = nbridge.train({**nbridge.init(path, source=WebDataset).spec.as_dict(), "training": {"updates": updates}})
        done = run.model.impute(path, out=Path(folder, "completed.tar"))
        with WebDataset(path=str(done.files[0])).opened() as samples:
            right = np.mean(samples.array("label", 1200) == classes[1200:])
    print(f"imputed {dict(done.imputed)}; {right:.0%} of the imputed labels are right")


if __name__ == "__main__":
    main()
