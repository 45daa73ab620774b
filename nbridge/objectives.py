"""What stage ``bridges`` may minimise, as a spec spells it; `nbridge.models.bridged` has the formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nbridge.annotations import Subsets

Term = Literal["elbo", "distill", "match", "cross"]

DEFAULT_OBJECTIVE: Mapping[Term, float] = {"distill": 1.0, "cross": 1.0}
"""What was measured to impute best (`benchmarks/digits.py`)."""
DEFAULT_SUBSETS: Subsets = "singletons"
"""The sets of sources that bridges are trained for."""
PAPER_OBJECTIVE: Mapping[Term, float] = {"elbo": 1.0}
"""Equations 8 and 9 of the paper."""
DEFAULT_COUPLING = 1.0
"""The coupling of bridged models, but for the paper's objective, which has none."""
