"""The rows that a stage learns from, with what frozen modules make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nbridge.acceleration.features import cached
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.models.base import Features, Stage

CHUNK = 2048
"""Rows at a time where no gradient is taken."""


@dataclass(frozen=True)
class Part:
    """A few rows, in memory, with their frozen features.

    Arguments:
        batch: The rows.
        features: Features kept for them; none where they are computed on the fly.
    """

    batch: Batch
    features: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class StageRows:
    """The rows that one stage learns from, with their frozen features.

    Arguments:
        stage: The stage.
        batch: The rows.
        features: Features with a row each; none where they are computed on the fly.
    """

    stage: Stage
    batch: Rows
    features: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, stage: Stage, rows: Rows, *, cache: bool) -> Self:
        """The rows that can teach a stage something.

        Arguments:
            stage: The stage.
            rows: Prepared rows.
            cache: Whether frozen features are computed here, once.
        """
        batch = rows.subset(stage.rows(rows.presence()))
        # Looked at once, here: what is picked from these rows takes over the answer.
        _ = batch.whole
        given = cls(stage, batch, {})
        if stage.features is None or not cache or not len(batch):
            return given
        features = cached((stage.features(given.chunk(number).batch) for number in range(given.chunks)), len(batch))
        unread = [] if stage.values is None else [name for name in batch.names if name not in stage.values]
        return cls(stage, batch.without_values(*unread), features)

    def __len__(self) -> int:
        return len(self.batch)

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Part]:
        """The rows of each index, one after the other."""
        for part, batch in zip(parts, self.batch.batches(parts), strict=True):
            # Features too large for the device come from where they lie.
            features = {name: x.index_select(0, part.to(x.device)).to(batch.device) for name, x in self.features.items()}
            yield Part(batch, features)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return math.ceil(len(self) / CHUNK)

    def chunk(self, number: int) -> Part:
        """A chunk of rows, in their own order."""
        start, stop = number * CHUNK, (number + 1) * CHUNK
        batch = self.batch.slice(start, stop)
        return Part(batch, {name: x[start:stop].to(batch.device) for name, x in self.features.items()})

    def features_of(self, part: Part) -> Features:
        """The features of some rows: those that are kept, or computed now."""
        if self.stage.features is None or part.features:
            return part.features
        with torch.no_grad():
            return self.stage.features(part.batch)
