"""A data format of your own, in one file: WebDataset tars, whose samples are files KEY.NAME.npy.

A modality is missing in a sample that has no file of its name. A draft comes from `schema`, training rows from `load`, and imputation reads
`blocks` and writes with a `RowWriter`: `nbridge.init`, `train` and `impute` take such tars as they take built-in formats.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.atomic_files import replacing
from nbridge.data.arrays import to_batch
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.folders import find_file
from nbridge.data.imputed import Imputed
from nbridge.data.output_names import named_arrays
from nbridge.data.schema import ArraysSchema
from nbridge.data.source import Binding, DataSource, Shapes, check_not_input, is_path
from nbridge.data.split import Dataset
from nbridge.errors import DataError, naming


class Samples(RowReader):
    """The samples of a tar, read on demand: memory holds the positions of their files alone."""

    noun = "field"

    def __init__(self, tar: tarfile.TarFile, names: Iterable[str]) -> None:
        self.tar, self.files = tar, {tuple(file.name.split(".")): file for file in tar if file.name.endswith(".npy")}
        self.samples = list(dict.fromkeys(key for key, *_ in self.files))
        self.keys, self.names = tuple(dict.fromkeys(field for _, field, _ in self.files)), {name: name for name in names}
        self.like = {field: self.read(next(file for file in self.files if file[1] == field)) for field in self.keys}

    def read(self, file: tuple[str, ...]) -> np.ndarray:
        try:
            return np.load(io.BytesIO(self.tar.extractfile(self.files[file]).read()), allow_pickle=False)  # pyright: ignore[reportOptionalMemberAccess]
        except (ValueError, EOFError, OSError, tarfile.TarError) as error:
            raise DataError(f"{'.'.join(file)} is damaged ({error})") from error

    def array(self, field: str, start: int, stop: int | None = None) -> np.ndarray:
        """Rows of a field, NaN where a sample lacks it."""
        blank = np.full(self.like[field].shape, np.nan, self.layout(field).dtype)
        files = [(key, field, "npy") for key in self.samples[start:stop]]
        rows = [self.read(file) if file in self.files else blank for file in files]
        if wrong := next((file for file, row in zip(files, rows, strict=True) if row.shape != blank.shape), None):
            raise DataError(f"{'.'.join(wrong)}: another shape than in {self.samples[0]}, {blank.shape}")
        return np.stack(rows).astype(blank.dtype)

    def layout(self, key: str) -> Layout:
        return Layout(np.result_type(self.like[key].dtype, np.float32), (len(self.samples), *self.like[key].shape))

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        return sum(8 * self.like[key].size for key in keys)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        for first in range(start, stop, size):
            yield Block(first, {key: self.array(key, first, min(first + size, stop)) for key in keys})

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:  # noqa: ARG002
        with replacing(Path(str(target))) as temporary, tarfile.open(temporary, "w") as tar:
            yield SampleWriter(self, tar)


class SampleWriter(RowWriter):
    """Copies each sample, and adds its imputed values, KEY.NAME.npy, and their masks, KEY.NAME__imputed.npy."""

    def __init__(self, samples: Samples, tar: tarfile.TarFile) -> None:
        self.input, self.tar = samples, tar

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        arrays = {name: np.moveaxis(array, axis, 0) for name, array, axis in named_arrays(imputed, self.input.names)}
        for row, key in enumerate(self.input.samples[block.start : block.start + len(imputed)]):
            added = {name for name in arrays if name not in imputed.mask or imputed.mask[name][row].any()}
            for field in self.input.keys:
                if field not in added and (file := self.input.files.get((key, field, "npy"))):
                    self.tar.addfile(file, self.input.tar.extractfile(file))
            for name in added:
                add(self.tar, f"{key}.{name}.npy", arrays[name][row])


class WebDataset(DataSource):
    """Samples of a WebDataset tar.

    Arguments:
        path: The tar: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
    """

    ending = ".tar"

    def __init__(self, *, path: str) -> None:
        self.path = self.origin = path

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:  # noqa: ARG003
        return is_path(rows) and str(rows).endswith(".tar")

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> WebDataset:  # noqa: ARG003
        return cls(path=str(rows))

    @contextmanager
    def opened(self, names: Iterable[str] = ()) -> Iterator[Samples]:
        with naming(self.origin, path := find_file(self.path)):
            try:
                with tarfile.open(path, "r:") as tar:
                    yield Samples(tar, names)
            except tarfile.TarError as error:
                raise DataError(f"not a tar, or truncated or damaged ({error})") from error

    @contextmanager
    def schema(self) -> Iterator[ArraysSchema]:
        with self.opened() as samples:
            source = {"source": "webdataset_source:WebDataset", "path": self.path}
            yield ArraysSchema(Path(self.path).stem, source, self.path, arrays={field: samples.array(field, 0) for field in samples.like})

    def load(self, shapes: Shapes) -> Dataset:
        with self.opened() as samples:
            arrays = {name: samples.array(name, 0) for name in shapes if name in samples.like}
            return Dataset(to_batch(arrays, shapes), np.array(samples.samples), origin=self.path)

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002
        with self.opened(binding.taken) as samples:
            yield samples

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: ARG002
        check_not_input(target, find_file(self.path))


def add(tar: tarfile.TarFile, name: str, value: np.ndarray) -> None:
    np.save(content := io.BytesIO(), value)
    info = tarfile.TarInfo(name)
    info.size = content.tell()
    content.seek(0)
    tar.addfile(info, content)
