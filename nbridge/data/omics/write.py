"""Writes AnnData and MuData with changed elements: copies a file element by element, or an object in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.data.omics.container import Omics, anndata_of, copied, opened, opened_file, pulling_nothing
from nbridge.data.omics.integrity import reading
from nbridge.data.omics.pad import grown_frame, paired, widened
from nbridge.data.omics.update import Changes

_SLOTS = ("layers", "obsm", "varm", "obsp", "varp")
_EMPTY: dict[str, Any] = {}


def write_file(source: Path, target: Path, changes: Changes) -> None:
    """Rewrites a file: changed elements are written by anndata with their original compression, all others are copied unchanged."""
    import h5py

    with opened_file(source) as file, opened(source) as omics, reading(source):
        written, columns = _by_path(omics, file, changes)
        with h5py.File(target, "w", userblock_size=file.userblock_size) as out:
            _copy(file, out, "", written)
            for path, names in columns.items():
                out[path].attrs["column-order"] = names
            if changes.made:
                out["mod"].attrs["mod-order"] = [*omics.parts, *changes.made]
        if file.userblock_size:
            # The user block marks an .h5mu file.
            with source.open("rb") as old, target.open("r+b") as new:
                new.write(old.read(file.userblock_size))


def _by_path(omics: Omics, file: Any, changes: Changes) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The elements to write, by path in the file, and the changed columns of each data frame that is only partly rewritten."""
    written: dict[str, Any] = {}
    columns: dict[str, list[str]] = {}
    for part, elements in changes.elements.items():
        if part in changes.made:
            written[f"mod/{part}"] = _made(elements)
            continue
        prefix = f"mod/{part}/" if part else ""
        written |= {prefix + path: value for path, value in elements.items()}
        if part not in changes.gained and not _is_old(file[f"{prefix}obs"]):
            after, before = written.pop(f"{prefix}obs"), omics.parts[part].obs if part else omics.whole.obs
            written |= {f"{prefix}obs/{column}": value for column, value in _changed_columns(before, after)}
            columns[f"{prefix}obs"] = [str(column) for column in after.columns]
    return written | _maps(omics, file, changes), columns


def _changed_columns(before: Any, after: Any) -> Iterator[tuple[str, Any]]:
    """New or changed columns of a data frame, as written to the file; None for removed ones."""
    yield from ((str(column), None) for column in before.columns if column not in after.columns)
    for column in after.columns:
        series = after[column]
        if column not in before.columns or not series.equals(before[column]):
            yield str(column), series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array


def _is_old(group: Any) -> bool:
    """Whether a data frame has the encoding of anndata before 0.8, whose categories are references that no other file can hold."""
    return group.attrs.get("encoding-type", "") == "dataframe" and group.attrs.get("encoding-version", "") == "0.1.0"


def _has_old(element: Any) -> bool:
    """Whether a group contains such a data frame."""
    return hasattr(element, "values") and any(_is_old(child) or _has_old(child) for child in element.values())


def completed(data: Any, changes: Changes) -> Any:
    """A copy of an object with the changes; the object is not modified."""
    done = copied(data)
    if not hasattr(done, "mod"):
        return _anndata(done, changes.elements[""])
    with pulling_nothing():
        for name, elements in changes.elements.items():
            if name in changes.made:
                done.mod[name] = _made(elements)
            elif name:
                done.mod[name] = _anndata(done.mod[name], elements)
        done.update()
        done.obs = changes.elements[""]["obs"]
        for path, value in changes.elements[""].items():
            if path.startswith("obsm/"):
                done.obsm[path.removeprefix("obsm/")] = value
    return done


def _anndata(data: Any, elements: Mapping[str, Any]) -> Any:
    """Rebuilds an unshared AnnData object with changed elements, possibly with more observations."""
    slots: dict[str, dict[str, Any]] = {slot: dict(getattr(data, slot)) for slot in _SLOTS}
    for path, value in elements.items():
        slot, _, key = path.partition("/")
        if slot in slots and value is None:
            slots[slot].pop(key, None)
        elif slot in slots:
            slots[slot][key] = value
    raw = data.raw
    kept = None if raw is None else {"X": elements.get("raw/X", raw.X), "var": raw.var, "varm": dict(raw.varm)}
    return anndata_of().AnnData(
        X=elements.get("X", data.X), obs=elements["obs"], var=data.var, uns=data.uns, raw=kept, **slots
    )  # fmt: skip


