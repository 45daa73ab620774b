"""Hugging Face datasets as data frames, recognised by duck typing: the library itself is never imported here.

A ``ClassLabel`` becomes its class names, absent where it is -1 or None; ``Array2D`` to ``Array5D`` and ``Sequence`` of numbers are vectors;
an ``Image`` becomes its pixels as bytes, (channels, height, width), and is written as PNG where it is imputed.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.memory import free_bytes
from nbridge.common.messages import clip, quoted
from nbridge.data.images.decode import UnreadableImageError, converted, decoded, to_array
from nbridge.data.tables import arrow as arrow_cells
from nbridge.data.tables.arrow import pyarrow_of
from nbridge.data.tables.frame_adapter import Frame
from nbridge.data.tables.write import Renewed
from nbridge.data.texts import normal_text
from nbridge.errors import DataError

_AT_ONCE = 1000
"""Number of rows of a stream that are read at a time."""
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
"""Image modes that are read as grey or RGB, with the number of channels; RGBA keeps all four."""


class HubFrame(Frame):
    """A Hugging Face dataset.

    Arguments:
        dataset: A ``datasets.Dataset``.
    """

    path = "dataset"

    def __init__(self, dataset: Any) -> None:
        self._dataset, self.rows, self.columns = dataset, len(dataset), tuple(dataset.column_names)

    def arrow(self, name: str) -> Any:
        pa, feature = pyarrow_of(), self._dataset.features[name]
        array = self._stored(name)
        if names := self.classes(name):
            return pa.DictionaryArray.from_arrays(pa.compute.if_else(pa.compute.less(array, 0), None, array), pa.array(names))
        return _images(name, array) if _is(feature, "Image") else array

    def classes(self, column: str) -> tuple[str, ...]:
        feature = self._dataset.features[column]
        return tuple(feature.names) if _is(feature, "ClassLabel") else ()

    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        pa = pyarrow_of()
        columns: dict[str, Any] = {}
        for name in self.columns:
            given = self._stored(name)
            cells = renewed.get(name)
            columns[name] = given.take(pa.array(rows)) if cells is None or not cells.fill.any() else self._filled(name, given, cells)
        out = self._made(columns)
        for name, array in added.items():
            out = out.remove_columns([name]) if name in self.columns else out
            out = out.add_column(name, array.to_pylist())
        return out

    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:  # noqa: ARG002 (a dataset has no index)
        return type(self._dataset).from_dict({name: mask.tolist() for name, mask in columns.items()})

    def _stored(self, name: str) -> Any:
        """A column in its storage type, without the library's extension types."""
        return arrow_cells.stored(self._dataset.with_format("arrow").select_columns([name])[:].column(name))

    def _filled(self, name: str, given: Any, cells: Renewed) -> Any:
        pa, feature, values = pyarrow_of(), self._dataset.features[name], cells.values
        if names := self.classes(name):
            places = {normal_text(text): place for place, text in reversed(list(enumerate(names)))}
            if unknown := next((text for text in values.to_pylist() if normal_text(text) not in places), None):
                raise DataError(f"column {clip(name)!r}: imputed {quoted(unknown)} is not in its ClassLabel; cast it")
            values = pa.array([places[normal_text(text)] for text in values.to_pylist()], given.type)
        elif _is(feature, "Image"):
            pixels = arrow_cells.vectors(name, values, str)
            values = pa.array([{"bytes": _png(image), "path": None} for image in pixels], given.type)
        return replace(cells, values=values).put(given)

    def _made(self, columns: Mapping[str, Any]) -> Any:
        """Builds a dataset from storage columns, with the features of the input."""
        pa, schema = pyarrow_of(), self._dataset.features.arrow_schema
        table = pa.Table.from_arrays([_typed(columns[field.name], field.type) for field in schema], schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_table(table)
        return type(self._dataset).from_buffer(sink.getvalue(), info=self._dataset.info.copy(), split=self._dataset.split)


def read_stream(stream: Any) -> Any:
    """Reads a streaming dataset once, into a dataset in memory.

    Arguments:
        stream: A ``datasets.IterableDataset``.

    Raises:
        DataError: when it has no rows, or more than fit into the free memory.
    """
    pa, tables, size = pyarrow_of(), [], 0
    known = stream.features is not None
    for batch in (stream.with_format("arrow") if known else stream).iter(batch_size=_AT_ONCE):
        # The library joins rows to Arrow tables one by one, which fails where the type of a column isn't known yet.
        tables.append(batch if known else pa.table(batch))
        size += tables[-1].nbytes
        # What is made of it takes as much again, at least.
        if size > free_bytes():
            rows = sum(one.num_rows for one in tables)
            raise DataError(f"dataset: the first {rows:,} rows of the stream take half of the free memory; read fewer, with take(n)")
    if not tables:
        raise DataError("dataset: no rows")
    whole = pa.concat_tables(tables, promote_options="permissive")
    made = importlib.import_module("datasets").Dataset(whole)
    return made.cast(stream.features) if known else made


def _typed(array: Any, kind: Any) -> Any:
    """Casts a storage column to the type of a feature."""
    pa = pyarrow_of()
    return pa.ExtensionArray.from_storage(kind, array) if isinstance(kind, pa.BaseExtensionType) else array.cast(kind)


def _is(feature: object, name: str) -> bool:
    return type(feature).__name__ == name


def _images(name: str, array: Any) -> Any:
    """Decodes images to lists of (channels, height, width) bytes.

    Raises:
        DataError: for the first that can't be read, or has another size or mode than the first.
    """
    pa = pyarrow_of()
    pixels: list[np.ndarray | None] = []
    first: tuple[int, ...] | None = None
    for row, value in enumerate(array.to_pylist()):
        image = None if value is None else _pixels(name, row, value)
        if image is not None and image.shape != (first := first or image.shape):
            raise DataError(f"column {clip(name)!r}: the image in row {row} has shape {image.shape}, the first {first}; make them equal")
        pixels.append(image)
    shape = first or (0,)
    missing = np.array([image is None for image in pixels])
    blank = np.zeros(shape, np.uint8)
    flat = pa.array(np.stack([blank if image is None else image for image in pixels]).reshape(-1))
    for size in reversed(shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.FixedSizeListArray.from_arrays(flat, shape[0], mask=pa.array(missing))


def _pixels(name: str, row: int, value: Mapping[str, Any]) -> np.ndarray:
    what = f"column {clip(name)!r}: the image in row {row}"
    if value.get("bytes") is None and value.get("path") is None:
        raise DataError(f"{what} can't be read (neither bytes nor a path)")
    try:
        image = decoded(Path(value["path"]) if value.get("bytes") is None else value["bytes"])
    except UnreadableImageError as error:
        raise DataError(f"{what} can't be read ({error})") from error
    if image.mode not in (*_CHANNELS, "RGBA"):
        raise DataError(f"{what} is of mode {image.mode}, expected one of L, RGB, RGBA; convert it")
    return to_array(converted(image, _CHANNELS[image.mode]) if image.mode in _CHANNELS else image)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    array = np.ascontiguousarray(np.moveaxis(pixels.astype(np.uint8), 0, -1))
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(content, "PNG")
    return content.getvalue()
