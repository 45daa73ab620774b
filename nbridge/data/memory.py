"""Rows that are passed from Python: a spec without a source of its own."""

from __future__ import annotations

from collections.abc import Mapping

from nbridge.data.split import Dataset, Source
from nbridge.errors import DataError


class Memory(Source):
    """The source of a spec that names none: arrays come from Python."""

    def __init__(self) -> None: ...

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Has nothing to load.

        Raises:
            DataError: always, with the two ways to give rows.
        """
        raise DataError(
            "the spec names no data source: pass arrays from Python, nbridge.train(spec, data={...}) with "
            f"{', '.join(shapes)}, or add one to the spec, such as `data: {{source: npz, path: rows.npz}}`"
        )
