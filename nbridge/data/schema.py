"""What raw data hold: the columns, arrays or matrices from which a first spec is drafted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nbridge.data.images.sets import ImageSet
from nbridge.data.omics.container import Omics
from nbridge.data.tables.columns import TableFile


@dataclass(frozen=True, eq=False)
class DataSchema:
    """Raw data. A format gives one of its subclasses.

    Arguments:
        name: A name for the spec.
        source: The data source in the spec, and its options so far: ``{"source": "npz", "path": "rows.npz"}``.
        where: The file or object, for messages.
        from_python: Whether the data are passed from Python.
    """

    name: str
    source: Mapping[str, object]
    where: str
    from_python: bool = False


@dataclass(frozen=True, eq=False)
class ColumnsSchema(DataSchema):
    """Tables of named columns, and sets of images, which are joined on identifiers if there are several.

    Arguments:
        tables: The tables.
        images: Sets of images in folders.
    """

    tables: Sequence[TableFile] = ()
    images: Sequence[ImageSet] = ()


@dataclass(frozen=True, eq=False)
class ArraysSchema(DataSchema):
    """Named arrays, rows first: numbers, or one text a row.

    Arguments:
        arrays: The arrays by name, in any number of dimensions; ``NAME__present`` is the presence mask of another one.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OmicsSchema(DataSchema):
    """Matrices of observations by variables, and columns that describe observations.

    Arguments:
        omics: A MuData or AnnData object, whose elements are read on demand.
    """

    omics: Omics | None = None
