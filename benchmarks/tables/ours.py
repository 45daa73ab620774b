"""nbridge's entries, by its public functions alone.

============== =========================================================================================================================
nbridge        what ``nbridge init TABLE.csv`` writes, trained by ``nbridge train``, without a test part, as other rows are scored; with
               ``--set``, with these changes to the spec
imputer        ``NBridgeImputer()`` without groups: an array of numbers, of objects if some columns are text
spec           the spec ``benchmarks/tables/specs/TABLE.yaml``, if there is one, on the same file
============== =========================================================================================================================

Point estimates are those of ``impute``; draws, whose shares are the probabilities of classes, those of ``impute(samples=100)``.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

import nbridge
from benchmarks.tables.environments import UnavailableError
from benchmarks.tables.masks import Task
from benchmarks.tables.scores import Answer

SPECS = Path(__file__).resolve().parent / "specs"
DRAWS = 100


def drafted(task: Task, seed: int, changes: Sequence[str] = ()) -> Answer:
    """The spec that `nbridge.init` writes for the file of training rows, as it is or with changes."""
    return _by_spec(task, seed, lambda file: nbridge.init(file).text, changes)


def by_hand(task: Task, seed: int, changes: Sequence[str] = ()) -> Answer:
    """A bundled spec of the table.

    Raises:
        UnavailableError: if there is none.
    """
    path = SPECS / f"{task.table.name}.yaml"
    if not path.exists():
        raise UnavailableError(f"no spec {path.name} in benchmarks/tables/specs")
    return _by_spec(task, seed, lambda _: path.read_text(), changes)


def imputer(task: Task, seed: int, changes: Sequence[str] = ()) -> Answer:  # noqa: ARG001 (it has no spec to change)
    """`nbridge.NBridgeImputer` as it is."""
    train, rows = _objects(task, task.train), _objects(task, task.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = nbridge.NBridgeImputer(random_state=seed, device="cpu").fit(train)
        values = _indices(task, fitted.transform(rows))
        draws = np.stack([_indices(task, one) for one in fitted.sample(rows, DRAWS, seed=seed)])
    return Answer(values, draws)


def _by_spec(task: Task, seed: int, text: Callable[[Path], str], changes: Sequence[str]) -> Answer:
    with tempfile.TemporaryDirectory() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every, file, spec = Path(found) / f"{task.table.name}.csv", Path(found) / "train.csv", Path(found) / "spec.yaml"
        # Drafted from all rows, with their holes, as from a file that is to be filled in; trained on the training rows alone.
        csv.write_csv(task.table.arrow(np.concatenate([task.train, task.rows])), every)
        csv.write_csv(task.table.arrow(task.train), file)
        spec.write_text(text(every))
        settings = [f"data.path={file}", f"data.seed={seed}", f"training.seed={seed}", "data.test=0.0", *changes]
        model = nbridge.train(spec, overrides=settings, device="cpu").model
        rows = task.table.arrow(task.rows)
        values = task.table.read(model.impute(rows))
        drawn: pa.Table = model.impute(rows, samples=DRAWS, seed=seed)
    # The draws of a row follow each other.
    draws = task.table.read(drawn).reshape(len(values), DRAWS, -1).swapaxes(0, 1)
    return Answer(values, draws)


def _objects(task: Task, values: np.ndarray) -> np.ndarray:
    """Rows as a user has them in an array: texts as they are, all else numbers, NaN where missing."""
    columns = [
        [np.nan if np.isnan(x) else column.classes[int(x)] if column.classes else x for x in values[:, place]]
        for place, column in enumerate(task.table.columns)
    ]
    text = any(isinstance(value, str) for column in task.table.columns for value in column.classes)
    return np.array(columns, dtype=object if text else float).T


def _indices(task: Task, rows: np.ndarray) -> np.ndarray:
    """The opposite of `_objects`."""
    return task.table.read(pa.table({column.name: list(x) for column, x in zip(task.table.columns, rows.T, strict=True)}))


OURS: Mapping[str, Callable[[Task, int, Sequence[str]], Answer]] = {"nbridge": drafted, "imputer": imputer, "spec": by_hand}
