"""Values as the page sends them, as a batch of one row; and a row as the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nbridge.common.messages import clip
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.rows import check_names
from nbridge.explore.controls import canonical_shape
from nbridge.explore.requests import Given
from nbridge.explore.session import Session
from nbridge.explore.uploads import read_pixels
from nbridge.inference.impute import which_observed
from nbridge.models.support import describe_support
from nbridge.nn.likelihoods import Likelihood
from nbridge.visual.modality_kinds import kind_of
from nbridge.visual.png import address, scaled, shrunk

SIDE = 256
"""Pixels of the longer side of a picture on the page, at most."""


def batch_of(session: Session, given: Mapping[str, Given]) -> Batch:
    """The row that is given.

    Raises:
        DataError: when nothing is given, the model lacks a modality, or a value does not fit it.
    """
    check_names(session.model, given)
    if not given:
        raise DataError("nothing is given: give a modality or more, or draw from the prior")
    parts = [_one(session, name, value) for name, value in given.items()]
    return Batch(*({name: x for part in parts for name, x in getattr(part, what).items()} for what in ("values", "present", "cells")))


def row_of(session: Session, number: int) -> dict[str, Any]:
    """A row of the run: its values by modality, null where a modality is absent.

    Raises:
        DataError: when there is no such row.
    """
    row = session.model.prepare(session.row(number))
    found = {"row": number, "values": {name: _shown(session, name, row) if row.present[name] else None for name in row.names}}
    return found if session.ids is None else {**found, "id": clip(session.ids[number], 60)}


def picture(session: Session, name: str, image: Tensor) -> str:
    """An image of a modality, shape (C, H, W), as an address."""
    return address(shrunk(scaled(image, *session.brightness(name)), SIDE))


def _one(session: Session, name: str, given: Given) -> Batch:
    likelihood = session.model.likelihoods[name]
    if given.row is not None:
        return _of_row(session, name, given.row)
    wanted = {"image": "picture", "classes": "label"}.get(kind_of(likelihood), "values")
    if given.kinds != (wanted,):
        raise DataError(f"{name}: expected {wanted} or row, got {', '.join(given.kinds)}")
    if given.picture is not None:
        return _checked(name, likelihood, _of_picture(session, name, likelihood, given.picture))
    if given.values is not None:
        return _of_values(name, likelihood, given.values)
    return _checked(name, likelihood, torch.tensor([_small(name, given.label)]))


def _of_row(session: Session, name: str, number: int) -> Batch:
    row = session.row(number)
    if name not in row.names or not row.present[name]:
        raise DataError(f"{name}: absent from row {number}")
    return row.select(name)


def _of_picture(session: Session, name: str, likelihood: Likelihood, address: str) -> Tensor:
    """An image whose dark and bright pixels are the ends of the range, in canonical form, (1, C, H, W)."""
    low, high = session.brightness(name)
    x = low + (high - low) * torch.from_numpy(read_pixels(name, address, likelihood.shape).copy()).double() / 255
    return likelihood.canonical(likelihood.point(x) if likelihood.support.is_discrete else x)[None]


def _of_values(name: str, likelihood: Likelihood, values: list[float | None]) -> Batch:
    shape = canonical_shape(likelihood)
    if len(values) != math.prod(shape):
        raise DataError(f"{name}: {len(values)} values, expected {math.prod(shape)}")
    cells = torch.tensor([value is not None for value in values]).reshape(1, *shape)
    if not cells.any():
        raise DataError(f"{name}: no value is given; leave the modality out")
    if not cells.all() and not likelihood.elementwise:
        raise DataError(f"{name}: given in part, expected all values or none")
    blank = likelihood.blank(1).flatten().tolist()
    x = torch.tensor([other if value is None else value for value, other in zip(values, blank, strict=True)], dtype=torch.float64)
    return _checked(name, likelihood, x.reshape(1, *shape), None if cells.all() else cells)


def _checked(name: str, likelihood: Likelihood, x: Tensor, cells: Tensor | None = None) -> Batch:
    """One row of a modality whose values have a density."""
    canonical = likelihood.canonical(x)
    # What is finite in JSON may be too large for the model's own numbers.
    wrong = ~(likelihood.support.check(x) & canonical.isfinite())
    if wrong.any():
        value = x[wrong][0].item()
        raise DataError(
            f"{name}: value {value:g} is outside the support of {type(likelihood).__name__}, {describe_support(likelihood.support)}"
        )
    return Batch({name: canonical}, {name: torch.tensor([True])}, {} if cells is None else {name: cells})


def _small(name: str, label: int | None) -> int:
    """A class number that torch can hold."""
    if label is None or abs(label) >= 2**53:
        raise DataError(f"{name}: no such class")
    return label


def _shown(session: Session, name: str, row: Batch) -> dict[str, Any]:
    x, kind = row.values[name][0], kind_of(session.model.likelihoods[name])
    if kind == "image":
        return {"picture": picture(session, name, x)}
    if kind == "classes":
        return {"label": int(x)}
    observed = which_observed(row, name).expand_as(x[None])[0].flatten().tolist() if name in row.cells else [True] * x.numel()
    # The shortest digits that give the same bits again: what comes back is the row.
    numbers = (float(str(value)) for value in np.asarray(x.flatten()))
    return {"values": [value if there else None for value, there in zip(numbers, observed, strict=True)]}
