"""Warnings about models and data: one line to read, with the underlying numbers for programs."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nbridge.errors import NBridgeWarning

_INSIDE = (str(Path(__file__).parent.parent), contextlib.__file__)

WarningKind = Literal[
    "chance", "inactive", "edge", "pattern", "apart", "empty", "prior", "slot", "split", "imputed", "untested", "doubt", "unlearned",
    "edited", "damaged", "tracker",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A warning about a model or about rows of data.

    Arguments:
        kind: ``chance`` (a modality that the others do not help to predict), ``inactive`` (latent dimensions that carry no information),
            ``edge`` (a likelihood parameter at its bound), ``pattern`` (missingness patterns not seen in training), ``apart``
            (modalities never observed together in training), ``empty`` (rows with nothing observed), ``prior`` (a mixture with fewer
            components than requested), ``slot`` (a part of an .h5mu file that could not be kept unchanged), ``split`` (parts of the
            split that are ill-formed or share items), ``imputed`` (values that an earlier imputation filled), ``untested`` (too few
            rows to check), ``doubt`` (a likely mistake in the data), ``unlearned`` (a column without a value in any training row),
            ``edited`` (a spec in a run folder that was edited) or ``damaged`` (a file of a run folder that training goes on without).
        where: The modality, or several separated by commas; empty if it concerns all.
        text: One line: what, where, and what to do.
        details: The numbers behind it, as JSON values.
    """

    kind: WarningKind
    where: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Finding:
        """The inverse of `as_dict`."""
        details = {"details" if name == "figures" else name: value for name, value in content.items()}
        return cls(**details)

    @property
    def line(self) -> str:
        """The log line: ``warning: ...``, or ``note: ...`` for what was not tested."""
        return f"{'note' if self.kind == 'untested' else 'warning'}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {"kind": self.kind, "where": self.where, "text": self.text, "figures": dict(self.details)}


def issue(finding: Finding) -> None:
    """Issues a warning as `NBridgeWarning`, at the line outside of this package from which it was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(finding.text, NBridgeWarning, stacklevel=level)