def _made(elements: Mapping[str, Any]) -> Any:
    """A new AnnData object."""
    named = [(*path.split("/", 1), value) for path, value in elements.items() if "/" in path]
    inside = {slot: {key: value for own, key, value in named if own == slot} for slot in ("layers", "obsm")}
    return anndata_of().AnnData(X=elements.get("X"), obs=elements["obs"], var=elements["var"], **inside)


def _maps(omics: Omics, file: Any, changes: Changes) -> dict[str, Any]:
    """MuData's top-level data on a modality: its mask, and the positions of its observations and variables among all of them."""
    found: dict[str, Any] = {}
    total = len(changes.names)
    for part in changes.gained:
        rows = np.full(total, -1) if part in changes.made else omics.rows_of(omics.parts[part])
        places = np.where(rows >= 0, rows, (rows >= 0).sum() + np.cumsum(rows < 0) - 1)
        like = file[f"obsm/{part}"].shape if f"obsm/{part}" in file else (total, 1)
        found[f"obsm/{part}"] = np.ones(like, dtype=bool)
        found[f"obsmap/{part}"] = (places + 1).astype(np.uint32)
    for part in changes.made:
        found |= _var_maps(file, found, part, changes.elements[part]["var"])
    return found


def _var_maps(file: Any, found: Mapping[str, Any], part: str, var: Any) -> dict[str, Any]:
    """The same for the variables of a new modality, which come last."""

    def known(path: str) -> Any:
        return found[path] if path in found else anndata_of().io.read_elem(file[path])

    added, count = var.index.to_numpy(), len(known("var"))
    paths = [f"{slot}/{key}" for slot in ("varm", "varmap", "varp") for key in file.get(slot, _EMPTY)]
    paths += [path for path in found if path.startswith(("varm/", "varmap/"))]
    more = {path: paired(known(path), len(added)) if path.startswith("varp/") else widened(known(path), added) for path in paths}
    mask = np.arange(count + len(added)) >= count
    places = np.where(mask, np.cumsum(mask), 0).astype(np.uint32)
    return {**more, "var": grown_frame(known("var"), added), f"varm/{part}": mask[:, None], f"varmap/{part}": places}


def _copy(source: Any, target: Any, prefix: str, changes: Mapping[str, Any]) -> None:
    """Copies a group, replacing some of its elements."""
    _copy_attributes(source, target)
    inside = {path for path in changes if path.startswith(prefix)}
    new = [key for key in dict.fromkeys(path[len(prefix) :].partition("/")[0] for path in inside) if key not in source]
    for key in [*source, *new]:
        path = prefix + key
        if path in changes:
            if changes[path] is not None:
                _write(target, key, changes[path], _compression(source.get(key)))
        elif key in source and _is_old(source[key]):
            _write(target, key, anndata_of().io.read_elem(source[key]), _compression(source[key]))
        elif any(other.startswith(f"{path}/") for other in inside) or (key in source and _has_old(source[key])):
            if key not in source:
                _write(target, key, {}, None)
            _copy(source.get(key, _EMPTY), target[key] if key in target else target.create_group(key), f"{path}/", changes)
        else:
            source.copy(source[key], target, key)


def _write(target: Any, key: str, value: Any, compression: str | None) -> None:
    anndata_of().io.write_elem(target, key, value, dataset_kwargs={} if compression is None else {"compression": compression})


def _compression(element: Any) -> str | None:
    """The compression of an element: an array, or the values of a sparse matrix or of a data frame."""
    if element is None:
        return None
    if hasattr(element, "compression"):
        return element.compression
    return next((found for child in element.values() if (found := _compression(child)) is not None), None)


def _copy_attributes(source: Any, target: Any) -> None:
    for key in getattr(source, "attrs", _EMPTY):
        target.attrs.create(key, source.attrs[key], dtype=source.attrs.get_id(key).dtype)
