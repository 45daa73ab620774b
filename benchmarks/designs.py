"""Designs that benchmarks compare, spelt out, so that a table means the same whatever the library's default is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JOINT: Mapping[str, Any] = {"type": "bridged", "coupling": 0, "leave_one_out": 0, "contrast": 0}
"""Stage `joint` by equation 7 alone."""
BRIDGES: Mapping[str, Any] = {"encoders": "shared", "subsets": "singletons", "exponents": "ones", "prior": "normal"}
"""Bridges that read the frozen joint encoders, learn from single sources and multiply as equals."""


def plain(**bridges: Any) -> dict[str, Any]:
    """Parts of a spec: bridges on a stage `joint` by equation 7, with other options of the bridges where given."""
    return {"model": dict(JOINT), "bridges": {**BRIDGES, **bridges}}
