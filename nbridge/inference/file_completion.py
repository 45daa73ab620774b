"""Imputes files of any size in bounded memory, block by block, as a whole or in shards.

The file is read twice. The first pass checks all rows, so that an error in the last row is reported before any work, and decides whether
masks are per row, or per cell if some row is partially observed. The second pass imputes and writes each block of rows. The result is
bit-identical to that of `nbridge.inference.array_completion.impute_arrays` on all rows, and the concatenated shards are identical to the
whole.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from nbridge.common.atomic_files import scratch_beside, writing
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.omics.container import ENDINGS as OMICS
from nbridge.data.patterns import count
from nbridge.data.streaming.blocks import Block, Filled, Output, RowsIn, RowsOut
from nbridge.data.streaming.files import FOLDER, find_rows, open_rows
from nbridge.errors import DataError, require_positive
from nbridge.inference.array_completion import IMPUTED, check_intervals, in_place, summary_in_place
from nbridge.inference.file_plan import Plan, Progress, check_rows, make_plan, read_block
from nbridge.inference.impute import impute, rows_at_a_time
from nbridge.inference.intervals import BY_LEVEL, DRAWS, FIGURES, summarise
from nbridge.inference.served import Served
from nbridge.models.base import MultimodalVAE

BLOCK, BYTES = 8192, 2**24
"""Limits on the rows in memory at a time, and on their bytes as read and written; the tighter one applies."""


@dataclass(frozen=True)
class FileCompleted:
    """The result of `impute_file`.

    Arguments:
        start: The number of the first row written.
        stop: The number of the row after the last one written.
        total: The number of rows of the input file.
        imputed: The number of rows with imputed values, by modality.
        passed: The arrays or columns that were passed through.
        warnings: Warnings of missingness patterns that no training row had, and of contents that could not be preserved.
    """

    start: int
    stop: int
    total: int
    imputed: Mapping[str, int]
    passed: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ImputationOptions:
    """Imputation options.

    Arguments:
        samples: The number K of samples, or None for the point estimate.
        noise: Whether samples include the spread of the likelihood.
        seed: Random seed.
        intervals: Probabilities of central intervals.
        draws: The number of samples that intervals are computed from.
    """

    samples: int | None = None
    noise: bool = True
    seed: int = 0
    intervals: Sequence[float] = ()
    draws: int = DRAWS

    def check(self) -> None:
        """Checks that the options are valid and compatible.

        Raises:
            DataError: if they are not.
        """
        if self.samples is not None:
            require_positive(samples=self.samples)
        check_intervals(self.intervals, self.draws, self.samples)


@dataclass(frozen=True)
class _Filler:
    """Imputes blocks of rows."""

    model: MultimodalVAE
    plan: Plan
    keys: Mapping[str, str]
    options: ImputationOptions
    one_hot: Mapping[str, Sequence[tuple[int, int]]]

    def read(self, block: Block) -> Batch:
        """Converts a block to a batch."""
        return read_block(block, self.plan.taken, {name: likelihood.shape for name, likelihood in self.model.likelihoods.items()})

    def fill(self, block: Block, batch: Batch) -> dict[str, Filled]:
        """The columns to write, by key, each followed by its mask."""
        # A modality has cell masks in all blocks or in none.
        cells = {name: batch.cells.get(name, _whole_rows(batch, name)) for name in self.plan.in_part}
        rows = Batch(batch.values, batch.present, cells)
        options = self.options
        done = impute(
            self.model, rows, samples=options.samples, noise=options.noise, seed=options.seed, first=block.start, one_hot=self.one_hot
        )  # fmt: skip
        given = {name: block.arrays[key] for name, key in self.plan.taken.items() if name in self.keys}
        columns = in_place(done, given, options.samples)
        figures: dict[str, np.ndarray] = {}
        if options.intervals:
            summary = summarise(self.model, rows, levels=options.intervals, draws=options.draws, seed=options.seed, first=block.start)
            figures = summary_in_place(summary, done, given)
        filled = {}
        for name, key in self.keys.items():
            filled[key] = Filled(columns[name], 0 if options.samples is None else 1)
            filled[key + IMPUTED] = Filled(columns[name + IMPUTED])
            if options.intervals:
                filled |= self._figures(name, key, figures)
        return filled

    def _figures(self, name: str, key: str, figures: Mapping[str, np.ndarray]) -> dict[str, Filled]:
        """The summary columns of a modality; a leading axis of levels, if any, comes first."""
        return {
            f"{key}__{what}": Filled(figures[f"{name}__{what}"], int(what in BY_LEVEL and len(self.options.intervals) > 1))
            for what in FIGURES
            if f"{name}__{what}" in figures
        }


def impute_file(
    model: Served,
    source: str | Path,
    target: str | Path,
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    intervals: Sequence[float] = (),
    draws: int = DRAWS,
    shard: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> FileCompleted:
    """Imputes missing values in a file of any size: npz, a folder of npy files, Parquet or csv; or in an .h5mu or .h5ad file.

    A modality is missing in a row if all its values are NaN or null, if ``KEY__present`` is false, or if the file lacks it. The output has
    the format of the input: observed values bit-identical, in their dtype, layout and order, a mask ``KEY__imputed`` for each modality,
    and everything else unchanged. It is written atomically.

    In a Parquet file, a modality is a column of numbers or of fixed-length lists of numbers; K samples are lists of K of them. In a table
    of single values (csv, or Parquet with ``table``), a modality consists of columns: observed cells keep their exact text; the masks are
    ``NAME__imputed``, or ``COLUMN__imputed`` if some row has a partially observed modality; K samples are K rows, numbered in a column
    ``draw``; summaries are ``COLUMN__mean`` and so on. For .h5mu and .h5ad files, which are read whole, see `nbridge.data.omics.update`.

    Arguments:
        model: A trained model.
        source: The file or folder to read.
        target: The file or folder to write; an existing one is replaced.
        samples: The number K of samples, or None for the point estimate.
        noise: Whether samples include the spread of the likelihood.
        seed: Random seed.
        intervals: Probabilities of central intervals to write with the point estimate, as ``KEY__mean``, ``KEY__sd``, ``KEY__lower`` and
            ``KEY__upper``, or ``KEY__probability`` for classes: see `nbridge.inference.array_completion.impute_arrays`.
        draws: The number of samples that intervals are computed from.
        shard: The shard of rows to impute and write: its number, from 1, and the number of shards. Shards are multiples of
            `nbridge.inference.impute.rows_at_a_time`, and some are empty if there are more of them than such units. Arrays that pass
            through are cut as well if they have the same number of rows. All rows are checked, so that all shards have the same columns.
        progress: Progress callback: (stage, done, total).

    Raises:
        DataError: if the rows do not match the model, a file cannot be read or written, the shard does not exist, or a level is not a
            probability, needs more samples, or is combined with ``samples``.

    Example:
        >>> import nbridge, numpy as np, tempfile
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"},
        ...     "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/rows.npz", x=[[0.5, 1.0], [np.nan, np.nan]], y=[2, 1])
        ...     impute_file(Served(model), f"{folder}/rows.npz", f"{folder}/completed.npz").imputed
        {'x': 1, 'y': 0}
    """
    _check_shard(shard)
    binding = model.binding
    id_key = binding.id if binding.table is None else binding.table.id
    options = ImputationOptions(samples, noise, seed, intervals, draws)
    options.check()
    path, kind = find_rows(source)
    target = Path(target)
    if kind in OMICS and shard[1] > 1:
        raise DataError(f"{source}: {kind} files are written whole; leave the shard out")
    _check_target(path, kind, target)
    # The binding of MuData and AnnData has the location of each modality.
    named = {name: name if kind in OMICS else binding.keys.get(name, name) for name in model.names}
    omics = None if binding.omics is None else binding.omics.of(model.names)
    classes = {named[name]: texts for name, texts in binding.class_names.items()}
    sizes = {named[name]: math.prod(likelihood.shape) for name, likelihood in model.likelihoods.items()}
    with (
        writing(target, DataError),
        scratch_beside(target) as scratch,
        _blaming(source, path),
        open_rows(path, kind, sizes, scratch, binding.table, omics, intervals, classes) as rows,
    ):
        return complete(model, rows, partial(rows.writing, target), options, keys=named, id_key=id_key, shard=shard, progress=progress)


def complete(
    model: Served,
    rows: RowsIn,
    opened: Callable[[Output], AbstractContextManager[RowsOut]],
    options: ImputationOptions,
    *,
    keys: Mapping[str, str],
    id_key: str | None = None,
    shard: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> FileCompleted:
    """Imputes rows of any source: checks all rows, then reads, imputes and writes them block by block.

    Arguments:
        model: A trained model.
        rows: The rows.
        opened: Opens the output.
        options: Imputation options.
        keys: The array or column of each modality.
        id_key: The array or column of identifiers; None if rows are identified by position.
        shard: The shard of rows to impute: its number, from 1, and the number of shards.
        progress: Progress callback: (stage, done, total).

    Raises:
        DataError: if the rows do not match the model.
    """
    report = progress or (lambda *_: None)
    plan = make_plan(rows, model.likelihoods, keys, id_key)
    size = _rows_in_memory(rows, model.network, plan, options.samples, options.intervals)
    plan = check_rows(rows, model.likelihoods, plan, id_key, size, report)
    start, stop = shard_rows(plan.rows, rows_at_a_time(model.network, options.samples), shard)
    made = (IMPUTED, *(f"__{what}" for what in FIGURES if options.intervals))
    passed = tuple(key for key in plan.others if key not in {known + ending for known in keys.values() for ending in made})
    filler = _Filler(model.network, plan, keys, options, {name: rows.one_hot(keys[name]) for name in model.names})
    with opened(output := Output(passed, start, stop, plan.rows)) as out:
        counts, patterns = _write(rows, filler, out, output, size, report)
    return FileCompleted(start, stop, plan.rows, counts, passed, (*model.unseen(patterns), *rows.findings))


def parse_shard(text: str) -> tuple[int, int]:
    """Parses ``I/N``: the number of a shard, and the number of shards.

    Raises:
        DataError: if there is no such shard.

    Example:
        >>> parse_shard("2/4")
        (2, 4)
    """
    if not (found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise DataError(f"shard {text}: expected I/N, such as 1/4 for the first of four")
    number, of = (int(part) for part in found.groups())
    _check_shard((number, of))
    return number, of


def shard_rows(rows: int, unit: int, shard: tuple[int, int]) -> tuple[int, int]:
    """The first row of a shard and the row after its last.

    Arguments:
        rows: The total number of rows.
        unit: Shards are multiples of this number of rows.
        shard: The number of the shard, from 1, and the number of shards.

    Example:
        >>> [shard_rows(1000, 300, (i, 3)) for i in (1, 2, 3)]
        [(0, 300), (300, 600), (600, 1000)]
    """
    (number, of), units = shard, -(-rows // unit)
    start, stop = (units * part // of * unit for part in (number - 1, number))
    return start, min(rows, stop)


def _check_shard(shard: tuple[int, int]) -> None:
    number, of = shard
    if of < 1:
        raise DataError(f"shard {number}/{of}: expected I/N, such as 1/4 for the first of four")
    if not 1 <= number <= of:
        raise DataError(f"shard {number}/{of}: expected one from 1/{of} to {of}/{of}")


def _check_target(source: Path, kind: str, target: Path) -> None:
    if target.exists() and target.samefile(source):
        raise DataError(f"{target}: is the input file; choose another")
    if kind == FOLDER and target.is_dir() and (other := [file.name for file in target.iterdir() if file.suffix != ".npy"]):
        raise DataError(f"{target}: the folder contains other files ({sorted(other)[0]}); choose another")


@contextmanager
def _blaming(source: str | Path, path: Path) -> Iterator[None]:
    """Prefixes errors with the file name, unless they have it."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(f"{path}: ") else f"{source}: {error}") from error


