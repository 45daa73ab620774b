"""Designs that benchmarks compare, spelt out, so that a table means the same whatever the library's default is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JOINT: Mapping[str, Any] = {"type": "bridged", "coupling": 0, "leave_one_out": 0}
"""Stage `joint` by equation 7 alone."""
BRIDGES: Mapping[str, Any] = {"encoders": "shared", "subsets": "singletons", "exponents": "ones"}
"""Bridges that read the frozen joint encoders, learn from single sources and multiply as equals."""


def plain(**bridges: Any) -> dict[str, Any]:
    """Parts of a spec: bridges on a stage `joint` by equation 7, with other options of the bridges where given."""
    return {"model": dict(JOINT), "bridges": {**BRIDGES, **bridges}}


def overrides(*modalities: str, **bridges: Any) -> tuple[str, ...]:
    """The same as overrides of a spec, with a weight of 1 for these modalities."""
    parts = plain(**bridges)
    return (*(f"{name}={json.dumps(value)}" for name, value in parts.items()), *(f"modalities.{name}.weight=1" for name in modalities))
