"""What is explored: a trained model, with rows that it has not seen where they are to be had.

Where they are not, the ranges of controls are taken from rows that the model draws itself, so that the page works all the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from nbridge.common.messages import clip
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.errors import DataError, RunError
from nbridge.inference.impute import embed, generate, which_observed
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import Run, open_run
from nbridge.spec.registry import FROM_PYTHON
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import load_model
from nbridge.visual.modality_kinds import brightness
from nbridge.visual.pca import Plane

MANY = 2000
"""Rows that ranges and maps are taken from, at most."""
NUMBERS = 2**23
"""Numbers that these rows hold, at most."""
FEWEST = 3
"""Rows below which there is no map."""
DRAWN = 256
"""Rows that a model draws to tell ranges where there are no others."""

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Ranges:
    r"""Where the elements of a modality lie, in its canonical form, each of shape \*shape; NaN of an element that no row has.

    Arguments:
        low: The smallest values.
        high: The largest values.
        mean: The means.
        sd: The standard deviations.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    sd: Tensor


@dataclass(frozen=True)
class Session:
    """A model that is explored.

    Arguments:
        model: The model, on the CPU.
        spec: Its spec.
        title: What it is called.
        rows: Rows to pick from; None where there are none to be had.
        split: Which rows they are.
        reason: Why there are none, in a line.
        train: Training rows, for ranges.
        ids: Identifiers of the rows, where they have any.
    """

    model: MultimodalVAE
    spec: Spec
    title: str
    rows: Rows | None = None
    split: str = ""
    reason: str = ""
    train: Rows | None = None
    ids: np.ndarray | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def alone(self, work: Callable[Given, Answer], *arguments: Given.args, **options: Given.kwargs) -> Answer:
        """Does work while no other thread does any: seeds and modes of a model are of the whole process."""
        with self._lock:
            return work(*arguments, **options)

    def row(self, number: int) -> Batch:
        """One row.

        Raises:
            DataError: when there are no rows, or none of this number.
        """
        if self.rows is None:
            raise DataError(f"there are no rows to pick from: {self.reason}")
        if not 0 <= number < len(self.rows):
            raise DataError(f"row {number}: no such row; the {self.split} split has rows 0 to {len(self.rows) - 1}")
        return self.rows.slice(number, number + 1)

    @cached_property
    def many(self) -> Batch | None:
        """The first rows, for a map."""
        return None if self.rows is None else self.rows.slice(0, self._most)

    @property
    def no_map(self) -> str:
        """Why there is no map; nothing where there is one."""
        if self.many is None:
            return f"no map: there are no rows to take it from ({self.reason})"
        if self.model.latent_dim < 2 or len(self.many) < FEWEST:
            return f"no map: it takes two latent dimensions and {FEWEST} rows or more"
        return ""

    @cached_property
    def codes(self) -> Tensor:
        """The posterior means of the first rows, from all that they have, shape (B, D)."""
        assert self.many is not None, "codes are of rows"
        return embed(self.model, self.many).mean

    @cached_property
    def plane(self) -> Plane | None:
        """The plane in which they vary most; None where `no_map` says why."""
        return None if self.no_map else Plane.through(self.codes)

    @cached_property
    def reference(self) -> tuple[Batch, ...]:
        """Rows that tell ranges, prepared: of training and the first ones to pick from, or drawn by the model."""
        known = [] if self.train is None else [self.train.sample(self._most)]
        known += [] if self.many is None else [self.many]
        if not known:
            known.append(Batch.complete(generate(self.model, DRAWN, noise=True)))
        return tuple(self.model.prepare(batch) for batch in known)

    def ranges(self, name: str) -> Ranges:
        """Where the elements of a modality lie in these rows."""
        if name not in self._ranges:
            self._ranges[name] = _ranges_of(self.reference, name)
        return self._ranges[name]

    def brightness(self, name: str) -> tuple[float, float]:
        """What is dark and what is bright in the images of a modality."""
        ranges = self.ranges(name)
        ends = torch.stack([ranges.low.nan_to_num(0.0), ranges.high.nan_to_num(1.0)])
        return brightness(self.model.likelihoods[name], ends)

    @cached_property
    def _ranges(self) -> dict[str, Ranges]:
        return {}

    @property
    def _most(self) -> int:
        return max(1, min(MANY, NUMBERS // sum(math.prod(likelihood.shape) for likelihood in self.model.likelihoods.values())))


def open_session(directory: str | Path) -> Session:
    """The model of a run folder, or of the model folder in it, with its rows where they can be read.

    Raises:
        RunError: when there is no finished model, or it is damaged.
    """
    folder = Path(directory)
    try:
        return replace(session_of(run := open_run(folder, device="cpu")), title=run.spec.name or folder.resolve().name)
    except (DataError, RunError) as error:
        model, spec, _ = load_model(folder)
        return Session(model, spec, spec.name or folder.resolve().name, reason=_without_advice(str(error), spec))


def session_of(run: Run) -> Session:
    """A run whose model and rows are in memory."""
    splits = run.splits
    held = {"test": (splits.test, splits.test_ids), "validation": (splits.validation, splits.validation_ids)}
    split, (rows, ids) = next((part for part in held.items() if part[1][0] is not None), ("train", (splits.train, splits.train_ids)))
    title = run.spec.name or (run.folder.name if run.folder is not None else "a run")
    return Session(run.model.network.cpu().eval(), run.spec, title, rows, split, train=splits.train, ids=ids)


def _without_advice(reason: str, spec: Spec) -> str:
    """A reason in a line, for a page on which no Python can be typed."""
    if spec.data.source.type in FROM_PYTHON:
        return "the rows of this run came from Python"
    return clip(reason.splitlines()[0], 300)


def _ranges_of(batches: tuple[Batch, ...], name: str) -> Ranges:
    x = torch.cat([batch.values[name] for batch in batches]).double()
    observed = torch.cat([_cells(batch, name) for batch in batches])
    number = observed.sum(0)
    never = number == 0
    mean = torch.where(observed, x, 0.0).sum(0) / number
    variance = torch.where(observed, (x - mean).square(), 0.0).sum(0) / number
    low, high = torch.where(observed, x, math.inf).amin(0), torch.where(observed, x, -math.inf).amax(0)
    return Ranges(*(torch.where(never, math.nan, figure) for figure in (low, high, mean, variance.sqrt())))


def _cells(batch: Batch, name: str) -> Tensor:
    """Which cells of a modality are observed, of the shape of its values."""
    observed, x = which_observed(batch, name), batch.values[name]
    return observed.reshape(*observed.shape, *(1 for _ in x.shape[observed.ndim :])).expand_as(x)
