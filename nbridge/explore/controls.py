"""The page's controls for each modality, as JSON-compatible dicts, derived from the spec and the ranges of the data."""

from __future__ import annotations

import math
from typing import Any

import torch

from nbridge.explore.figures import figures
from nbridge.explore.mixed import describe_columns
from nbridge.explore.session import Session
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.visual.mixed_columns import column_views
from nbridge.visual.modality_kinds import Kind, class_names, element_names, kind_of

DRAWABLE = 64
"""Maximum longer side, in pixels, of images that can be drawn by hand."""
PAGE = 12
"""Number of vector elements shown at a time."""
ROWS_UPLOAD = 2 * 2**20
"""Maximum size of an uploaded file of rows in bytes."""
UPLOAD = 16 * 2**20
"""Maximum size of an uploaded file in bytes."""


def describe(session: Session) -> dict[str, Any]:
    """The page's initial state: model, rows, priors and controls."""
    model, spec = session.model, session.spec
    priors = ["normal"] if model.mixture is None else ["mixture", "normal"]
    rows = None if session.rows is None else {"split": session.split, "count": len(session.rows)}
    return {
        "title": session.title, "model": spec.model.type, "latent_dim": model.latent_dim, "rows": rows, "without_rows": session.reason,
        "priors": priors, "upload": UPLOAD, "rows_upload": ROWS_UPLOAD, "page": PAGE,
        "modalities": [control(session, name) for name in model.names],
        "covariates": _covariates(session),
    }  # fmt: skip


def control(session: Session, name: str) -> dict[str, Any]:
    """The control of one modality."""
    likelihood = session.model.likelihoods[name]
    kind = kind_of(likelihood)
    same = {"name": name, "kind": kind, "shape": list(likelihood.shape), "likelihood": session.spec.modalities[name].likelihood.type}
    if kind == "image":
        channels, height, width = likelihood.shape
        return {**same, "drawable": channels == 1 and max(height, width) <= DRAWABLE}
    if isinstance(likelihood, Text):
        return {**same, "most": likelihood.shape[0] - 1, "unit": likelihood.vocabulary.unit}
    if kind == "classes":
        return {**same, "classes": class_names(session.spec, name)}
    if isinstance(likelihood, Mixed):
        return {**same, **describe_columns(column_views(session.spec, name, likelihood), session.ranges(name))}
    return {**same, **_elements(session, name, likelihood, kind)}


def _covariates(session: Session) -> list[dict[str, Any]]:
    """The covariates of the model: names, classes (empty for numbers), and usual values."""
    covariates = session.model.covariates
    if covariates is None:
        return []
    usual = covariates.usual(1)
    found = []
    for name in covariates.names:
        classes, value = list(covariates.classes.get(name) or ()), usual[name][0]
        found.append({"name": name, "classes": classes, "usual": classes[int(value)] if classes else figures(value[None])[0]})
    return found


def canonical_shape(likelihood: Likelihood) -> tuple[int, ...]:
    """The shape of one row in canonical form; () for classes."""
    return tuple(likelihood.blank(1).shape[1:])


def _elements(session: Session, name: str, likelihood: Likelihood, kind: Kind) -> dict[str, Any]:
    """Names, ranges and initial values of a vector's elements, and their order by decreasing variation."""
    ranges, shape = session.ranges(name), canonical_shape(likelihood)
    low, high, mean, sd = (x.flatten() for x in (ranges.low, ranges.high, ranges.mean, ranges.sd))
    whole = likelihood.support.is_discrete
    binary = kind == "flags" and all(bool(((x := batch.values[name]) == x.round()).all()) for batch in session.reference)
    if kind == "flags":
        low, high = torch.zeros_like(low), torch.ones_like(high)
    low, high = low.nan_to_num(0.0), high.nan_to_num(1.0)
    room = (high <= low).double()
    blank = likelihood.blank(1)[0].flatten().double()
    # Widens the range of a constant element in both directions, or only upwards at the lower bound of the support.
    low, high = (low - room).clamp(min=getattr(likelihood.support, "lower_bound", -math.inf)), high + room
    start = likelihood.point(torch.where(mean.isnan(), blank, mean).reshape(shape).to(likelihood.dtype)).double().flatten()
    return {
        "size": len(low), "names": element_names(session.spec, name, shape), "low": figures(low), "high": figures(high),
        "start": figures(start.round() if binary else start), "varied": sd.nan_to_num(0.0).argsort(descending=True, stable=True).tolist(),
        "whole": whole or binary, "binary": binary, "count": whole and kind != "flags",
    }  # fmt: skip
