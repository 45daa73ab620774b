"""Infers a draft spec from raw data: tables, data frames, images, arrays, MuData and AnnData."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, singledispatch
from os import fspath
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip, some_of
from nbridge.data.images.sets import ImageSet
from nbridge.data.schema import ArraysSchema, ColumnsSchema, DataSchema, OmicsSchema
from nbridge.data.source import DataSource, is_path, open_data, source_class
from nbridge.data.split_labels import RowLabels
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.frames import FrameLike
from nbridge.data.tables.profiles import Profiles, Vectors, read_profiles
from nbridge.data.tables.text_folder import texts_among
from nbridge.draft.arrays import part_of_array
from nbridge.draft.columns import Guesses, guess_modalities
from nbridge.draft.doubts import absent_words, columns_of, doubts_of
from nbridge.draft.identifiers import common_id, damaged_ids, found_id
from nbridge.draft.images import all_paths, guess_images, id_of, lost_images, paths_of, presence_of
from nbridge.draft.named_arrays import modalities_of_arrays
from nbridge.draft.omics import guess_omics
from nbridge.draft.splits import column_texts, file_labels, keys_among, keys_of_items, keys_of_labels
from nbridge.draft.texts import parts_of_texts
from nbridge.draft.writer import Outline, Part, parts_of, spec_text, wrapped
from nbridge.errors import DataError, naming
from nbridge.spec.mixed import MIXED
from nbridge.spec.names import free_name
from nbridge.spec.reader import parse_spec
from nbridge.spec.spec import Spec

_AFTER = {False: " After a change: nbridge validate SPEC --data", True: ""}
UNNAMED = "a column without a name"
TABLE = "table"
"""The name of rows without a file."""
NAMED = 12
"""Maximum number of columns listed in a remark."""


@dataclass(frozen=True)
class Draft:
    """A draft spec, with statistics of the data.

    Arguments:
        text: The spec as YAML.
        rows: The number of rows.
        present: The observed mask of each modality, (N,).
        remarks: Remarks for the user to review, one line each.
        empty: The number of rows that lack each incomplete column, array or image folder.
    """

    text: str
    rows: int
    present: Mapping[str, np.ndarray]
    remarks: tuple[str, ...]
    empty: Mapping[str, int] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """The parsed spec."""
        return parse_spec(self.text)


def init(data: FrameLike, *, id: str | None = None, source: str | type[DataSource] | None = None) -> Draft:  # noqa: A002
    """Infers a draft spec from raw data, like ``nbridge init``: modalities and likelihoods, each with the reason for the guess.

    Arguments:
        data: A data frame of pandas, polars or pyarrow, a ``datasets.Dataset``, a dict of arrays, a MuData or AnnData object; or the path
            of a file (csv, parquet, npz, h5mu, h5ad) or of a folder of images, or a list of tables and folders to join.
        id: The column of identifiers, in files; inferred by default. Rows of a frame are identified by position.
        source: The data source of the rows, a class of your own or its name in a spec; found by the file or the type by default.

    Returns:
        The draft: ``spec``, for `nbridge.train`, and ``text``, the same as YAML with the reasons as comments.

    Raises:
        DataError: if the data cannot be read, or contain no possible modality.

    Example:
        >>> found = init({"dose": np.arange(40) / 7 % 1, "arm": np.array(["a", "b", "c", "d"] * 10)})
        >>> list(found.spec.modalities["table"].likelihood.kwargs["columns"])
        ['dose', 'arm']
    """
    paths = [fspath(path) for path in data] if isinstance(data, list | tuple) else [fspath(data)] if is_path(data) else []
    rows = data if not paths else paths[0] if len(paths) == 1 else paths
    kind = source_class(source) if isinstance(source, str) else source
    with (open_data(rows) if kind is None else kind.over(rows, None)).schema() as schema:
        return draft_spec(schema, id)


@singledispatch
def draft_spec(schema: DataSchema, id_column: str | None) -> Draft:
    """Infers a draft spec from columns, arrays or matrices. The column or array of identifiers is inferred by default.

    Raises:
        DataError: if rows cannot be read or joined, or there is no possible modality.
    """
    raise TypeError(f"no draft for {type(schema).__name__}, {id_column}")


@draft_spec.register
def _draft_from_columns(schema: ColumnsSchema, id_column: str | None) -> Draft:
    """The draft of tables, data frames and images."""
    if schema.from_python and id_column is not None:
        raise DataError("id: rows of a data frame are identified by position; leave it out")
    files, folders, source = schema.tables, schema.images, schema.source
    id_column, root = _keys(files, id_column, folders)
    files, folders_of_texts = [file.identified_by(id_column or "id") for file in files], [file.name for file in texts_among(files)]
    kept = folders if root is None else ()
    found = read_profiles([*files, *(one.table(id_column or "id") for one in kept)], id_column)
    framed = schema.from_python
    named = {} if framed else all_paths(found.columns, files, root)
    written = [profile for profile in found.columns if profile.name in folders_of_texts]
    profiles = [profile for profile in found.columns if profile.name not in {*named, *folders_of_texts}]
    damaged: dict[str, str] = {}
    if found.ids is None and not framed:
        id_column = found_id(profiles)
        damaged = {} if id_column is not None else damaged_ids(profiles, files[0])
        profiles = [profile for profile in profiles if profile.name not in (id_column, *damaged)]
    keys = keys_among({profile.name: partial(column_texts, profile) for profile in profiles})
    profiles = [profile for profile in profiles if profile.name not in keys.taken]
    guesses = guess_modalities(profiles, _homes(files, framed=framed))
    guesses = replace(guesses, left_out={**damaged, **guesses.left_out, **found.left_out})
    parts, lists = parts_of(guesses), _parts_of_vectors(found.vectors, [guess.name for guess in guesses.modalities])
    texts = parts_of_texts(written, [*(guess.name for guess in guesses.modalities), *(part.name for part, _ in lists)])
    every = [*parts, *(part for part, _ in lists), *(part for part, _ in texts)]
    taken = {*(column for file in files for column in file.columns), *(part.name for part in every)}
    images = guess_images([*kept, *named.values()], source, taken, None if root is None else root.where)
    if not every and not images.parts:
        alone = f"column {clip(id_column)!r}, the identifier, is the only one" if id_column and not guesses.left_out else ""
        alone += "; expected commas, semicolons, tabs or | between columns" if alone and not str(id_column).isidentifier() else ""
        raise DataError(f"{schema.where}: no column that a modality can be made of ({alone or _left_out(guesses)})")
    folders_of = {part.name: one.images for part, one in zip(images.parts, kept, strict=False)}
    keys = keys_of_items(keys_of_labels(keys, _shots(found, named, folders_of)), _items_of(guesses, lists))
    lone = any("id" in file.columns for file in files)
    id_option = None if framed or not files else id_column if id_column is not None else "" if lone else None
    columns = {**{part.name: vectors.name for part, vectors in lists}, **{part.name: column for part, column in texts}}
    remarks = [
        *_remarks(guesses), *doubts_of(columns_of(guesses)), *lost_images([one for one in found.columns if one.name not in named]),
        *images.remarks, *keys.remarks,
    ]  # fmt: skip
    split_columns = keys.taken & {one.name for one in found.columns}
    many = sum(map(len, (profiles, named, found.vectors, found.left_out, damaged, split_columns)))
    columns_of_tables = f"{many:,} column{'s' if many != 1 else ''}" if files else ""
    folders_of_images = f"{len(kept)} folder{'s' if len(kept) > 1 else ''} of images" if kept else ""
    counted = ", ".join(filter(None, (f"{found.rows:,} rows", columns_of_tables, folders_of_images)))
    head = [f"{counted}; every guess is yours to change.{_AFTER[framed]}", *remarks]
    reasons = {
        "id": "identifies rows" if id_column is not None else "no column identifies all rows",
        "columns": "the columns of each modality",
        "classes": "the classes of a column in the order of their numbers",
        "missing": absent_words(columns_of(guesses)),
        **images.reasons,
        **keys.reasons,
    }
    options = {**_source(images.source, guesses, columns, id_option), **keys.options}
    text = spec_text(Outline(schema.name, options, found.rows, [*images.parts, *every], wrapped(head), reasons))
    present = {guess.name: np.any([column.present for column in guess.columns], axis=0) for guess in guesses.modalities}
    lists_present = {part.name: ~np.isnan(vectors.array).all(1) for part, vectors in lists}
    present |= {**lists_present, **{part.name: column.present for (part, _), column in zip(texts, written, strict=True)}}
    seen = dict(zip((part.name for part in images.parts), presence_of(kept, named, found), strict=True))
    by_column = {**{one.name: one.present for one in found.columns}, **seen, **lists_present}
    return Draft(text, found.rows, {**seen, **present}, tuple(remarks), _empty(by_column))


def _keys(files: Sequence[TableFile], id_column: str | None, folders: Sequence[ImageSet]) -> tuple[str | None, ImageSet | None]:
    """The column of identifiers, and the folder of the images that a column refers to by file name, if any."""
    if id_column is not None:
        for file in files:
            file.identified_by(id_column).require(id_column)
        return id_column, None
    texts, files = texts_among(files), [file for file in files if not file.named_by_files]
    if not folders and not texts:
        return (common_id(files) if len(files) > 1 else None), None
    if not files:
        return "id", None
    profiles = [one for one in read_profiles(files[:1], None).columns if all(one.name in file.columns for file in files)]
    if (column := id_of(profiles, set[str]().union(*(one.stems for one in (*folders, *texts))))) is not None:
        return column, None
    if len(folders) == 1 and any(paths_of(profile, folders[0].images[0].parent) for profile in profiles):
        return (common_id(files) if len(files) > 1 else None), folders[0]
    what, example, where = (
        ("image names", folders[0].images[0].stem, folders[0].where) if folders else ("file names", texts[0].stems[0], texts[0].path)
    )
    raise DataError(f"{files[0].path}: no column matches the {what}, such as {example!r} in {where}; name it with --id")


def _homes(files: Sequence[TableFile], *, framed: bool) -> dict[str, str]:
    """The name of the table of each column, for the names of modalities."""
    names = {file.path: TABLE if framed else Path(file.path).resolve().name.partition(".")[0] or TABLE for file in files}
    return {column: names[file.path] for file in reversed(files) for column in file.columns}


def _parts_of_vectors(columns: Sequence[Vectors], taken: Sequence[str]) -> list[tuple[Part, Vectors]]:
    """Makes a modality of each column of lists."""
    found: list[tuple[Part, Vectors]] = []
    for vectors in columns:
        name = free_name(vectors.name, {*taken, *(part.name for part, _ in found)})
        array = vectors.array.reshape(len(vectors.array), *vectors.shape)
        part = part_of_array(name, array, len(array), whole_bytes=vectors.whole_bytes)
        if isinstance(part, Part):
            sizes = " x ".join(map(str, vectors.shape))
            found.append((replace(part, why=f"lists of {sizes} numbers; {part.why}"), vectors))
    return found


def _shots(found: Profiles, named: Collection[str], folders: Mapping[str, Sequence[Path]]) -> list[RowLabels]:
    """Labels of the image of each row: the path in a column, or the file in a folder."""
    ids = [] if found.ids is None else found.ids.tolist()
    paths = [RowLabels(one.name, column_texts(one), alone=True) for one in found.columns if one.name in named]
    return [*paths, *(file_labels(name, files, ids) for name, files in folders.items())]


def _items_of(guesses: Guesses, lists: Sequence[tuple[Part, Vectors]]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The values of each numeric modality, and the observed mask."""
    for guess in guesses.modalities:
        if all(column.numeric for column in guess.columns):
            values = np.stack([column.values for column in guess.columns], axis=1)
            yield guess.name, values, np.any(~np.isnan(values), axis=1)
    for part, vectors in lists:
        yield part.name, vectors.array, np.any(~np.isnan(vectors.array), axis=1)


