"""Addresses of modalities in an AnnData or MuData object: a matrix, an embedding, or columns of obs.

An address follows the object's own structure, with slashes: ``rna/X`` (or ``rna``), ``rna/layers/counts``, ``rna/obsm/X_pca``,
``rna/obs/phase``; without a modality it refers to the top level, ``obs/cell_type`` or ``obsm/X_mofa``, and in an AnnData object, which has
a single modality, to ``X`` or ``layers/counts``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from nbridge.common.messages import clip, did_you_mean
from nbridge.errors import DataError

SLOTS = ("X", "layers", "obsm", "obs")
"""The slots that can hold modalities."""
FLAG = "var/"
"""The prefix of a boolean column of ``var`` that selects variables."""


@dataclass(frozen=True)
class Address:
    """An address in an object: a slot (X, layers, obsm, obs), and a name within it, empty for X.

    The ``part`` is the modality of a MuData object; it is empty for the top level, and in AnnData.
    """

    part: str
    slot: str
    name: str = ""

    @property
    def path(self) -> str:
        """The path within its part."""
        return f"{self.slot}/{self.name}" if self.name else self.slot

    def __str__(self) -> str:
        return f"{self.part}/{self.path}" if self.part else self.path


@dataclass(frozen=True)
class OmicsLayout:
    """The addresses of modalities.

    Arguments:
        keys: Addresses as the spec writes them, for modalities not at their default address.
        variables: The variables of a matrix by name or pattern, or ``var/COLUMN``; all by default.
        classes: The ordered classes of categorical columns, by modality.
        reserved: Columns of obs that patterns do not match.
    """

    shapes: Mapping[str, tuple[int, ...]]
    keys: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, tuple[str, ...]]
    classes: Mapping[str, tuple[str, ...]]
    reserved: frozenset[str] = frozenset()

    def of(self, names: Iterable[str]) -> OmicsLayout:
        """The layout of these modalities only."""
        return replace(self, shapes={name: self.shapes[name] for name in names})


def parse_address(text: str) -> Address:
    """Parses an address from a spec.

    Raises:
        DataError: when it is not an address.

    Example:
        >>> parse_address("rna"), parse_address("layers/counts")
        (Address(part='rna', slot='X', name=''), Address(part='', slot='layers', name='counts'))
    """
    first, _, rest = text.partition("/")
    part, path = ("", text) if first in SLOTS else (first, rest or "X")
    slot, _, name = path.partition("/")
    if not text or slot not in SLOTS or bool(name) == (slot == "X"):
        known = "MODALITY, MODALITY/layers/NAME, MODALITY/obsm/NAME, obs/COLUMN (in .h5ad files X, layers/NAME, obsm/NAME, obs/COLUMN)"
        raise DataError(f"keys: {clip(text)!r} is not an address in these data.{did_you_mean(slot, SLOTS)} Expected {known}")
    return Address(part, slot, name)


def address_of(name: str, parts: Collection[str], columns: Collection[str]) -> Address:
    """The default address of a modality: the X of the part of the same name, or else the column of obs.

    Raises:
        DataError: when neither exists.
    """
    if name in parts or (name == "X" and not parts):
        return Address(name if parts else "", "X")
    if name in columns:
        return Address("", "obs", name)
    near = did_you_mean(name, [*parts, *columns])
    example = f"keys: {{{name}: {next(iter(parts), '') + '/layers/counts' if parts else 'X'}}}"
    known = f"modalities {', '.join(parts)}" if parts else "X of one modality (AnnData)"
    shown = clip(", ".join(columns), 200) or "none"
    raise DataError(
        f"modality {name!r}: no modality or obs column of this name.{near} Found: {known}; columns of obs: {shown}. "
        f"Set its address: {example}"
    )
