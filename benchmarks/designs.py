"""Designs compared by benchmarks, spelled out, so that tables do not depend on the library's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JOINT: Mapping[str, Any] = {"type": "bridged", "coupling": 0, "leave_one_out": 0, "contrast": 0}
"""Stage `joint` with equation 7 only."""
BRIDGES: Mapping[str, Any] = {"encoders": "shared", "subsets": "singletons", "exponents": "ones", "prior": "normal"}
"""Bridges that read the frozen joint encoders, are trained on single sources and combined without exponents."""


def plain(**bridges: Any) -> dict[str, Any]:
    """Overrides of a spec: stage `joint` with equation 7, and bridges with the given options."""
    return {"model": dict(JOINT), "bridges": {**BRIDGES, **bridges}}
