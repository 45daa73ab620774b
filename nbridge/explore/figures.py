"""Numbers as they are sent to the page."""

from __future__ import annotations

from typing import Any

import torch

DIGITS = 6
"""Significant digits of returned numbers."""


def figures(x: torch.Tensor) -> list[Any]:
    """A tensor as nested lists of numbers rounded to `DIGITS` significant digits."""
    if x.ndim > 1:
        return [figures(part) for part in x]
    return [float(f"{value:.{DIGITS}g}") for value in x.tolist()]
