"""Reads rows from a file, a data frame, a MuData or AnnData object, or arrays into a batch, by the data binding of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.endings import ARCHIVE, has_ending
from nbridge.data.folders import find_file
from nbridge.data.ids import check_ids
from nbridge.data.numpy.class_texts import are_texts, class_numbers, texts_in
from nbridge.data.numpy.npz import read_npz
from nbridge.data.omics.container import is_omics, is_omics_file
from nbridge.data.omics.rows import object_rows
from nbridge.data.streaming.blocks import RowsIn
from nbridge.data.streaming.files import find_rows, open_rows
from nbridge.data.tables.columns import ending_of
from nbridge.data.tables.frame_source import FrameTable
from nbridge.data.tables.frames import is_frame, open_frame
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.rows import CellRows, cell_rows
from nbridge.errors import DataError, naming
from nbridge.inference.file_plan import match_keys
from nbridge.inference.image_completion import read_images
from nbridge.inference.served import Served

Arrays = dict[str, np.ndarray]


def read_batch(model: Served, rows: Any) -> tuple[Batch, np.ndarray | None]:
    """Reads rows into a batch; also returns their identifiers, if any.

    Arguments:
        model: A trained model, whose binding maps names to modalities.
        rows: A batch, the path of a file or of a folder of images, a data frame, a MuData or AnnData object, or a dict of arrays.

    Raises:
        DataError: if the rows cannot be read or do not match the model.
    """
    if isinstance(rows, Batch):
        return rows, None
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    if isinstance(rows, str | PathLike):
        arrays, ids = _read_path(model, str(rows))
        with naming(str(rows)):
            return to_batch(arrays, shapes, allow_missing=True), ids
    return to_batch(_read_object(model, rows), shapes, allow_missing=True, ignore_extra=True), None


def _read_object(model: Served, rows: Any) -> Mapping[str, Any]:
    """The arrays of rows in memory by modality."""
    binding = model.binding
    if is_omics(rows):
        if binding.omics is None:
            raise DataError("this model was not trained from MuData or AnnData; pass a batch or a dict of arrays by modality")
        read = object_rows(rows, binding.omics.of(model.names), ())
        return _all_of(read)[0]
    if binding.table is None:
        if isinstance(rows, Mapping) and not is_frame(rows):
            return rows
        raise DataError("this model was trained from arrays; pass a dict of arrays by modality")
    frame = open_frame(rows)
    with naming(frame.noun):
        table = CellRows(FrameTable(frame), binding.table)
        (block,) = table.blocks(table.there, 0, table.rows, table.rows)
        return dict(block.arrays)


def _read_path(model: Served, path: str) -> tuple[Arrays, np.ndarray | None]:
    """The arrays of a file by modality, and its row identifiers, if any."""
    binding = model.binding
    if is_omics_file(path):
        return _read_omics(model, path)
    if binding.images is not None and not has_ending(path, ARCHIVE):
        return read_images(model, [path])
    if ending_of(path) and binding.table is not None:
        return _read_table(binding.table, path)
    arrays = read_npz(path)
    with naming(path):
        keys = {name: binding.keys.get(name, name) for name in model.names}
        taken, others = match_keys(tuple(arrays), keys, "array")
        given = {name: _class_numbers(binding.class_names.get(name), name, arrays[key]) for name, key in taken.items()}
        if binding.id not in others:
            return given, None
        first = next(iter(given.values()))
        return given, check_ids(arrays[binding.id], len(first) if first.ndim else None)


def _class_numbers(classes: Sequence[str] | None, name: str, array: np.ndarray) -> np.ndarray:
    """The array of a modality, with class names replaced by class indices."""
    if classes is None or not are_texts(array.dtype, array.shape):
        return array
    return class_numbers(texts_in(array, what := f"modality {name!r}"), classes, what)


def _read_table(layout: TableLayout, path: str) -> tuple[Arrays, np.ndarray | None]:
    found = find_file(path)
    with TemporaryDirectory() as scratch, naming(found), cell_rows(found, layout, Path(scratch)) as table:
        (block,) = table.blocks(table.there, 0, table.rows, table.rows)
        if layout.id not in table.passed:
            return dict(block.arrays), None
        (texts,) = table.identifiers(layout.id, table.rows, table.rows)
        return dict(block.arrays), check_ids(texts, told=table.told_ids(layout.id))


def _read_omics(model: Served, path: str) -> tuple[Arrays, np.ndarray]:
    found, kind = find_rows(path)
    with TemporaryDirectory() as scratch, naming(found), open_rows(found, kind, {}, Path(scratch), omics=model.binding.omics) as rows:
        return _all_of(rows)


def _all_of(rows: RowsIn) -> tuple[Arrays, np.ndarray]:
    """All rows of MuData or AnnData by modality, and their names."""
    total = rows.layout(rows.keys[0]).shape[0]
    (block,) = rows.blocks(rows.keys, 0, total, total)
    (names,) = rows.identifiers("", total, total)
    return {key: block.with_nan(key) for key in rows.keys}, names
