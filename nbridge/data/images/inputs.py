"""The tables and image folders to impute: which of them belong to which modality, and where they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nbridge.common.messages import listing
from nbridge.data.folders import find_file_or_folder, find_folder
from nbridge.data.images.files import images_in
from nbridge.data.images.write import Place
from nbridge.data.marks import IMPUTED
from nbridge.data.tables.columns import ending_of
from nbridge.data.tables.opening import find_table, open_table
from nbridge.data.tables.row_list import ROWS
from nbridge.data.tables.text_folder import is_text_folder
from nbridge.data.text_values import TextForm
from nbridge.errors import DataError


class Folders(Protocol):
    """Where the images of a data source are; see `nbridge.data.images.source.Images`."""

    paths: tuple[str, ...]
    root: str | None
    texts: Mapping[str, TextForm]

    @property
    def folders(self) -> Mapping[str, str]:
        """The image folder of modalities."""
        ...

    @property
    def path_columns(self) -> Mapping[str, str]:
        """The table column of the paths of modalities."""
        ...


@dataclass
class Inputs:
    """The tables and folders to impute.

    Arguments:
        tables: Paths of tables.
        folders: The image folder of each modality that has one.
        root: The folder that paths in tables are relative to, if one is given.
        whole: Whether the images of one folder are the only input, so that the output is a folder of images as well.
    """

    tables: list[Path] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    root: Path | None = None
    whole: bool = False


def inputs_of(source: Folders, rows: Sequence[str]) -> Inputs:
    """The given tables and folders; those of the source if none are given."""
    if not rows:
        named = {name: find_folder(folder) for name, folder in source.folders.items()}
        return Inputs([find_table(path) for path in source.paths], named)
    given = Inputs()
    for path in rows:
        found = find_file_or_folder(path)
        if ending_of(found) or (source.texts and is_text_folder(found)):
            given.tables.append(found)
        elif found.is_dir():
            _take_folder(given, source, found)
        else:
            raise DataError(f"{path}: expected image folders or tables (.csv, .tsv, .csv.gz, .tsv.gz, .parquet)")
    given.whole = len(rows) == 1 and given.whole
    if len(rows) == 1 and not given.tables and _is_completed(folder := find_folder(rows[0]), source):
        given.tables.append(folder / ROWS)
    if given.root is not None and not given.tables:
        raise DataError(f"{given.root}: a table column holds the paths of this model's images; pass the table as well")
    return given


def _is_completed(folder: Path, source: Folders) -> bool:
    """Whether a folder is one that an imputation wrote: its table of rows has marks of modalities."""
    path = folder / ROWS
    names = {*source.folders, *source.path_columns}
    return path.is_file() and any(column.removesuffix(IMPUTED) in names for column in open_table(path).columns if column.endswith(IMPUTED))


def _take_folder(given: Inputs, source: Folders, found: Path) -> None:
    """Adds a folder: that of a modality, one that contains such folders, or the one that paths in tables are relative to."""
    names = {name: {name, Path(folder).name} for name, folder in source.folders.items()}
    if not images_in(found).images:
        inside = {name: found / sub for name, known in names.items() for sub in sorted(known) if (found / sub).is_dir()}
        if not inside and (names or not source.path_columns):
            raise DataError(f"{found}: no images in this folder, and no folder named {listing(sorted(set().union(*names.values())))}")
        given.folders |= inside
        given.root = given.root if inside else found
        return
    if not names:
        given.root = found
        return
    fitting = [name for name, known in names.items() if found.name in known]
    chosen = fitting if fitting else list(names) if len(names) == 1 else []
    if len(chosen) != 1:
        raise DataError(f"{found}: ambiguous modality; name the folder after a modality or its folder in the source: {listing(names)}")
    if chosen[0] in given.folders:
        raise DataError(f"{found}: images of {chosen[0]!r}, like {given.folders[chosen[0]]}; pass only one of them")
    given.folders[chosen[0]], given.whole = found, True


def places_of(source: Folders, given: Inputs) -> dict[str, Place]:
    """Where the images of each modality are written: in a folder named as the one they were read from."""
    if given.whole:
        (name,) = given.folders
        others = [other for other in source.folders if other != name]
        return {name: Place("."), **{other: Place(other) for other in others}, **_path_places(source, given)}
    folders = {name: Path(given.folders.get(name, folder)).resolve().name for name, folder in source.folders.items()}
    called = list(folders.values())
    own = {name: Place(folder if called.count(folder) == 1 else name) for name, folder in folders.items()}
    return {**own, **_path_places(source, given)}


def _path_places(source: Folders, given: Inputs) -> dict[str, Place]:
    root = given.root or (None if source.root is None else Path(source.root))
    return {name: Place("." if root is None else root.resolve().name, column) for name, column in source.path_columns.items()}


def check_apart(target: Path, given: Inputs) -> None:
    """Checks that input and output folders do not contain each other."""
    whole = target.resolve()
    for folder in (*given.folders.values(), *([given.root] if given.root else []), *(path.parent for path in given.tables)):
        if folder.resolve().is_relative_to(whole):
            raise DataError(f"{target}: contains the input {folder}; choose another folder")
    for folder in given.folders.values():
        if whole.is_relative_to(folder.resolve()):
            raise DataError(f"{target}: inside the input folder {folder}; choose another")
