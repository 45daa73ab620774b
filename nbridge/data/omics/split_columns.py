"""Reads the columns of obs that define splits and groups."""

from __future__ import annotations

from functools import reduce

import numpy as np

from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.omics.classes import texts_of
from nbridge.data.omics.container import Omics, Part
from nbridge.data.split_labels import NoColumnError, RowLabels, label_texts
from nbridge.errors import DataError


def obs_labels(omics: Omics, column: str) -> RowLabels:
    """The values of a column of obs, one per observation.

    A bare name refers to a top-level column, or else to that column in all modalities that have it, whose values must agree. The column is
    ``COLUMN``, ``obs/COLUMN``, or ``MODALITY/obs/COLUMN``.

    Raises:
        NoColumnError: when there is no such column.
        DataError: when two modalities disagree about an observation.
    """
    name, parts = _found(omics, column)
    names = omics.whole.names
    what = f"obs column {clip(name)!r}"

    def where(row: int) -> str:
        return f"observation {clip(names[row])!r}"

    def agreed(one: list[str], other: list[str]) -> list[str]:
        if (row := next((row for row, (a, b) in enumerate(zip(one, other, strict=True)) if a and b and a != b), None)) is not None:
            text = (
                f"{where(row)} has {clip(one[row])!r} in one modality and {clip(other[row])!r} in another; name MODALITY/obs/{clip(name)}"
            )
            raise DataError(f"{omics.origin}: {what}: {text}")
        return [a or b for a, b in zip(one, other, strict=True)]

    return RowLabels(what, reduce(agreed, [_texts(omics, part, name) for part in parts]), where, omics.origin)


def _found(omics: Omics, column: str) -> tuple[str, list[Part]]:
    """The name of a column, and the parts that it is read from."""
    if column in omics.whole.obs.columns:
        return column, [omics.whole]
    if parts := [part for part in omics.parts.values() if column in part.obs.columns]:
        return column, parts
    head, slash, name = column.rpartition("obs/")
    part = omics.part(head.removesuffix("/")) if slash else None
    if part is not None and name in part.obs.columns:
        return name, [part]
    every = [str(one) for one in omics.whole.obs.columns]
    every += [f"{part.name}/obs/{one}" for part in omics.parts.values() for one in part.obs.columns]
    near = did_you_mean(column, [*every, *(one.rpartition("/")[2] for one in every)])
    raise NoColumnError(f"{omics.origin}: no column {clip(column)!r} in obs.{near} Found: {clip(listing(every), 400)}")


def _texts(omics: Omics, part: Part, column: str) -> list[str]:
    """The labels of all observations; empty where the part lacks one."""
    codes, texts = texts_of(part.obs[column])
    own = np.array([*label_texts(texts), ""], dtype=object)[codes]
    rows = omics.rows_of(part)
    return np.where(rows >= 0, own[rows], "").tolist()
