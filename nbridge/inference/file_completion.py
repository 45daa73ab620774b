"""Imputation of files of any size, in bounded memory: read, filled in and written block by block, or one shard of many.

The file is read twice. The first time everything is checked, so that a mistake in its last row is told before any work is done, and it is
decided what masks tell: rows, or cells where some row is observed in part. The second time each block of rows is filled in. The result is
that of `nbridge.inference.array_completion.impute_arrays` on all rows, bit for bit; shards put together are the whole.
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
"""Rows that are held in memory at a time, and bytes of them as they are read and written: bounds, of which the narrower counts."""


@dataclass(frozen=True)
class FileCompleted:
    """What `impute_file` wrote.

    Arguments:
        start: The number of the first row.
        stop: The number of the row after the last.
        total: The rows of the file that was read.
        imputed: By modality, in how many of the rows something was filled in.
        passed: The arrays or columns that passed through.
        warnings: That rows have patterns of presence that no training row had, and what of a file could not be kept as it was.
    """

    start: int
    stop: int
    total: int
    imputed: Mapping[str, int]
    passed: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ImputationOptions:
    """What is wanted of what is filled in, as `impute_file` has it.

    Arguments:
        samples: The number K of draws, or None for the point estimate.
        noise: Whether draws include the spread of the likelihood.
        seed: Seed of the draws.
        intervals: Probabilities of central intervals.
        draws: The number of draws that intervals are taken from.
    """

    samples: int | None = None
    noise: bool = True
    seed: int = 0
    intervals: Sequence[float] = ()
    draws: int = DRAWS

    def check(self) -> None:
        """Checks that they go together.

        Raises:
            DataError: when they do not.
        """
        if self.samples is not None:
            require_positive(samples=self.samples)
        check_intervals(self.intervals, self.draws, self.samples)


@dataclass(frozen=True)
class _Filler:
    """Fills in blocks of rows."""

    model: MultimodalVAE
    plan: Plan
    keys: Mapping[str, str]
    options: ImputationOptions
    one_hot: Mapping[str, Sequence[tuple[int, int]]]

    def read(self, block: Block) -> Batch:
        """The rows as the model takes them."""
        return read_block(block, self.plan.taken, {name: likelihood.shape for name, likelihood in self.model.likelihoods.items()})

    def fill(self, block: Block, batch: Batch) -> dict[str, Filled]:
        """The columns to write, by key, each with its mask behind it."""
        # Masks are of cells in all blocks, or in none.
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
        """The columns that describe a modality, each behind an axis of levels where it has one."""
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
    """Fills in what is absent from a file of any size: npz, a folder of npy files, Parquet, csv; or from an .h5mu or .h5ad file.

    Rows are absent where all is NaN or null, where ``KEY__present`` says so, and where the file lacks the modality. What is written is of
    the same kind: observed values bit-identical, in their type, layout and order, a mask ``KEY__imputed`` for each modality, and all else
    as it is. It is written whole or not at all. In a Parquet file a modality is a column of numbers or of lists of so many numbers; K
    draws are lists of K of them. In a table of single values, csv or Parquet with ``table``, a modality is some columns: what was observed
    is written as it stood, text and all; masks follow the columns, ``NAME__imputed``, or ``COLUMN__imputed`` where some row has a modality
    in part; K draws are K rows, told apart by a column ``draw``; figures are ``COLUMN__mean`` and so on. What becomes of an .h5mu or
    .h5ad file, which is read whole, tells `nbridge.data.omics.update`.

    Arguments:
        model: A trained model.
        source: The file or the folder to read.
        target: The one to write; an older one is replaced.
        samples: The number K of draws, or None for the point estimate.
        noise: Whether draws include the spread of the likelihood.
        seed: Seed of the draws.
        intervals: Probabilities of central intervals to write beside the point estimate, as ``KEY__mean``, ``KEY__sd``, ``KEY__lower`` and
            ``KEY__upper``, or ``KEY__probability`` for classes: see `nbridge.inference.array_completion.impute_arrays`.
        draws: The number of draws that intervals are taken from.
        shard: Which part of the rows to read, fill in and write: its number, from 1, and the number of parts. They are cut between rows
            that are served together (`nbridge.inference.impute.rows_at_a_time`); where there are more of them, some have no row. Arrays
            that pass through are cut where they have as many rows. All rows are checked in any case, so that all parts have the same
            columns.
        progress: Hears how far it is.

    Raises:
        DataError: when the rows don't fit the model, a file can't be read or written, there is no such part, or a level is no probability,
            needs more draws or meets samples.

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
    # Of MuData and AnnData the model knows where modalities lie.
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
    """Fills in rows of whatever kind: checks all of them, and then reads, fills in and writes block by block.

    Arguments:
        model: A trained model.
        rows: The rows.
        opened: Opens what is written.
        options: What is wanted of what is filled in.
        keys: The array or column of each modality.
        id_key: The array or column of identifiers; None where rows are told by their place.
        shard: Which part of the rows to fill in.
        progress: Hears how far it is.

    Raises:
        DataError: when the rows don't fit the model.
    """
    tell = progress or (lambda *_: None)
    plan = make_plan(rows, model.likelihoods, keys, id_key)
    size = _rows_in_memory(rows, model.network, plan, options.samples, options.intervals)
    plan = check_rows(rows, model.likelihoods, plan, id_key, size, tell)
    start, stop = shard_rows(plan.rows, rows_at_a_time(model.network, options.samples), shard)
    made = (IMPUTED, *(f"__{what}" for what in FIGURES if options.intervals))
    passed = tuple(key for key in plan.others if key not in {known + ending for known in keys.values() for ending in made})
    filler = _Filler(model.network, plan, keys, options, {name: rows.one_hot(keys[name]) for name in model.names})
    with opened(output := Output(passed, start, stop, plan.rows)) as out:
        counts, patterns = _write(rows, filler, out, output, size, tell)
    return FileCompleted(start, stop, plan.rows, counts, passed, (*model.unseen(patterns), *rows.findings))


