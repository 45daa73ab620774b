"""What a drafted spec says of its table: the columns of each modality, and the kind of each column."""

from __future__ import annotations

from typing import Any

from nbridge.spec.spec import Spec


def members(spec: Spec) -> dict[str, tuple[str, ...]]:
    """The columns of each modality, in the order of the spec; those of mixed modalities are in their likelihood."""
    listed = spec.data.source.kwargs.get("columns") or {}
    found: dict[str, Any] = {name: one.likelihood.kwargs.get("columns") or listed.get(name, name) for name, one in spec.modalities.items()}
    return {name: (columns,) if isinstance(columns, str) else tuple(columns) for name, columns in found.items()}


def kinds(spec: Spec) -> dict[str, Any]:
    """The kind of each column as the spec writes it, without the number of its classes, or the likelihood of its modality."""
    found: dict[str, Any] = {}
    for name, columns in members(spec).items():
        likelihood = spec.modalities[name].likelihood
        own = likelihood.kwargs.get("columns") or {}
        found |= {
            column: own[column].model_copy(update={"classes": None}).model_dump() if column in own else likelihood.type
            for column in columns
        }
    return found
