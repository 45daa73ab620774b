"""Seven mixed tables as numbers, with kinds of columns decided by plain rules.

Of NBRIDGE_DATA/tables: pbc (a trial of primary biliary cirrhosis), bfi (a personality questionnaire), hdma (mortgage applications) and
penguins; of scikit-learn: wine, breast_cancer and diabetes, each with its target as one more column. Cells that are missing in the files
stay missing, and are never scored.

- A column of whole numbers that are all different identifies rows, and is left out.
- Text, and numbers with two different values, are classes.
- Numbers with at most 10 different values, all multiples of 1/2, are classes in order (the items of bfi, edema), except in `NOMINAL`.
- All others are numbers.

Classes are scored by accuracy. `GROUPS` states the columns that `benchmarks.tables.masks` hides together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv
from sklearn import datasets

from nbridge.data.folders import data_folder

FEW = 10
"""Most different values of a column of classes that are written as numbers."""
NOMINAL = {("pbc", "status")}
"""Columns of numbers that are classes without an order."""
FILES = ("pbc", "bfi", "hdma", "penguins")
TABLES = (*FILES, "wine", "breast_cancer", "diabetes")

_CELLS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)

GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "pbc": {
        "course": ("time", "status", "trt"),
        "person": ("age", "sex"),
        "signs": ("ascites", "hepato", "spiders", "edema", "stage"),
        "liver": ("bili", "chol", "albumin", "copper", "alk.phos", "ast", "trig"),
        "clotting": ("platelet", "protime"),
    },
    "bfi": {
        **{letter: tuple(f"{letter}{number}" for number in range(1, 6)) for letter in "ACENO"},
        "person": ("gender", "education", "age"),
    },
    "hdma": {
        "ratios": ("dir", "hir", "lvr"),
        "credit": ("ccs", "mcs", "pbcr", "dmi"),
        "person": ("self", "single", "black"),
        "market": ("uria", "comdominiom"),
        "decision": ("deny",),
    },
    "penguins": {
        "bill": ("bill_length_mm", "bill_depth_mm"),
        "body": ("flipper_length_mm", "body_mass_g"),
        "identity": ("species", "sex"),
        "place": ("island", "year"),
    },
    "wine": {
        "basics": ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium"),
        "phenols": ("total_phenols", "flavanoids", "nonflavanoid_phenols", "proanthocyanins"),
        "colour": ("color_intensity", "hue", "od280/od315_of_diluted_wines"),
        "proline": ("proline",),
        "cultivar": ("cultivar",),
    },
    "breast_cancer": {
        "mean": tuple(f"mean {name}" for name in _CELLS),
        "error": tuple(f"{name} error" for name in _CELLS),
        "worst": tuple(f"worst {name}" for name in _CELLS),
        "diagnosis": ("diagnosis",),
    },
    "diabetes": {
        "person": ("age", "sex", "bmi", "bp"),
        "serum": ("s1", "s2", "s3", "s4", "s5", "s6"),
        "progression": ("progression",),
    },
}  # fmt: skip
TARGETS = {"wine": "cultivar", "breast_cancer": "diagnosis", "diabetes": "progression"}


@dataclass(frozen=True)
class Column:
    """A column's name and kind.

    Arguments:
        name: Its name in the file.
        classes: The values of its classes in order, text or numbers; none for numbers.
        ordered: Whether the order of the classes means something.
        whole: Whether all values are whole numbers.
    """

    name: str
    classes: tuple[str | float, ...] = ()
    ordered: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """Values of a table, (rows, columns): numbers as they are, classes by their index, NaN where missing."""

    name: str
    columns: tuple[Column, ...]
    values: np.ndarray
    groups: Mapping[str, Sequence[str]]

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of classes of each column, 0 for numbers."""
        return np.array([len(column.classes) for column in self.columns])

    @cached_property
    def ordered(self) -> np.ndarray:
        """Whether each column is of classes in order."""
        return np.array([column.ordered for column in self.columns])

    @cached_property
    def memberships(self) -> np.ndarray:
        """The number of each column's group."""
        number = {name: place for place, names in enumerate(self.groups.values()) for name in names}
        return np.array([number[column.name] for column in self.columns])

    def arrow(self, values: np.ndarray) -> pa.Table:
        """Values of this table's columns as they are in its file, NaN as null."""
        return pa.table({column.name: _written(column, x) for column, x in zip(self.columns, values.T, strict=True)})

    def read(self, frame: pa.Table) -> np.ndarray:
        """The opposite of `arrow`; a number that is no class counts as the nearest one."""
        return np.stack([_read(column, frame[column.name].to_pylist()) for column in self.columns], 1)


def load(name: str) -> Table:
    """One of `TABLES`.

    Raises:
        SystemExit: if NBRIDGE_DATA has no tables.
    """
    if name in TARGETS:
        return table_of(name, _bundled(name), GROUPS[name])
    folder = data_folder()
    path = Path() if folder is None else folder / "tables" / f"{name}.csv"
    if not path.is_file():
        raise SystemExit(f"{name}: no tables/{name}.csv in the folder of data; set NBRIDGE_DATA to the folder that has it")
    options = csv.ConvertOptions(strings_can_be_null=True)
    return table_of(name, csv.read_csv(path, convert_options=options), GROUPS[name])


def table_of(name: str, frame: pa.Table, groups: Mapping[str, Sequence[str]]) -> Table:
    """A table with the kinds of its columns."""
    kinds = {column: _kind(name, column, frame[column]) for column in frame.column_names}
    columns = tuple(kind for kind in kinds.values() if kind is not None)
    values = np.stack([_read(column, frame[column.name].to_pylist()) for column in columns], 1)
    return Table(name, columns, values, groups)


def _kind(table: str, name: str, cells: pa.ChunkedArray) -> Column | None:
    """The kind of a column, None for one that identifies rows."""
    values = sorted(cells.drop_null().unique().to_pylist())
    if pa.types.is_string(cells.type):
        return Column(name, tuple(values))
    whole = all(value == int(value) for value in values)
    if whole and len(values) == len(cells):
        return None
    if len(values) == 2 or (len(values) <= FEW and all(2 * value == int(2 * value) for value in values)):
        return Column(name, tuple(values), len(values) > 2 and (table, name) not in NOMINAL, whole)
    return Column(name, whole=whole)


def _written(column: Column, values: np.ndarray) -> pa.Array:
    cells = [None if np.isnan(x) else column.classes[int(x)] if column.classes else float(x) for x in values]
    if cells and column.classes and isinstance(column.classes[0], str):
        return pa.array(cells, pa.string())
    return pa.array([x if x is None or not column.whole else int(x) for x in cells], pa.int64() if column.whole else pa.float64())


def _read(column: Column, cells: Sequence[str | float | None]) -> np.ndarray:
    if not column.classes:
        return np.array([np.nan if x is None else float(x) for x in cells])
    if isinstance(column.classes[0], str):
        number = {value: place for place, value in enumerate(column.classes)}
        return np.array([np.nan if x is None else number[str(x)] for x in cells], dtype=float)
    classes = np.array(column.classes, dtype=float)
    return np.array([np.nan if x is None else np.abs(classes - float(x)).argmin() for x in cells], dtype=float)


def _bundled(name: str) -> pa.Table:
    """A table of scikit-learn, its target the last column, as text where it is a class."""
    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name}")(**options)
    target = found.target if name == "diabetes" else [str(found.target_names[label]) for label in found.target]
    columns = {str(column): x for column, x in zip(found.feature_names, found.data.T, strict=True)}
    return pa.table({**columns, TARGETS[name]: target})
