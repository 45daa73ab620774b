"""Infers modalities, likelihoods and missingness from MuData and AnnData.

========================== ==========================================================================================================
X, or a layer of counts    a modality each: whole numbers are counts, 0 and 1 alone accessibility, all else is standardised
arrays of obsm             a modality each, unless they are embeddings (``X_pca``), which were computed from X
columns of obs             classes of text or truth values; numbers (often figures of quality) and clusters (``leiden``) are left out
========================== ==========================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from nbridge.common.messages import clip, quoted
from nbridge.data.dates import holds_dates
from nbridge.data.omics.classes import declared_classes, is_numeric, texts_of
from nbridge.data.omics.container import Omics, Part
from nbridge.data.omics.layout import Address, OmicsLayout
from nbridge.data.omics.split_columns import obs_labels
from nbridge.data.omics.values import values_of
from nbridge.data.output_names import owner_of
from nbridge.data.tables.cells import MOST_CLASSES
from nbridge.draft.column_kinds import kind_of_text
from nbridge.draft.doubts import is_placeholder
from nbridge.draft.grouping import MOST_MODALITIES
from nbridge.draft.splits import SplitKeys, keys_among
from nbridge.draft.writer import Part as SpecPart
from nbridge.errors import DataError
from nbridge.spec.names import free_name

MANY = 2000
"""Number of variables above which a selection is recommended."""
FLAG = "highly_variable"
"""The boolean column of var that selects variables, by convention."""
DEEP = 100
"""Number of variables from which on the total count of a row is its depth; of fewer, such as a panel of antibodies, it is a signal."""
CHUNK = 1024
"""Rows per chunk."""
_COUNTS = re.compile(r"counts?|raw", re.IGNORECASE)
_CLUSTERS = re.compile(r"leiden|louvain", re.IGNORECASE)
_EMBEDDING = "X_"


@dataclass
class OmicsGuesses:
    """Inferred modalities and split, with remarks for the user to review.

    By modality, there are locations that do not follow from the name, selections of variables, classes, and observed masks, (N,).
    """

    rows: int
    parts: list[SpecPart] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    splits: SplitKeys = field(default_factory=SplitKeys)

    @property
    def options(self) -> dict[str, Mapping[str, object]]:
        """The options of the data source."""
        named: dict[str, Mapping[str, object]] = {"keys": self.keys, "variables": self.variables, "classes": self.classes}
        return {option: value for option, value in named.items() if value}


@dataclass(frozen=True)
class _MatrixStatistics:
    """Statistics of the values of a matrix."""

    low: float
    high: float
    whole: bool
    elements: int

    @property
    def counts(self) -> bool:
        return self.whole and self.low >= 0 and self.high > 1

    @property
    def likelihood(self) -> tuple[str, str]:
        """The likelihood and the reason for it."""
        if self.whole and self.low >= 0 and self.high <= 1:
            return "{type: bernoulli, attributes: true}", "0 and 1 alone, as accessibility and mutations are"
        if self.counts:
            deep = self.elements >= DEEP
            why = f"whole numbers from 0 on, up to {self.high:g}: counts{', each row at its own depth' if deep else ''}"
            return "{type: negative_binomial, size_factor: auto}" if deep else "negative_binomial", why
        logs = ", as logarithms of counts are" if self.low == 0 and self.high < 20 else ""
        return "normal", f"numbers from {self.low:.4g} to {self.high:.4g}{logs}; standardised"


def guess_omics(omics: Omics) -> OmicsGuesses:
    """Infers modalities from an object.

    Raises:
        DataError: if it cannot be read, or contains no possible modality.
    """
    found = OmicsGuesses(len(omics.whole.names))
    for part in omics.parts.values() or [omics.whole]:
        _guess_matrix(found, omics, part)
    for part in (omics.whole, *omics.parts.values()):
        _guess_arrays(found, omics, part)
    columns = [(part, str(column)) for part in (omics.whole, *omics.parts.values()) for column in part.obs.columns]
    own = {f"{part.name}:{column}" for part, column in columns if part.name}
    found.splits = keys_among({column: partial(_labels, omics, column) for _, column in columns})
    found.remarks += found.splits.remarks
    columns = [(part, column) for part, column in columns if column not in found.splits.taken]
    # MuData copies columns of its modalities into the global obs; these belong to the modalities.
    _guess_columns(found, omics, [(part, column) for part, column in columns if part.name or column not in own])
    if not found.parts:
        raise DataError(f"{omics.origin}: nothing that a modality can be made of")
    return found


def _labels(omics: Omics, column: str) -> Sequence[str]:
    """The values of a column of obs; empty if modalities disagree."""
    try:
        return obs_labels(omics, column).texts
    except DataError:
        return [""]


def _guess_matrix(found: OmicsGuesses, omics: Omics, part: Part) -> None:
    layers = [path for path in part.elements if path.startswith("layers/") and owner_of(path) is None]
    counts = [path for path in layers if _COUNTS.search(path.removeprefix("layers/"))]
    known = {path: _statistics_of(part.read(path)) for path in ("X", *counts) if path in part.elements}
    statistics = {path: one for path, one in known.items() if one is not None}
    named = part.name or "X"
    if not statistics:
        found.remarks.append(f"left out: {clip(named)}: no X, and no layer of counts, that holds numbers")
        return
    path = next((path for path, one in statistics.items() if one.counts), next(iter(statistics)))
    if path != "X" and not statistics[path].counts and "X" in statistics:
        path = "X"
    likelihood, why = statistics[path].likelihood
    name = free_name(named, found.present)
    address = Address(part.name, *path.split("/", 1)) if path != "X" else Address(part.name, "X")
    if str(address) not in (name, f"{name}/X"):
        found.keys[name] = str(address)
    count = len(part.variables)
    if count > MANY:
        count = _fewer(found, part, name, count)
    chosen = f"; the {count:,} highly variable of {len(part.variables):,} variables" if name in found.variables else ""
    _add(found, omics, SpecPart(name, (count,), likelihood, f"{address}: {why}{chosen}"))


def _fewer(found: OmicsGuesses, part: Part, name: str, count: int) -> int:
    """Selects highly variable variables, or adds a remark on how to select them; returns their number."""
    flags = part.var[FLAG] if FLAG in part.var.columns else None
    if flags is not None and flags.isin([True, False]).all() and 0 < int(flags.sum()) < count:
        found.variables[name] = f"var/{FLAG}"
        return int(flags.sum())
    found.remarks.append(
        f"{name}: {count:,} variables, and no column {FLAG} in var chooses from them: training takes long; choose some 2,000, as "
        f"scanpy.pp.highly_variable_genes does, and write variables: {{{name}: var/{FLAG}}}, and their number as shape"
    )
    return count


def _guess_arrays(found: OmicsGuesses, omics: Omics, part: Part) -> None:
    left: list[str] = []
    for path in part.elements:
        key = path.removeprefix("obsm/")
        if key == path or owner_of(key) is not None:
            continue
        statistics = None if key.startswith(_EMBEDDING) else _statistics_of(part.read(path))
        if statistics is None:
            left.append(str(Address(part.name, "obsm", key)))
            continue
        name = free_name(key, found.present)
        address = Address(part.name, "obsm", key)
        found.keys[name] = str(address)
        likelihood, why = statistics.likelihood
        _add(found, omics, SpecPart(name, (part.read(path).shape[1],), likelihood, f"{address}: {why}"))
    if left:
        found.remarks.append(f"left out: {clip(', '.join(left), 200)}: embeddings, or no matrix of numbers")


def _guess_columns(found: OmicsGuesses, omics: Omics, columns: Iterable[tuple[Part, str]]) -> None:
    left: dict[str, list[str]] = {}
    for part, column in columns:
        address = Address(part.name, "obs", column)
        classes, reason = _classes(part, column)
        if not reason and len(found.parts) >= MOST_MODALITIES:
            reason = f"more than {MOST_MODALITIES} modalities"
        if reason:
            left.setdefault(reason, []).append(str(address))
            continue
        name = free_name(column, found.present)
        if name != column or part.name or column in omics.parts or (name == "X" and not omics.parts):
            found.keys[name] = str(address)
        found.classes[name] = classes
        doubtful = filter(is_placeholder, classes)
        found.remarks += [f"{address}: {quoted(word)} is a class; if it marks absent cells, make them NaN" for word in doubtful]
        _add(found, omics, SpecPart(name, (len(classes),), "categorical", f"{address}: {len(classes)} classes"))
    found.remarks += [f"left out: {clip(', '.join(names), 200)}: {reason}" for reason, names in left.items()]


def _classes(part: Part, column: str) -> tuple[tuple[str, ...], str]:
    """The classes of a column, or the reason why it is not a modality."""
    values = part.obs[column]
    if owner_of(column) is not None:
        return (), "describes other columns"
    truth = str(values.dtype) in ("bool", "boolean")
    if is_numeric(values) and not truth:
        return (), "numbers in obs, often figures of quality; keys: {NAME: [obs/COLUMN, ...]} makes a modality of them"
    if _CLUSTERS.search(column):
        return (), "clusters, which were found in the data themselves"
    codes, texts = texts_of(values)
    classes = ("0", "1") if truth else declared_classes(values)
    used = [text for text in texts if truth or text in classes]
    reason = _why_none(column, codes, used)
    if not reason and len(classes) > MOST_CLASSES:
        reason = "too many different values for classes"
    return (() if reason else classes), reason


def _why_none(column: str, codes: np.ndarray, used: Sequence[str]) -> str:
    """The reason why texts are not classes; empty if they are."""
    if len(used) < 2:
        return "fewer than two different values"
    if holds_dates(used):
        return "dates, which are no numbers"
    rows = np.bincount(codes[codes >= 0])
    found = kind_of_text(column, rows[rows > 0], as_text=False) if len(used) > 2 else None
    return found.why if found is not None and found.kind == "left out" else ""


def _add(found: OmicsGuesses, omics: Omics, part: SpecPart) -> None:
    """Adds a modality and its observed mask."""
    found.parts.append(part)
    options = {name: (words,) for name, words in found.variables.items()}
    keys = {name: (address,) for name, address in found.keys.items()}
    layout = OmicsLayout({part.name: part.shape}, keys, options, found.classes)
    values = values_of(omics, part.name, layout)
    blocks = (values.block(start, min(start + CHUNK, found.rows))[1] for start in range(0, found.rows, CHUNK))
    found.present[part.name] = np.concatenate([~missing.reshape(len(missing), -1).all(axis=1) for missing in blocks])


def _statistics_of(value: Any) -> _MatrixStatistics | None:
    """Computes the statistics of a matrix; None if it is not numeric."""
    value = value.to_numpy() if hasattr(value, "columns") else value
    if getattr(value, "ndim", 0) != 2 or getattr(getattr(value, "dtype", None), "kind", "O") not in "buif" or not min(value.shape):
        return None
    low, high, whole = np.inf, -np.inf, True
    for numbers in _numbers(value):
        known = numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
            whole = whole and bool((known == np.floor(known)).all())
    return _MatrixStatistics(low, high, whole, value.shape[1]) if high >= low else None


def _numbers(value: Any) -> Iterator[np.ndarray]:
    """The values of a matrix in chunks of rows; for a sparse matrix the stored values, and one zero for all others."""
    if hasattr(value, "tocsr"):
        yield value.data
        if value.nnz < value.shape[0] * value.shape[1]:
            yield np.zeros(1, value.dtype)
        return
    for start in range(0, len(value), CHUNK):
        yield np.asarray(value[start : start + CHUNK]).ravel()
