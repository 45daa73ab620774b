"""Infers modalities, classes, groups and splits from named arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from nbridge.common.messages import clip, listing, some_of
from nbridge.data.column import PRESENT
from nbridge.data.ids import check_ids
from nbridge.data.numpy.class_texts import are_texts, texts_in
from nbridge.data.output_names import owner_of
from nbridge.data.split_labels import label_texts
from nbridge.data.tables.cells import MISSING
from nbridge.data.texts import normal_text
from nbridge.draft.arrays import part_of_array, part_of_texts
from nbridge.draft.doubts import is_placeholder, placeholder, taken
from nbridge.draft.splits import SplitKeys, keys_among, keys_of_items
from nbridge.draft.writer import Part
from nbridge.errors import DataError
from nbridge.spec.names import free_name

NAMED = 12
"""Maximum number of arrays listed in a remark, and of remarks on words."""


@dataclass
class ArrayModalities:
    """Inferred modalities and split: arrays of modalities with another name, classes of text, and observed masks, (N,), by modality.

    The arrays that are not modalities, ``left``, are by reason; ``doubts`` are remarks on words that may mark absent values.
    """

    rows: int
    id_key: str | None
    parts: list[Part] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    splits: SplitKeys = field(default_factory=SplitKeys)

    @property
    def options(self) -> dict[str, object]:
        """The options of the data source and the split."""
        own: dict[str, object] = {"keys": self.keys, "id": "" if self.id_key in (None, "id") else self.id_key, "classes": self.classes}
        return {option: value for option, value in own.items() if value} | dict(self.splits.options)

    @property
    def reasons(self) -> dict[str, str]:
        """Comments by option."""
        own = {"keys": "arrays whose names no modality may have", "classes": "the classes of text in the order of their numbers"}
        return own | dict(self.splits.reasons)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks for the user to review, one line each."""
        left = (f"left out: {some_of(names, NAMED)}: {reason}" for reason, names in self.left.items())
        more = [f"{len(self.doubts) - NAMED:,} more remarks of this kind"] if len(self.doubts) > NAMED else []
        return (*left, *self.doubts[:NAMED], *more, *self.splits.remarks)


def modalities_of_arrays(arrays: Mapping[str, np.ndarray], id_key: str | None) -> ArrayModalities:
    """Infers modalities from named arrays. The default array of identifiers is ``id``, if it exists.

    Raises:
        DataError: if they contain no possible modality, or identifiers are missing or duplicate.
    """
    key = id_key or ("id" if "id" in arrays else None)
    if key is not None and key not in arrays:
        raise DataError(f"no array {key!r}. Found: {listing(arrays)}")
    rows = _rows_of(arrays, key)
    if key is not None:
        check_ids(arrays[key], rows)
    if not rows:
        raise DataError("no rows")
    found = ArrayModalities(rows, key)
    own = {name: array for name, array in arrays.items() if name != key and not name.endswith(PRESENT)}
    single = {name: array.reshape(rows) for name, array in own.items() if array.shape in ((rows,), (rows, 1))}
    found.splits = keys_among({name: partial(label_texts, array) for name, array in single.items()})
    for name, array in own.items():
        # An array that describes another one was written by an earlier imputation.
        if owner_of(name) is not None:
            found.left.setdefault("describes other arrays", []).append(name)
        elif name not in found.splits.taken:
            _add_array(found, name, array, arrays.get(name + PRESENT))
    if not found.parts:
        raise DataError(f"no array that a modality can be made of. Found: {listing(arrays)}")
    numeric = {part.name: arrays[found.keys.get(part.name, part.name)] for part in found.parts if part.name not in found.classes}
    found.splits = keys_of_items(found.splits, ((name, array, found.present[name]) for name, array in numeric.items()))
    return found


def _add_array(found: ArrayModalities, name: str, array: np.ndarray, mask: np.ndarray | None) -> None:
    """Adds a modality, or the reason why an array is not one."""
    called = free_name(name, found.present)
    part, classes = _part_of(called, array, found.rows)
    found.doubts += _words(called, array, classes)
    if isinstance(part, str):
        found.left.setdefault(part, []).append(name)
        return
    present = _present_in(array, found.rows)
    found.present[called] = present if mask is None or mask.shape != (found.rows,) else present & mask.astype(bool)
    lacking = int((~found.present[called]).sum())
    found.parts.append(replace(part, why=f"{part.why}; empty in {lacking:,} of {found.rows:,} rows" if lacking else part.why))
    found.keys |= {called: name} if called != name else {}
    found.classes |= {called: classes} if classes else {}


def _part_of(name: str, array: np.ndarray, rows: int) -> tuple[Part | str, tuple[str, ...]]:
    """The modality of an array, or the reason why it is not one, and the classes of text."""
    if not are_texts(array.dtype, array.shape) or len(array) != rows:
        return part_of_array(name, array, rows), ()
    found = part_of_texts(name, texts_in(array, f"array {name!r}"))
    return (found, ()) if isinstance(found, str) else found


def _words(name: str, array: np.ndarray, classes: tuple[str, ...]) -> Iterator[str]:
    """Remarks on words among classes that count as absent, and on classes that often mark absent values."""
    rows = Counter(map(normal_text, texts_in(array, f"array {name!r}").tolist())) if classes else Counter[str]()
    for word, count in sorted(rows.items()):
        if word and word in MISSING:
            yield f"{clip(name)}: {taken(word, count)}"
        elif is_placeholder(word):
            yield f"{clip(name)}: {placeholder(word, count)}, write an empty text in its place"


def _present_in(array: np.ndarray, rows: int) -> np.ndarray:
    """The observed mask of an array, (N,)."""
    if are_texts(array.dtype, array.shape):
        return np.array([normal_text(text) not in MISSING for text in texts_in(array, "array").tolist()])
    return np.asarray(~np.isnan(array.reshape(rows, -1)).all(1)) if array.dtype.kind == "f" else np.ones(rows, dtype=bool)


def _rows_of(arrays: Mapping[str, np.ndarray], key: str | None) -> int:
    """The number of rows: the length of the identifiers if other arrays match it, otherwise the most common length."""
    lengths = [len(array) for name, array in arrays.items() if array.ndim and name != key]
    ids = len(arrays[key]) if key is not None and arrays[key].ndim else -1
    return ids if ids in lengths else max(lengths, key=lengths.count, default=0)
