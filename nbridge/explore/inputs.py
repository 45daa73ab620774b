"""Conversion between the page's values and a batch of one row."""

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
from nbridge.explore.mixed import batch_of_columns, values_of_columns
from nbridge.explore.requests import Given
from nbridge.explore.session import Session
from nbridge.explore.uploads import read_pixels
from nbridge.inference.impute import which_observed
from nbridge.models.support import describe_support
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.training.texts import text_forms
from nbridge.visual.mixed_columns import column_views
from nbridge.visual.modality_kinds import kind_of
from nbridge.visual.png import data_uri, downscale, to_uint8

SIDE = 256
"""Maximum longer side of an image on the page, in pixels."""


def batch_of(session: Session, given: Mapping[str, Given], covariates: Mapping[str, str | float] | None = None) -> Batch:
    """Converts the given values to a batch of one row, with these covariates in place of the row's own or the usual ones.

    Raises:
        DataError: when nothing is given, the model lacks a modality, or a value does not match it.
    """
    check_names(session.model, given)
    if not given:
        raise DataError("nothing is given: give one or more modalities, or draw from the prior")
    parts = [_one(session, name, value) for name, value in given.items()]
    whats = ("values", "present", "cells", "covariates")
    joined = Batch(*({name: x for part in parts for name, x in getattr(part, what).items()} for what in whats))
    # Values that are typed in have the usual covariates.
    return joined.with_covariates({**_usual(session), **joined.covariates, **levels_of(session, covariates or {})})


def nothing_given(session: Session, covariates: Mapping[str, str | float] | None = None) -> Batch:
    """A row with nothing observed, with these covariates and the usual values of all others."""
    name = session.model.names[0]
    nothing = Batch({name: session.model.likelihoods[name].blank(1)}, {name: torch.tensor([False])})
    return nothing.with_covariates({**_usual(session), **levels_of(session, covariates or {})})


def levels_of(session: Session, covariates: Mapping[str, str | float]) -> dict[str, Tensor]:
    """Values of covariates as the model takes them.

    Raises:
        DataError: when the model lacks the covariate, or the value is none of its classes or no number.
    """
    if not covariates:
        return {}
    if session.model.covariates is None:
        raise DataError(f"no covariate {clip(next(iter(covariates)))!r}: this model has no covariates")
    return session.model.covariates.fixed(covariates)


def levels_shown(session: Session, values: Mapping[str, Tensor]) -> dict[str, str | float]:
    """Covariates of one row as the page shows them: the name of a class, or a number."""
    covariates = session.model.covariates
    if covariates is None:
        return {}
    classes = covariates.classes
    return {name: classes[name][int(x[0])] if classes.get(name) else float(str(np.asarray(x)[0])) for name, x in values.items()}


def _usual(session: Session) -> dict[str, Tensor]:
    """The most frequent classes of the model's covariates, and the means of numbers; empty if it has none."""
    return {} if session.model.covariates is None else session.model.covariates.usual(1)


def row_of(session: Session, number: int) -> dict[str, Any]:
    """A row of the run: its values by modality, None for absent ones.

    Raises:
        DataError: when there is no such row.
    """
    row = session.model.prepare(session.row(number))
    found = {"row": number, **shown(session, row)}
    return found if session.ids is None else {**found, "id": clip(session.ids[number], 60)}


def shown(session: Session, row: Batch) -> dict[str, Any]:
    """A prepared row as the page shows it: its values by modality, None for absent ones, and its covariates, if the model has any."""
    there = {name for name in row.names if row.present[name]}
    values = {name: _shown(session, name, row) if name in there else None for name in session.model.names}
    levels = levels_shown(session, row.covariates)
    return {"values": values, **({"covariates": levels} if levels else {})}


def image_uri(session: Session, name: str, image: Tensor) -> str:
    """An image of a modality, shape (C, H, W), as a data URI."""
    return data_uri(downscale(to_uint8(image, *session.value_range(name)), SIDE))


def texts_of(likelihood: Likelihood, numbers: Tensor) -> list[str]:
    """The texts of token numbers, shape (N, L)."""
    assert isinstance(likelihood, Text)
    return [likelihood.vocabulary.text(row) for row in numbers.tolist()]