def _rows_in_memory(rows: RowsIn, model: MultimodalVAE, plan: Plan, samples: int | None, intervals: Sequence[float]) -> int:
    """The number of rows in memory at a time: a multiple of `rows_at_a_time`."""
    read = rows.row_bytes([*plan.taken.values(), *plan.others], plan.rows)
    numbers = (samples or 1) + (2 + 2 * len(intervals) if intervals else 0)
    made = 4 * numbers * sum(math.prod(likelihood.shape) for likelihood in model.likelihoods.values())
    unit = rows_at_a_time(model, samples)
    return unit * max(1, min(BLOCK, BYTES // (read + made)) // unit)


def _write(rows: RowsIn, filler: _Filler, out: RowsOut, output: Output, size: int, report: Progress) -> tuple[dict[str, int], Counter[str]]:
    """Imputes and writes the rows of a shard; returns the number of rows imputed by modality, and the counts of their patterns."""
    counts, patterns = dict.fromkeys(filler.keys, 0), Counter[str]()
    columns = [*filler.plan.taken.values(), *out.needs]
    if output.start == output.stop:
        # An empty shard takes its schema from a row that is imputed but not written.
        (block,) = rows.blocks(columns, 0, 1, 1)
        shown = filler.fill(block, filler.read(block))
        empty = {key: Filled(filled.array.take([], filled.axis), filled.axis) for key, filled in shown.items()}
        out.write(block.none(), empty)
        return counts, patterns
    for block in rows.blocks(columns, output.start, output.stop, size):
        batch = filler.read(block)
        patterns += count(filler.model.names, batch.present)
        filled = filler.fill(block, batch)
        out.write(block, filled)
        for name, key in filler.keys.items():
            counts[name] += _rows_with_any(filled[key + IMPUTED].array)
        report("imputing", min(block.start + size, output.stop) - output.start, output.stop - output.start)
    return counts, patterns


def _rows_with_any(mask: np.ndarray) -> int:
    return int(mask.reshape(len(mask), -1).any(1).sum())


def _whole_rows(batch: Batch, name: str) -> Tensor:
    present = batch.present[name]
    return present.reshape(-1, *(1 for _ in batch.values[name].shape[1:])).expand(batch.values[name].shape)
