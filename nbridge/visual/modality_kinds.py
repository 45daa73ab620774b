"""How modalities are displayed: as images, classes, columns, flags, texts or values, with names for classes and elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

from torch import Tensor

from nbridge.common.messages import clip
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.spec.spec import Spec

Kind = Literal["image", "classes", "columns", "flags", "text", "values"]
"""``columns`` are those of a mixed modality; ``flags`` are binary values or probabilities that are not an image; ``values`` is all else."""


def kind_of(likelihood: Likelihood) -> Kind:
    """The kind of a modality."""
    if isinstance(likelihood, Categorical):
        return "classes"
    if isinstance(likelihood, Mixed):
        return "columns"
    if isinstance(likelihood, Text):
        return "text"
    if len(likelihood.shape) == 3 and likelihood.shape[0] in (1, 3):
        return "image"
    return "flags" if isinstance(likelihood, Bernoulli) else "values"


def is_image(model: MultimodalVAE, name: str) -> bool:
    """Whether a modality is an image of one or three channels."""
    return kind_of(model.likelihoods[name]) == "image"


def first_categorical(model: MultimodalVAE) -> str | None:
    """The first categorical modality, if there is one."""
    return next((name for name, likelihood in model.likelihoods.items() if isinstance(likelihood, Categorical)), None)


def value_range(likelihood: Likelihood, real: Tensor) -> tuple[float, float]:
    """The values shown as black and white: the bounds of the support, or the range of real images if it has none."""
    low, high = getattr(likelihood.support, "lower_bound", None), getattr(likelihood.support, "upper_bound", None)
    return float(real.min() if low is None else low), float(real.max() if high is None else high)


def class_names(spec: Spec, name: str) -> list[str]:
    """The names of a modality's classes in the data, or else their numbers."""
    options, count = spec.data.source.kwargs, spec.modalities[name].shape[0]
    columns = _columns(spec, name)
    texts = (options.get("classes") or {}).get(columns[0] if columns else name, ())
    return [clip(text, 24) for text in texts] if len(texts) == count else [str(number) for number in range(count)]


def element_names(spec: Spec, name: str, shape: Sequence[int]) -> list[str]:
    """The names of a modality's elements: table columns or variables, or else indices along each axis.

    Arguments:
        spec: The spec.
        name: The modality.
        shape: The shape of one row.
    """
    columns = _columns(spec, name)
    if len(columns) == math.prod(shape):
        return [clip(column, 60) for column in columns]
    return [", ".join(map(str, index)) for index in product(*map(range, shape))]


def _columns(spec: Spec, name: str) -> list[str]:
    """The table columns or variables of a modality; for other sources, its own name."""
    options = spec.data.source.kwargs
    columns = (options.get("columns") or options.get("variables") or {}).get(name, name)
    return [columns] if isinstance(columns, str) else [str(column) for column in columns]