def _one(session: Session, name: str, given: Given) -> Batch:
    likelihood = session.model.likelihoods[name]
    if given.row is not None:
        return _from_row(session, name, given.row)
    wanted = {"image": "picture", "classes": "label", "text": "text"}.get(kind_of(likelihood), "values")
    if given.kinds != (wanted,):
        raise DataError(f"{name}: expected {wanted} or row, got {', '.join(given.kinds)}")
    if given.picture is not None:
        return _checked(name, likelihood, _from_image_uri(session, name, likelihood, given.picture))
    if given.values is not None and isinstance(likelihood, Mixed):
        return batch_of_columns(name, likelihood, column_views(session.spec, name, likelihood), given.values)
    if given.values is not None:
        return _from_values(name, likelihood, given.values)
    if given.text is not None:
        form = text_forms(session.spec)[name]
        if not given.text.strip():
            raise DataError(f"{name}: an empty text; leave the modality out")
        return _checked(name, likelihood, torch.from_numpy(form.numbers([given.text], lambda _: name)).long())
    return _checked(name, likelihood, torch.tensor([_class_number(name, given.label)]))


def _from_row(session: Session, name: str, number: int) -> Batch:
    row = session.row(number)
    if name not in row.names or not row.present[name]:
        raise DataError(f"{name}: absent from row {number}")
    return row.select(name)


def _from_image_uri(session: Session, name: str, likelihood: Likelihood, data_uri: str) -> Tensor:
    """Decodes an image in canonical form, shape (1, C, H, W); black and white are the ends of the modality's range."""
    low, high = session.value_range(name)
    x = low + (high - low) * torch.from_numpy(read_pixels(name, data_uri, likelihood.shape).copy()).double() / 255
    return likelihood.canonical(likelihood.point(x) if likelihood.support.is_discrete else x)[None]


def _from_values(name: str, likelihood: Likelihood, values: list[float | None]) -> Batch:
    shape = canonical_shape(likelihood)
    if len(values) != math.prod(shape):
        raise DataError(f"{name}: got {len(values)} values, expected {math.prod(shape)}")
    cells = torch.tensor([value is not None for value in values]).reshape(1, *shape)
    if not cells.any():
        raise DataError(f"{name}: no value is given; leave the modality out")
    if not cells.all() and not likelihood.elementwise:
        raise DataError(f"{name}: partly given, expected all values or none")
    blank = likelihood.blank(1).flatten().tolist()
    x = torch.tensor([other if value is None else value for value, other in zip(values, blank, strict=True)], dtype=torch.float64)
    return _checked(name, likelihood, x.reshape(1, *shape), None if cells.all() else cells)


def _checked(name: str, likelihood: Likelihood, x: Tensor, cells: Tensor | None = None) -> Batch:
    """A batch of one row of a modality, after checking that its values are in the support."""
    canonical = likelihood.canonical(x)
    # A number that is finite in JSON can overflow the model's dtype.
    wrong = ~(likelihood.support.check(x) & canonical.isfinite())
    if wrong.any():
        value = x[wrong][0].item()
        raise DataError(
            f"{name}: value {value:g} is outside the support of {type(likelihood).__name__}, {describe_support(likelihood.support)}"
        )
    return Batch({name: canonical}, {name: torch.tensor([True])}, {} if cells is None else {name: cells})


def _class_number(name: str, label: int | None) -> int:
    """Checks that a class number fits a torch integer."""
    if label is None or abs(label) >= 2**53:
        raise DataError(f"{name}: no such class")
    return label


def _shown(session: Session, name: str, row: Batch) -> dict[str, Any]:
    x, kind = row.values[name][0], kind_of(session.model.likelihoods[name])
    if kind == "image":
        return {"picture": image_uri(session, name, x)}
    if kind == "classes":
        return {"label": int(x)}
    if isinstance(likelihood := session.model.likelihoods[name], Mixed):
        return {"values": values_of_columns(row, name, column_views(session.spec, name, likelihood))}
    if kind == "text":
        return {"text": texts_of(session.model.likelihoods[name], x[None])[0]}
    observed = which_observed(row, name).expand_as(x[None])[0].flatten().tolist() if name in row.cells else [True] * x.numel()
    # The shortest decimals that round-trip, so that sending the values back gives the same row.
    numbers = (float(str(value)) for value in np.asarray(x.flatten()))
    return {"values": [value if there else None for value, there in zip(numbers, observed, strict=True)]}
