"""Selection of the rows that a score uses: those in which every required modality is present."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from nbridge.common.hashing import hash_tensor
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.models.base import MultimodalVAE


def rows_with(batch: Batch, names: Iterable[str]) -> Tensor:
    """Mask of the rows in which all of these modalities are present, boolean, shape (B,); all rows when no names are given."""
    mask = torch.ones(len(batch), dtype=torch.bool, device=batch.device)
    for name in names:
        mask = mask & batch.present[name] if name in batch.names else torch.zeros_like(mask)
    return mask


def fingerprint(batch: Batch, name: str) -> str:
    """Hash of a modality's values and presence, to recognise the same rows; empty when the batch lacks the modality."""
    digest = hashlib.sha256()
    for part in (batch.values, batch.present, batch.cells):
        if name in part:
            hash_tensor(digest, part[name])
    return digest.hexdigest() if name in batch.names else ""


def check_names(model: MultimodalVAE, names: Iterable[str]) -> None:
    """Checks that a model has these modalities.

    Raises:
        DataError: naming the first unknown one.
    """
    for name in names:
        if name not in model.names:
            raise DataError(
                f"no modality {clip(name)!r} in this model.{did_you_mean(name, model.names)} Modalities: {listing(model.names)}"
            )


def rows_with_all(model: MultimodalVAE, batch: Batch, names: Iterable[str]) -> Batch:
    """The rows in which all of these modalities are present.

    Raises:
        DataError: when a name is unknown, the batch has no row, or no row has all of these modalities.
    """
    names = tuple(dict.fromkeys(names))
    check_names(model, names)
    if not len(batch):
        raise DataError("no rows to evaluate")
    if not (mask := rows_with(batch, names)).any():
        if len(names) == 1:
            raise DataError(f"no row has {names[0]}")
        nowhere = [name for name in names if not rows_with(batch, [name]).any()]
        why = f": {listing(nowhere)} {'is' if len(nowhere) == 1 else 'are'} absent from every row" if nowhere else ""
        raise DataError(f"no row has {listing(names)} together{why}")
    return batch.index(mask)


def rows_to_score(model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str) -> Batch:
    """The rows in which the target and all given modalities are present, checked against the model.

    Raises:
        DataError: when the target is among the given, a value is outside its likelihood's support, or there is no such row.
    """
    given = tuple(given)
    if target in given:
        raise DataError(f"modality {target!r} is both target and given")
    rows = rows_with_all(model, batch, (*given, target))
    model.check(batch)
    return rows
