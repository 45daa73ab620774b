"""Imputes rows of any format in bounded memory, block by block, as a whole or in shards.

Rows are read twice. The first pass checks all of them, so that an error in the last row is reported before any work, and decides whether
masks are per row, or per cell if some row is partially observed. The second pass imputes and writes each block of rows. The result does not
depend on the size of blocks, bit for bit, and the concatenated shards are identical to the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nbridge.common.atomic_files import scratch_beside, writing
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.blocks import Block, Output, RowReader, RowWriter
from nbridge.data.covariates import same_rows
from nbridge.data.imputed import Imputed, take
from nbridge.data.marks import as_marks, imputed_before, in_shape, rows_marked
from nbridge.data.output_names import written_names
from nbridge.data.patterns import count
from nbridge.data.remote import delivered
from nbridge.data.source import DataSource, are_paths, is_path, open_data, paths_of
from nbridge.errors import DataError
from nbridge.inference.impute import check_size, impute, rows_at_a_time
from nbridge.inference.intervals import summarise
from nbridge.inference.layout import in_layout
from nbridge.inference.options import ImputationOptions, Shard
from nbridge.inference.plan import Plan, Progress, check_rows, make_plan, read_block, with_sizes
from nbridge.inference.served import Served
from nbridge.models.base import MultimodalVAE

BLOCK, BYTES = 8192, 2**24
"""Limits on the rows in memory at a time, and on their bytes as read and written; the tighter one applies."""


@dataclass(frozen=True)
class Completed:
    """The result of `impute_rows`.

    Arguments:
        start: The number of the first row written.
        stop: The number of the row after the last one written.
        imputed: The number of rows with imputed values, by modality.
        passed: The arrays or columns that were passed through.
        warnings: Warnings of missingness patterns that no training row had, and of contents that could not be preserved.
        earlier: The number of rows with values that an earlier imputation filled, by modality, where there are any; they stay marked.
        appended: The number of rows that were appended to each input table that lacked some.
        result: The completed object, for rows in memory.
        flags: The masks of a completed data frame, if asked for.
    """

    start: int
    stop: int
    total: int
    imputed: Mapping[str, int]
    passed: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()
    files: tuple[Path, ...] = field(default=(), compare=False)
    appended: Mapping[str, int] = field(default_factory=dict)
    earlier: Mapping[str, int] = field(default_factory=dict)
    result: Any = field(default=None, compare=False, repr=False)
    flags: Any = field(default=None, compare=False, repr=False)


def impute_rows(
    model: Served, rows: Any, out: str | PathLike[str] | None = None, options: ImputationOptions | None = None,
    *, shard: Shard | None = None, mask: bool = False, progress: Progress | None = None,
) -> Completed:  # fmt: skip
    """Imputes missing values in rows of any format; the completed rows are of the same format.

    A modality is missing in a row if all its values are NaN or null, if ``NAME__present`` is false, or if the rows lack it altogether.
    Observed values are bit-identical in the output, in their dtype, layout and order, and everything else is unchanged. Files are written
    atomically. Rows are a path, a list of paths to join, an object that `nbridge.data.source.open_data` takes, or a source; options are
    those of `nbridge.Model.impute`. Shards are multiples of `nbridge.inference.impute.rows_at_a_time`, and some are empty if there are more
    of them than such units. Arrays that pass through are cut as well if they have the same number of rows. All rows are checked, so that
    all shards have the same columns.

    Raises:
        DataError: if the rows do not match the model, files cannot be read or written, or options contradict each other.

    Example:
        >>> import nbridge, numpy as np
        >>> network = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"},
        ...     "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> done = impute_rows(Served(network), {"x": [[0.5, 1.0], [np.nan, np.nan]], "y": [2.0, 1.0]})
        >>> done.imputed, done.result["x"][0], done.result["x__imputed"]
        ({'x': 1, 'y': 0}, array([0.5, 1. ]), array([False,  True]))
    """
    options, shard = options or ImputationOptions(), shard or Shard()
    options.check()
    if out is None and are_paths(rows):
        first = next(iter(paths_of(rows)), "rows")
        raise DataError(f"{first}: rows in files need out, the {'file' if is_path(rows) else 'folder'} to write")
    source = open_data(rows, model.binding.own)
    if mask and source.mask_names:
        raise DataError(f"mask is for data frames; {source.mask_names}")
    with delivered(out) as local, _opened(model, source, local, shard) as (reader, target):
        fixed = model.fixed(options.covariates)
        given = _Covariates(model.covariates_in(source, fixed), fixed)
        done, writer = _complete(model, reader, target, options, shard, progress or (lambda *_: None), given)
        return replace(done, result=writer.result if target is None else None, flags=writer.flags if mask else None)


@contextmanager
def _opened(model: Served, source: DataSource, out: str | PathLike[str] | None, shard: Shard) -> Iterator[tuple[RowReader, Path | None]]:
    """Checks the output and opens the rows."""
    if source.in_memory:
        if out is not None or shard.of > 1:
            raise DataError(f"{'shard' if out is None else 'out'} is for rows in files; rows in memory are returned")
        with source.blocks(model.binding, Path()) as reader:
            yield reader, None
        return
    assert out is not None
    target = Path(out)
    source.check_output(target, sharded=shard.of > 1)
    with writing(target, DataError), scratch_beside(target) as scratch, source.blocks(model.binding, scratch) as reader:
        yield reader, target


def _complete(
    model: Served, rows: RowReader, target: Path | None, options: ImputationOptions, shard: Shard, report: Progress, given: _Covariates
) -> tuple[Completed, RowWriter]:
    plan = make_plan(rows, model.likelihoods)
    check_size(model.network, *(("draws", options.draws) if options.intervals else ("samples", options.samples or 1)))
    size = _rows_in_memory(rows, model.network, plan, options.samples, options.intervals)
    plan = check_rows(rows, model.likelihoods, plan, size, report)
    same_rows(given.own, plan.rows)
    start, stop = shard.rows(plan.rows, rows_at_a_time(model.network, options.samples))
    made = written_names([*rows.names.values()], statistics=bool(options.intervals))
    output = Output(
        tuple(key for key in plan.others if key not in made), start, stop, plan.rows, options.samples, statistics=bool(options.intervals)
    )
    imputer = _Imputer(model.network, plan, options, {name: rows.one_hot(name) for name in model.names}, given)
    with rows.writing(target, output) as writer:
        counts, earlier, patterns = _write(rows, imputer, writer, output, size, report)
    files = () if target is None else tuple(target / name for name in rows.file_names) or (target,)
    before = imputed_before(earlier, "they count as observed in this imputation, and stay marked")
    warnings = (*before, *model.unseen(patterns), *rows.findings)
    done = Completed(start, stop, plan.rows, counts, output.passed, warnings, files, rows.appended, dict(+earlier))
    return done, writer


@dataclass(frozen=True)
class _Covariates:
    """The covariates of all rows, and those that decoders are given instead."""

    own: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]

    def of(self, batch: Batch, start: int) -> Batch:
        """Some rows with their own covariates, and fixed ones where the file has none."""
        own = {name: x[start : start + len(batch)] for name, x in self.own.items()}
        return batch.with_covariates({**self.fixed, **own}) if own or self.fixed else batch


@dataclass(frozen=True)
class _Imputer:
    """Imputes blocks of rows."""

    model: MultimodalVAE
    plan: Plan
    options: ImputationOptions
    one_hot: Mapping[str, Sequence[tuple[int, int]]]
    covariates: _Covariates

    def read(self, block: Block) -> Batch:
        """Converts a block to a batch."""
        batch = self.covariates.of(read_block(block, self.plan.taken, self.model.likelihoods), block.start)
        return with_sizes(self.model.likelihoods, batch, block.start)

    def impute(self, block: Block, batch: Batch) -> Imputed[np.ndarray]:
        """The completed rows, in the dtype and the layout of the block."""
        # A modality has cell masks in all blocks or in none.
        cells = {name: batch.cells.get(name, _whole_rows(batch, name)) for name in self.plan.in_part}
        rows, options = replace(batch, cells=cells), self.options
        fixed = self.covariates.fixed
        imputed = impute(
            self.model, rows, samples=options.samples, noise=options.noise, seed=options.seed, first=block.start, one_hot=self.one_hot,
            covariates=fixed,
        )  # fmt: skip
        if options.intervals:
            summary = summarise(
                self.model, rows, levels=options.intervals, draws=options.draws, seed=options.seed, first=block.start, covariates=fixed
            )
            imputed = replace(imputed, statistics=summary)
        given = {name: block.arrays[key] for name, key in self.plan.taken.items() if name in self.model.names}
        earlier = {name: in_shape(as_marks(key, block.with_nan(key)), given[name].shape) for name, key in self.plan.marks.items()}
        return replace(in_layout(imputed, given), earlier=earlier)


def _rows_in_memory(rows: RowReader, model: MultimodalVAE, plan: Plan, samples: int | None, intervals: Sequence[float]) -> int:
    """The number of rows in memory at a time: a multiple of `rows_at_a_time`."""
    read = rows.row_bytes([*plan.taken.values(), *plan.others], plan.rows)
    numbers = (samples or 1) + (2 + 2 * len(intervals) if intervals else 0)
    made = 4 * numbers * sum(likelihood.numbers for likelihood in model.likelihoods.values())
    unit = rows_at_a_time(model, samples)
    return unit * max(1, min(BLOCK, BYTES // (read + made)) // unit)


def _write(
    rows: RowReader, imputer: _Imputer, writer: RowWriter, output: Output, size: int, report: Progress
) -> tuple[dict[str, int], Counter[str], Counter[str]]:
    """Imputes and writes the rows of a shard; returns the number of rows imputed by modality, now and before, and those of each pattern."""
    counts, earlier, patterns = dict.fromkeys(rows.names, 0), Counter[str](), Counter[str]()
    columns = [*imputer.plan.taken.values(), *imputer.plan.marks.values(), *writer.needs]
    if output.start == output.stop:
        # An empty shard takes its schema from a row that is imputed but not written.
        (block,) = rows.blocks(columns, 0, 1, 1)
        writer.write(block.none(), take(imputer.impute(block, imputer.read(block)), np.zeros(0, dtype=np.int64)))
        return counts, earlier, patterns
    for block in rows.blocks(columns, output.start, output.stop, size):
        batch = imputer.read(block)
        patterns += count(imputer.model.names, batch.present)
        imputed = imputer.impute(block, batch)
        writer.write(block, imputed)
        for name, mask in imputed.mask.items():
            counts[name] += rows_marked(mask)
        earlier.update({name: rows_marked(marks) for name, marks in imputed.earlier.items()})
        report("imputing", min(block.start + size, output.stop) - output.start, output.stop - output.start)
    return counts, earlier, patterns


def _whole_rows(batch: Batch, name: str) -> Tensor:
    present = batch.present[name]
    return present.reshape(-1, *(1 for _ in batch.values[name].shape[1:])).expand(batch.values[name].shape)
