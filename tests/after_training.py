"""What is fitted once training is over, made small: it costs the same however small a model and its rows are.

Processes that tests fork do as their tests do: an environment variable says so.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping

VARIABLE = "LITTLE_AFTER_TRAINING"
_VALUES: dict[str, dict[str, Callable[[object], object]]] = {
    "nbridge.inference.exponents": {"DRAWS": lambda _: 2, "ITEMS": lambda _: 64, "ITERATIONS": lambda _: 2},
    "nbridge.inference.product_prior": {"DRAWS": lambda _: 8, "ITEMS": lambda _: 64, "TEMPERS": lambda tempers: tempers[::2]},
    "nbridge.inference.calibration": {"FACTORS": lambda factors: factors[::2], "NUMBERS": lambda _: 2**20},
    "nbridge.inference.factors": {"FACTORS": lambda factors: factors[::2]},
    "nbridge.inference.column_calibration": {"FACTORS": lambda factors: factors[::2], "NUMBERS": lambda _: 2**20},
    "nbridge.models.mixture_prior": {"DRAWS": lambda _: 2},
}
"""What to make of each constant, by its module."""


def make_little(setattr_: Callable[[object, str, object], None]) -> None:
    """Looks at few draws of few rows and tries few values from now on."""
    for path, values in _VALUES.items():
        module = importlib.import_module(path)
        for name, change in values.items():
            setattr_(module, name, change(getattr(module, name)))


def is_little(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether that is asked of a process with this environment."""
    return VARIABLE in environment
