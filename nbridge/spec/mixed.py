"""Completes what a spec says of mixed modalities: shapes, encoders, and the numbers of classes that the data source lists.

The functions take raw mappings, of which nothing is known yet, and leave anything invalid to validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from nbridge.common.messages import clip
from nbridge.spec.columns import CLASSES, ColumnKind, width_of
from nbridge.spec.strict import invalid

MIXED = "mixed"
"""The likelihood of columns of several kinds."""


def with_columns(value: Any) -> Any:
    """A modality with ``columns`` moved to its likelihood, and with the shape and the encoder that follow from them.

    Example:
        >>> with_columns({"columns": {"age": "normal", "sex": "bernoulli"}})["shape"]
        2
    """
    if not isinstance(value, Mapping):
        return value
    columns = value.get("columns")
    likelihood = value.get("likelihood", None if columns is None else MIXED)
    likelihood = {"type": likelihood} if isinstance(likelihood, str) else likelihood
    if columns is not None and isinstance(likelihood, Mapping) and likelihood.get("type") != MIXED:
        raise invalid(f"'columns' is for likelihood: mixed, not {clip(likelihood.get('type'))}; remove one of them")
    if not isinstance(likelihood, Mapping) or likelihood.get("type") != MIXED:
        return value
    if columns is not None and "columns" not in likelihood:
        value = {key: one for key, one in value.items() if key != "columns"}
        likelihood = {**likelihood, "columns": columns}
    whole = {"encoder": "table", **value, "likelihood": likelihood}
    if "shape" not in whole:
        # Of columns that are invalid, the columns are the mistake.
        whole["shape"] = width_of(kinds_of(likelihood.get("columns"))) or 1
    return whole


def kinds_of(columns: Any) -> dict[str, ColumnKind]:
    """The kinds of columns; none if any is invalid."""
    if not isinstance(columns, Mapping):
        return {}
    with suppress(ValidationError, TypeError):
        return {
            str(name): kind
            if isinstance(kind, ColumnKind)
            else ColumnKind.model_validate({"type": kind} if isinstance(kind, str) else kind)
            for name, kind in columns.items()
        }
    return {}


def with_classes(spec: Any) -> Any:
    """A spec in which columns of classes have the number of those that ``data.classes`` lists."""
    if not isinstance(spec, Mapping) or not isinstance(modalities := spec.get("modalities"), Mapping):
        return spec
    data = spec.get("data")
    listed = data.get("classes") if isinstance(data, Mapping) else None
    if not isinstance(listed, Mapping):
        return spec
    return {**spec, "modalities": {name: _counted(value, listed) for name, value in modalities.items()}}


def _counted(modality: Any, listed: Mapping[Any, Any]) -> Any:
    """A modality with the numbers of classes of its columns."""
    if not isinstance(modality, Mapping):
        return modality
    modality = with_columns(modality)
    likelihood = modality.get("likelihood")
    if not isinstance(likelihood, Mapping) or likelihood.get("type") != MIXED or not (kinds := kinds_of(likelihood.get("columns"))):
        return modality
    columns = {name: _with_number(kind, listed.get(name)) for name, kind in kinds.items()}
    if columns == kinds:
        return modality
    changed = {key: one for key, one in modality.items() if key != "shape" or not _follows(one, kinds)}
    return with_columns({**changed, "likelihood": {**likelihood, "columns": columns}})


def _with_number(kind: ColumnKind, classes: Any) -> ColumnKind:
    if kind.type not in CLASSES or kind.classes is not None or not isinstance(classes, list | tuple) or len(classes) < 2:
        return kind
    return kind.model_copy(update={"classes": len(classes)})


def _follows(shape: Any, kinds: Mapping[str, ColumnKind]) -> bool:
    """Whether a shape was derived from columns whose classes were not known yet."""
    return shape == width_of(kinds)


def MIXED_SCHEMA(schema: dict[str, Any]) -> None:  # noqa: N802 (a constant of pydantic's configuration)
    """In the JSON schema, a modality with columns needs no shape, encoder or likelihood."""
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["columns"]}, {"required": ["likelihood"]}]
