"""Terms and default weights of the losses of stages ``joint`` and ``bridges``; the formulas are in `nbridge.models.bridged`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nbridge.spec.option_types import Coupling, Subsets

Term = Literal["elbo", "distill", "match", "cross"]

DEFAULT_OBJECTIVE: Mapping[Term, float] = {"distill": 1.0, "cross": 1.0}
"""The weights that imputed best (`benchmarks/digits.py`)."""
DEFAULT_SUBSETS: Subsets = "singletons"
"""The sets of sources that bridges are trained for."""
PAPER_OBJECTIVE: Mapping[Term, float] = {"elbo": 1.0}
"""Equations 8 and 9 of the paper."""
DEFAULT_COUPLING, DEFAULT_LEAVE_ONE_OUT, DEFAULT_CONTRAST = 1.0, 0.3, 0.07
"""Weights in stage ``joint`` of bridged models (`nbridge.models.joint`); all 0 with the paper's objective."""


def joint_options(coupling: Coupling, leave_one_out: Coupling, contrast: Coupling, *, paper: bool = False) -> dict[str, float]:
    """The weights of the terms that stage ``joint`` adds to equation 7. With the paper's objective, ``auto`` is 0."""

    def resolved(value: Coupling, default: float) -> float:
        return value if not isinstance(value, str) else 0.0 if paper else default

    return {
        "coupling": resolved(coupling, DEFAULT_COUPLING),
        "leave_one_out": resolved(leave_one_out, DEFAULT_LEAVE_ONE_OUT),
        "contrast": resolved(contrast, DEFAULT_CONTRAST),
    }
