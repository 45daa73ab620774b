"""AnnData and MuData objects, in .h5ad and .h5mu files or in memory, as parts whose elements are read on demand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.endings import OMICS as ENDINGS
from nbridge.data.endings import has_ending
from nbridge.data.omics.integrity import check_element, check_file, check_sparse, open_hdf5, reading, reason_of
from nbridge.data.omics.layout import SLOTS
from nbridge.data.texts import text_array
from nbridge.errors import DataError

BY_OBSERVATION = ("X", "layers", "obsm", "obsp", "raw/X")
"""The slots with one row per observation, other than obs."""
_DICTS = ("layers", "obsm", "obsp", "varm", "varp")


def anndata_of() -> Any:
    """Imports anndata.

    Raises:
        DataError: when it is not installed.
    """
    try:
        import anndata.io
        import h5py  # noqa: F401 (anndata's file readers)
    except ImportError as error:
        raise DataError('.h5mu and .h5ad files are read by anndata, which is not installed: pip install "nbridge[omics]"') from error
    return anndata


def pandas_of() -> Any:
    """Imports pandas, a dependency of anndata."""
    import pandas

    return pandas


@contextmanager
def pulling_nothing() -> Iterator[None]:
    """Context manager that stops MuData objects from pulling columns from their modalities, which would warn."""
    import mudata

    with mudata.set_options(pull_on_update=False):
        yield


def copied(data: Any) -> Any:
    """A deep copy of a MuData or AnnData object; a view becomes an object of its own."""
    if not hasattr(data, "mod"):
        return data.copy()
    with pulling_nothing():
        return data.copy()


def is_omics(data: object) -> bool:
    """Whether something is an AnnData or MuData object, without importing either library."""
    kinds = [getattr(sys.modules.get(module), name, None) for module, name in (("anndata", "AnnData"), ("mudata", "MuData"))]
    return isinstance(data, tuple(kind for kind in kinds if isinstance(kind, type)))


def is_omics_file(path: str | Path) -> bool:
    """Whether a file is an AnnData or MuData file, by its ending."""
    return has_ending(path, *ENDINGS)


@dataclass(frozen=True)
class Part:
    """A table of observations: an AnnData object, or the top level of a MuData object.

    Arguments:
        name: The modality in a MuData object; empty for its top level, and for AnnData.
        where: Its name in messages.
        elements: The paths of elements with one row per observation, ``X`` or ``layers/counts``.
        get: Reads an element.
    """

    name: str
    where: str
    elements: tuple[str, ...]
    get: Callable[[str], Any]

    def read(self, path: str) -> Any:
        """Reads an element: an array, a sparse matrix or a data frame.

        Raises:
            DataError: when it can't be read, is damaged, or has not one row per observation.
        """
        value, what = self.get(path), f"{self.where}: {path}"
        if hasattr(value, "tocsr"):
            check_sparse(what, value)
        if path.startswith(BY_OBSERVATION) and (shape := getattr(value, "shape", None)) is not None:
            count = len(self.obs)
            if shape[:1] != (count,) or (path.startswith("obsp/") and shape[1:] != (count,)):
                raise DataError(f"{what} is of shape {shape} for {count} observations")
        return value

    @cached_property
    def obs(self) -> Any:
        """The data frame of observations."""
        return self._frame("obs")

    @cached_property
    def var(self) -> Any:
        """The data frame of variables."""
        return self._frame("var")

    @cached_property
    def names(self) -> np.ndarray:
        """The names of observations.

        Raises:
            DataError: when one is duplicate.
        """
        return _names(self.obs, f"{self.where}: obs_name", "obs_names_make_unique()")

    @cached_property
    def variables(self) -> np.ndarray:
        """The names of variables.

        Raises:
            DataError: when one is duplicate.
        """
        return _names(self.var, f"{self.where}: var_name", "var_names_make_unique()")

    def _frame(self, path: str) -> Any:
        frame = self.read(path)
        if not hasattr(frame, "columns") or not hasattr(frame, "index"):
            raise DataError(f"{self.where}: {path} is not a data frame (anndata before 0.7); read the file and write it again")
        return frame


@dataclass(frozen=True)
class Omics:
    """An AnnData object, or a MuData object with its modalities by name.

    The ``origin`` is the file, or a description of an object in memory; ``whole`` is the top level of MuData, and all of AnnData.
    """

    origin: str
    whole: Part
    parts: Mapping[str, Part]

    @property
    def where(self) -> str:
        """What the modalities are read from, for messages."""
        return "a MuData object" if self.parts else "an AnnData object"

    def part(self, name: str) -> Part | None:
        """The modality of a MuData object, or its top level for an empty name; None if there is none."""
        return self.parts.get(name) if name else self.whole

    def rows_of(self, part: Part) -> np.ndarray:
        """The row of each observation in a part, (N,), -1 where the part lacks it.

        Raises:
            DataError: when a part has an observation that the top level lacks.
        """
        if part is self.whole:
            return np.arange(len(part.names))
        known = {name: row for row, name in enumerate(part.names.tolist())}
        rows = np.array([known.get(name, -1) for name in self.whole.names.tolist()], dtype=np.int64)
        if (rows >= 0).sum() != len(known):
            lacking = sorted(known.keys() - set(self.whole.names.tolist()))[0]
            raise DataError(
                f"{part.where}: observation {clip(lacking)!r} is missing from the top level of the object; mdata.update() fixes it"
            )
        return rows


@contextmanager
def opened(path: Path) -> Iterator[Omics]:
    """Opens a file as a context manager.

    Raises:
        DataError: when it can't be read, is damaged, or is neither AnnData nor MuData.
    """
    with opened_file(path) as file:
        with reading(path):
            omics = _of_file(path, file)
        yield omics


@contextmanager
def opened_file(path: Path) -> Iterator[Any]:
    """Opens an HDF5 file as a context manager.

    Raises:
        DataError: when it can't be read or is damaged.
    """
    anndata_of()
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    check_file(path)
    with open_hdf5(path) as file:
        yield file


def omics_of(data: Any) -> Omics:
    """Wraps an object in memory; its elements are not copied.

    Raises:
        DataError: when a MuData object shares variables instead of observations.
    """
    if hasattr(data, "mod"):
        _check_axis("MuData object", int(data.axis))
        _check_names("MuData object", data.mod)
        parts = {name: _of_object(name, f"MuData object: modality {name!r}", one) for name, one in data.mod.items()}
        return Omics("MuData object", _of_object("", "MuData object", data, parts), parts)
    return Omics("AnnData object", _of_object("", "AnnData object", data), {})


def _of_file(path: Path, file: Any) -> Omics:
    kind = file.attrs.get("encoding-type", "")
    if "obs" not in file:
        found = clip(", ".join(file), 100) or "nothing"
        raise DataError(f"{path}: an HDF5 file that holds no AnnData or MuData object: no obs in it. Found: {found}")
    if kind != "MuData" and "mod" not in file:
        return Omics(str(path), _of_group("", str(path), file), {})
    _check_axis(str(path), int(file.attrs.get("axis", 0)))
    _check_names(str(path), file["mod"])
    order = [str(name) for name in file["mod"].attrs.get("mod-order", list(file["mod"])) if name in file["mod"]]
    parts = {name: _of_group(name, f"{path}: modality {name!r}", file["mod"][name]) for name in order}
    return Omics(str(path), _of_group("", str(path), file, parts), parts)


def _check_names(where: str, parts: Iterable[str]) -> None:
    if (name := next((name for name in parts if name in SLOTS), None)) is not None:
        raise DataError(
            f"{where}: modality {name!r} has the name of a slot ({', '.join(SLOTS)}), so {name}/... is ambiguous; "
            f"rename it, such as mudata.MuData({{{name + '_1'!r}: mdata.mod[{name!r}], ...}})"
        )


def _check_axis(where: str, axis: int) -> None:
    if axis != 0:
        raise DataError(f"{where}: modalities share variables (axis {axis}), expected modalities that share observations (axis 0)")


def _of_group(name: str, where: str, group: Any, parts: Mapping[str, Part] | None = None) -> Part:
    named = {slot: list(group[slot]) for slot in _DICTS if slot in group}
    elements = _elements(named, [path for path in ("X", "raw/X") if path in group], parts or {})
    return Part(name, where, elements, partial(_stored, where, group))


def _stored(where: str, group: Any, path: str) -> Any:
    """Reads an element of a file.

    Raises:
        DataError: when it can't be read.
    """
    read = anndata_of().io.read_elem
    with reading(f"{where}: {path}"):
        element = group[path]
        check_element(f"{where}: {path}", element)
    try:
        return read(element)
    except Exception as error:
        # A damaged file can make anndata, h5py, pandas or scipy raise anything; none of our code runs in here.
        reason = "a newer encoding than this anndata reads; upgrade anndata" if "No read method" in str(error) else reason_of(error)
        raise DataError(f"{where}: {path} can't be read ({reason})") from error


def _of_object(name: str, where: str, data: Any, parts: Mapping[str, Part] | None = None) -> Part:
    if getattr(data, "isbacked", False):
        raise DataError(f"{where} is backed by a file; call to_memory(), or pass the path")
    named = {slot: [str(key) for key in getattr(data, slot, None) or ()] for slot in _DICTS}
    # In MuData, X and raw belong to the modalities.
    single = [] if hasattr(data, "mod") else [*(["X"] if data.X is not None else []), *(["raw/X"] if data.raw is not None else [])]
    return Part(name, where, _elements(named, single, parts or {}), partial(_element, data))


def _elements(named: Mapping[str, list[str]], single: list[str], parts: Mapping[str, Part]) -> tuple[str, ...]:
    """The paths of elements with one row per observation, without MuData's modality masks in obsm."""
    inside = [f"{slot}/{key}" for slot in ("layers", "obsm", "obsp") for key in named.get(slot, ()) if slot != "obsm" or key not in parts]
    return (*single, *inside)


def _element(data: Any, path: str) -> Any:
    slot, _, key = path.partition("/")
    value = getattr(data, slot)
    return value if not key else value.X if slot == "raw" else value[key]


def _names(frame: Any, what: str, mend: str) -> np.ndarray:
    names = text_array(frame.index)
    seen: dict[str, int] = {}
    for row, name in enumerate(names.tolist()):
        if (first := seen.setdefault(name, row)) != row:
            raise DataError(f"{what} {clip(name)!r} is duplicated in rows {first} and {row}; {mend} fixes it")
    return names
