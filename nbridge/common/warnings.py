"""What is worth a warning and no mistake: one line for a reader, and the figures behind it for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Concern = Literal["chance", "inactive", "edge", "pattern", "apart", "empty", "prior", "slot", "split", "untested"]


@dataclass(frozen=True)
class Finding:
    """Something that a user should know of a model or of rows.

    Arguments:
        kind: ``chance`` (a modality that the others do not help to predict), ``inactive`` (latent units that carry nothing), ``edge``
            (a likelihood at the edge of what it can say), ``pattern`` (rows unlike any that training saw), ``apart`` (modalities never
            observed together in training), ``empty`` (rows in which nothing is observed), ``prior`` (a mixture of fewer components than
            asked for), ``slot`` (a part of an .h5mu file that could not be kept as it was), ``split`` (parts that are not as they should
            be, or share items) or ``untested`` (what too few rows leave open).
        where: The modality, or several with a comma between them; empty where it concerns them all.
        text: One line: what, where, and what to do.
        figures: What it rests on, as JSON holds it.
    """

    kind: Concern
    where: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Finding:
        """What `as_dict` gave."""
        return cls(**content)

    @property
    def line(self) -> str:
        """As it stands in a log: a warning, or a note on what was not tested."""
        return f"{'note' if self.kind == 'untested' else 'warning'}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind, "where": self.where, "text": self.text, "figures": dict(self.figures)}
