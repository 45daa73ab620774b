"""A task's rows as a data source with a fixed split, so that a run is `nbridge.train` of a spec."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from benchmarks.suite.tasks import TASKS, split_of
from nbridge.data.batch import Batch
from nbridge.data.source import DataSource
from nbridge.data.split import Dataset
from nbridge.spec.option_types import Seed


class TaskRows(DataSource):
    """The rows of a task of the suite.

    Arguments:
        task: Its name.
        seed: The seed of its split.
    """

    def __init__(self, *, task: str, seed: Seed = 0) -> None:
        self.task = task
        self.seed = seed

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """The requested modalities, and each row's part."""
        splits = split_of(TASKS[self.task], self.seed)
        named = {name: part.sample().select(*shapes) for name, part in vars(splits).items() if isinstance(part, Batch)}
        batch = together(list(named.values()))
        return Dataset(batch, part=np.repeat(list(named), [len(part) for part in named.values()]))


def together(parts: list[Batch]) -> Batch:
    """The rows of several batches, one after the other; all cells of a part without a mask of cells are observed."""
    first = parts[0]
    cells = {name for part in parts for name in part.cells}
    masks = {name: [part.cells.get(name, torch.ones_like(part.values[name], dtype=torch.bool)) for part in parts] for name in cells}
    return Batch(
        {name: torch.cat([part.values[name] for part in parts]) for name in first.names},
        {name: torch.cat([part.present[name] for part in parts]) for name in first.names},
        {name: torch.cat(mask) for name, mask in masks.items()},
    )