def parse_shard(text: str) -> tuple[int, int]:
    """The number of a shard and the number of all, of ``i/n``.

    Raises:
        DataError: when there is no such shard.

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
        rows: The number of all rows.
        unit: The number of rows between two places where they may be cut.
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
        raise DataError(f"{target}: the file that is read; choose another, so that it stays as it is")
    if kind == FOLDER and target.is_dir() and (other := [file.name for file in target.iterdir() if file.suffix != ".npy"]):
        raise DataError(f"{target}: a folder that holds other things than arrays ({sorted(other)[0]}); choose another")


@contextmanager
def _blaming(source: str | Path, path: Path) -> Iterator[None]:
    """Puts the file before a mistake in it, where it is not there yet."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(f"{path}: ") else f"{source}: {error}") from error


def _rows_in_memory(rows: RowsIn, model: MultimodalVAE, plan: Plan, samples: int | None, intervals: Sequence[float]) -> int:
    """How many rows are held in memory at a time: a multiple of those that are served together."""
    read = rows.row_bytes([*plan.taken.values(), *plan.others], plan.rows)
    numbers = (samples or 1) + (2 + 2 * len(intervals) if intervals else 0)
    made = 4 * numbers * sum(math.prod(likelihood.shape) for likelihood in model.likelihoods.values())
    unit = rows_at_a_time(model, samples)
    return unit * max(1, min(BLOCK, BYTES // (read + made)) // unit)


def _write(rows: RowsIn, filler: _Filler, out: RowsOut, output: Output, size: int, tell: Progress) -> tuple[dict[str, int], Counter[str]]:
    """Fills in and writes the rows of a shard; counts by modality in how many of them something was filled in, and their patterns."""
    counts, patterns = dict.fromkeys(filler.keys, 0), Counter[str]()
    columns = [*filler.plan.taken.values(), *out.needs]
    if output.start == output.stop:
        # A row that is not written shows what the columns of a shard without rows look like.
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
        tell("imputing", min(block.start + size, output.stop) - output.start, output.stop - output.start)
    return counts, patterns


def _rows_with_any(mask: np.ndarray) -> int:
    return int(mask.reshape(len(mask), -1).any(1).sum())


def _whole_rows(batch: Batch, name: str) -> Tensor:
    present = batch.present[name]
    return present.reshape(-1, *(1 for _ in batch.values[name].shape[1:])).expand(batch.values[name].shape)