def _source(source: Mapping[str, object], guesses: Guesses, lists: Mapping[str, str], id_column: str | None) -> dict[str, object]:
    # The columns of mixed modalities are in their likelihood.
    columns = {guess.name: tuple(column.name for column in guess.columns) for guess in guesses.modalities if guess.likelihood != MIXED}
    classes = {column: texts for guess in guesses.modalities for column, texts in guess.classes.items()}
    missing = sorted({word for column in columns_of(guesses) for word in column.absent if word})
    options = dict(source) | ({} if id_column is None else {"id": id_column})
    options |= {"missing": missing} if missing else {}
    options |= {"columns": {**columns, **lists}} if columns or lists else {}
    return options | ({"classes": classes} if classes else {})


def _remarks(guesses: Guesses) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for column, reason in guesses.left_out.items():
        reasons.setdefault(reason, []).append(clip(column) or UNNAMED)
    return [f"left out: {some_of(columns, NAMED)}: {reason}" for reason, columns in reasons.items()]


def _left_out(guesses: Guesses) -> str:
    return clip("; ".join(f"{clip(column) or UNNAMED} {reason}" for column, reason in guesses.left_out.items()), 200) or "no columns"


def _empty(present: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The number of rows that lack each name; complete ones are omitted."""
    lacking = {name: int((~mask).sum()) for name, mask in present.items()}
    return {name: rows for name, rows in lacking.items() if rows}


# MuData and AnnData


@draft_spec.register
def _draft_from_omics(schema: OmicsSchema, id_column: str | None) -> Draft:
    """The draft of MuData and AnnData."""
    if id_column is not None:
        where, option = ("id", "it") if schema.from_python else (schema.source["path"], "--id")
        raise DataError(f"{where}: observations have obs_names; leave {option} out")
    assert schema.omics is not None
    found = guess_omics(schema.omics)
    head = [f"{found.rows:,} observations; every guess is yours to change.{_AFTER[schema.from_python]}", *found.remarks]
    reasons = {
        "keys": "locations that differ from the modality names",
        "variables": "which variables of a modality",
        "classes": "the classes of a column in the order of their numbers",
    }
    options = {**schema.source, **found.options, **found.splits.options}
    text = spec_text(Outline(schema.name, options, found.rows, found.parts, wrapped(head), {**reasons, **found.splits.reasons}))
    return Draft(text, found.rows, found.present, tuple(found.remarks), _empty(found.present))


# Arrays


@draft_spec.register
def _draft_from_arrays(schema: ArraysSchema, id_column: str | None) -> Draft:
    """The draft of named arrays."""
    with naming(schema.where):
        found = modalities_of_arrays(schema.arrays, id_column)
    counted = f"{found.rows:,} rows, {len(found.parts)} arrays; every guess is yours to change.{_AFTER[schema.from_python]}"
    source = {**schema.source, **found.options}
    outline = Outline(schema.name, source, found.rows, found.parts, wrapped([counted, *found.remarks]), found.reasons)
    return Draft(spec_text(outline), found.rows, found.present, tuple(found.remarks), _empty(found.present))
