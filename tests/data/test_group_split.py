"""Honest splits: groups that no part divides and parts that a column assigns, for every source of rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nbridge
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.numpy.archive import write_npz
from nbridge.data.omics.container import pulling_nothing
from nbridge.data.shared_items import telling
from nbridge.data.split import Splits
from nbridge.data.split_labels import RowLabels, groups_of, label_texts, parts_of
from nbridge.draft.checks import check_data
from nbridge.draft.draft import init
from nbridge.draft.splits import keys_among
from nbridge.errors import DataError, RunError
from nbridge.runs.run import open_run
from nbridge.spec.reader import spec_from_dict, write_spec
from nbridge.training.build import build_data, build_model, rows_given

ROWS, PATIENTS = 60, 15
EXPECTED = "expected train (or training), validation (or valid, val, dev) or test in each row"
PART = {"part": {"shape": 2, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal", "features": 4}}
Rows = dict[str, Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def rows() -> Rows:
    """Rows in which ``x`` holds the number of its row, so that parts can be told; a patient has four of them, far from each other."""
    number = np.arange(ROWS)
    return {
        "x": np.stack([number, -number], axis=1).astype(float),
        "y": np.random.default_rng(0).normal(size=ROWS),
        "patient": np.array([f"p{row % PATIENTS}" for row in range(ROWS)]),
        "fold": np.array([["train", "Training", "dev", "TEST"][row % PATIENTS % 4] for row in range(ROWS)]),
    }


def spec(source: Any, **keys: Any) -> dict[str, Any]:
    part = {"encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal", "features": 4}
    data = {**({"source": source} if isinstance(source, str) else source), **keys}
    quick = {"batch_size": 16, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
    modalities = {"x": {"shape": 2, **part}, "y": {"shape": 1, **part}}
    return {"data": data, "modalities": modalities, "latent_dim": 2, "training": quick}


def split(document: Mapping[str, Any], data: Any = None, heard: list[Finding] | None = None) -> Splits:
    parsed = spec_from_dict(document)
    named = {*parsed.modalities, parsed.data.group, parsed.data.split}
    if parsed.data.source.type == "memory" and isinstance(data, dict) and named <= {*data, None}:
        # Arrays that nothing names are mistakes.
        data = {name: array for name, array in data.items() if name in named}
    frame = rows_given(parsed, data)
    return build_data(parsed, build_model(parsed), data if frame is None else frame, warn=[].append if heard is None else heard.append)


def parts_in(splits: Splits) -> list[set[int]]:
    """The numbers of the rows of each part."""
    parts = (splits.train, splits.validation, splits.test)
    return [set() if part is None else set(part.slice(0, len(part)).values["x"][:, 0].round().int().tolist()) for part in parts]


def write_csv(path: str, columns: Mapping[str, Any]) -> None:
    with Path(path).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))


def columns_of(found: Rows) -> Rows:
    return {"x_1": found["x"][:, 0], "x_2": found["x"][:, 1], **{name: array for name, array in found.items() if name != "x"}}


def as_csv(found: Rows) -> tuple[Any, Any]:
    write_csv("rows.csv", columns_of(found))
    return {"source": "table", "path": "rows.csv", "columns": {"x": "x_*"}}, None


def as_parquet_table(found: Rows) -> tuple[Any, Any]:
    pq.write_table(pa.table({**columns_of(found), "patient": pa.array(found["patient"]).dictionary_encode()}), "rows.parquet")
    return {"source": "table", "path": "rows.parquet", "columns": {"x": "x_*"}}, None


def as_stored_parquet(found: Rows) -> tuple[Any, Any]:
    Path("parts").mkdir(exist_ok=True)
    whole = pa.table(columns_of(found))
    pq.write_table(whole.slice(0, 25), "parts/a.parquet", row_group_size=7)
    pq.write_table(whole.slice(25), "parts/b.parquet")
    return {"source": "parquet", "path": "parts", "columns": {"x": "x_*"}}, None


def as_npz(found: Rows) -> tuple[Any, Any]:
    write_npz("rows.npz", found)
    return {"source": "npz", "path": "rows.npz"}, None


def as_npy(found: Rows) -> tuple[Any, Any]:
    Path("arrays").mkdir(exist_ok=True)
    for name, array in found.items():
        np.save(f"arrays/{name}.npy", array)
    return {"source": "npy", "path": "arrays"}, None


def as_joined(found: Rows) -> tuple[Any, Any]:
    """Two tables in different orders; rows of ``x`` come first."""
    ids = np.array([f"r{row}" for row in range(ROWS)])
    write_csv("x.csv", {"id": ids, "x_1": found["x"][:, 0], "x_2": found["x"][:, 1]})
    order = np.random.default_rng(1).permutation(ROWS)
    write_csv("y.csv", {"id": ids[order], **{name: found[name][order] for name in ("y", "patient", "fold") if name in found}})
    return {"source": "table", "path": ["x.csv", "y.csv"], "columns": {"x": "x_*"}}, None


def as_pandas(found: Rows) -> tuple[Any, Any]:
    pandas = pytest.importorskip("pandas")
    return {"source": "frame", "columns": {"x": "x_*"}}, pandas.DataFrame(columns_of(found))


def as_polars(found: Rows) -> tuple[Any, Any]:
    polars = pytest.importorskip("polars")
    return {"source": "frame", "columns": {"x": "x_*"}}, polars.DataFrame(columns_of(found))


def as_dict(found: Rows) -> tuple[Any, Any]:
    return "memory", found


def as_dict_of_columns(found: Rows) -> tuple[Any, Any]:
    return "frame", found


def as_anndata(found: Rows) -> tuple[Any, Any]:
    return {"source": "mudata", "keys": {"x": "X", "y": "obs/y"}}, annotated(found)


def as_h5ad(found: Rows) -> tuple[Any, Any]:
    annotated(found).write_h5ad("rows.h5ad")
    return {"source": "h5ad", "path": "rows.h5ad", "keys": {"x": "X"}}, None


def as_h5mu(found: Rows) -> tuple[Any, Any]:
    mdata = multimodal(found)
    with pulling_nothing():
        mdata.write_h5mu("rows.h5mu")
    return {"source": "h5mu", "path": "rows.h5mu", "keys": {"y": "y/X"}}, None


def as_mudata(found: Rows) -> tuple[Any, Any]:
    return {"source": "mudata", "keys": {"y": "y/X"}}, multimodal(found)


def annotated(found: Rows, **more: Any) -> Any:
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    obs = pandas.DataFrame({name: array for name, array in found.items() if name != "x"}, index=[f"o{row}" for row in range(ROWS)])
    return anndata.AnnData(found["x"], obs=obs.assign(**more))


def multimodal(found: Rows) -> Any:
    """Columns of obs in the modalities alone; ``y`` is in another order."""
    anndata, mudata, pandas = (pytest.importorskip(name) for name in ("anndata", "mudata", "pandas"))
    order = np.random.default_rng(1).permutation(ROWS)
    obs = pandas.DataFrame({name: found[name] for name in ("patient", "fold") if name in found}, index=[f"o{row}" for row in range(ROWS)])
    one, two = (pandas.DataFrame(index=names) for names in (["a", "b"], ["c"]))
    y = anndata.AnnData(found["y"][order, None], var=two, obs=obs.iloc[order].drop(columns="fold", errors="ignore"))
    with pulling_nothing():
        return mudata.MuData({"x": anndata.AnnData(found["x"], obs=obs, var=one), "y": y})


WAYS: dict[str, Callable[[Rows], tuple[Any, Any]]] = {
    "csv": as_csv, "parquet table": as_parquet_table, "stored parquet": as_stored_parquet, "npz": as_npz, "npy": as_npy,
    "joined": as_joined, "pandas": as_pandas, "polars": as_polars, "arrays": as_dict, "columns": as_dict_of_columns,
    "anndata": as_anndata, "h5ad": as_h5ad, "h5mu": as_h5mu, "mudata": as_mudata,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_group_is_divided_and_a_column_assigns_parts_whatever_the_source(way: str):
    found = rows()
    source, data = WAYS[way](found)
    parts = parts_in(split(spec(source, group="patient"), data))
    assert sorted(row for part in parts for row in part) == list(range(ROWS))
    patients = [{found["patient"][row] for row in part} for part in parts]
    assert sum(map(len, patients)) == PATIENTS
    assert [len(part) for part in parts] == [44, 4, 12]

    assigned = parts_in(split(spec(source, split="fold", test=0.5), data))
    folds = [{row for row in range(ROWS) if found["fold"][row] in names} for names in (("train", "Training"), ("dev",), ("TEST",))]
    assert assigned == folds
    assert parts_in(split(spec(source, split="fold", group="patient"), data)) == folds


def test_sources_give_one_split_and_the_order_of_rows_changes_nothing():
    found, order = rows(), np.random.default_rng(3).permutation(ROWS)
    shuffled = {name: array[order] for name, array in found.items()}
    wanted = parts_in(split(spec("memory", group="patient"), found))
    for way in WAYS.values():
        assert parts_in(split(spec(way(found)[0], group="patient"), way(found)[1])) == wanted
    assert parts_in(split(spec("memory", group="patient"), shuffled)) == wanted
    assert parts_in(split(spec("memory", group="patient", seed=1), found)) != wanted


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=12, max_size=40),
    st.sampled_from([0, 0.1, 0.25]),
    st.sampled_from([0.1, 0.3]),
    st.integers(0, 2**32),
)
def test_groups_keep_together_and_parts_come_near_their_fractions(sizes: list[int], validation: float, test: float, seed: int) -> None:
    names = np.repeat(np.arange(len(sizes)), sizes)
    count = len(names)
    found = {"x": np.stack([np.arange(count), np.ones(count)], 1), "y": np.arange(count) / count, "who": names}
    parts = parts_in(split(spec("memory", group="who", validation=validation, test=test, seed=seed), found))
    assert sorted(row for part in parts for row in part) == list(range(count))
    members = [{names[row] for row in part} for part in parts]
    assert sum(map(len, members)) == len(sizes)
    for fraction, part in ((validation, parts[1]), (test, parts[2])):
        assert abs(len(part) - round(fraction * count)) <= max(sizes) / 2


@given(st.permutations(["b", "a", "c", "a", "b", "b"]))
def test_groups_are_numbered_by_their_names_in_order(texts: list[str]) -> None:
    groups = groups_of(RowLabels("column 'g'", texts))
    assert [groups.names[code] for code in groups.codes] == texts
    assert groups.names == ("a", "b", "c")


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["a", " a", "NA", ""]), st.just(float("nan"))), max_size=12))
def test_values_as_labels_are_text_and_what_is_missing_is_empty(values: list[Any]) -> None:
    texts = label_texts(values)
    for value, text in zip(values, texts, strict=True):
        assert text == ("" if value is None or value != value or value in ("NA", "") else str(value).strip())  # noqa: PLR0124
    assert label_texts(np.array([2.0, 2.5, 1e15])) == ["2", "2.5", "1000000000000000"]
    assert label_texts(np.array(["2024-01-02", "NaT"], "datetime64[D]")) == ["2024-01-02", ""]


@given(st.lists(st.sampled_from(["train", "TRAINING", "Valid", "val", "dev", "Validation", "test"]), min_size=1).filter(
    lambda texts: any(text.lower().startswith("train") for text in texts)))  # fmt: skip
def test_parts_have_several_spellings(texts: list[str]) -> None:
    assert set(parts_of(RowLabels("column 'fold'", texts)).tolist()) <= {"train", "validation", "test"}
    for text, part in zip(texts, parts_of(RowLabels("column 'fold'", texts)).tolist(), strict=True):
        assert part[0] == {"d": "v"}.get(text[0].lower(), text[0].lower())


# Modalities as groups, parts of an archive, images


def test_a_modality_whose_items_repeat_makes_groups_and_rows_without_it_stand_alone():
    found = rows()
    number = np.arange(ROWS)
    item = np.random.default_rng(2).normal(size=(20, 5))[number % 20]
    item[:10] = np.nan
    item[10:20, 2] = np.nan
    spoken = {**spec("memory", group="speech")}
    spoken["modalities"]["speech"] = {**spoken["modalities"]["x"], "shape": 5}
    parts = parts_in(split(spoken, {**found, "speech": item}))
    sets = [{row % 20 for row in part if row >= 20} for part in parts]
    assert sum(map(len, sets)) == 20
    assert sorted(row for part in parts for row in part) == list(range(ROWS))
    # Rows 10 to 19 have the same item but for one cell, and are items of their own: all 20 fall where they may.
    assert len({tuple(np.nan_to_num(row)) for row in item}) == 31


def test_a_column_that_is_a_modality_as_well_may_be_the_group():
    found = rows()
    found["y"] = np.arange(ROWS) % 10
    parts = parts_in(split(spec("memory", group="y"), found))
    assert sum(len({row % 10 for row in part}) for part in parts) == 10


def test_patterns_of_columns_pass_over_the_columns_of_splits():
    found = columns_of(rows())
    found = {"x_1": found["x_1"], "x_2": found["x_2"], "x_patient": found["patient"], "x_fold": found["fold"], "y": found["y"]}
    write_csv("rows.csv", found)
    document = spec({"source": "table", "path": "rows.csv", "columns": {"x": "x_*"}}, group="x_patient", split="x_fold")
    assert [len(part) for part in parts_in(split(document))] == [32, 16, 12]
    pq.write_table(pa.table(found), "rows.parquet")
    document = spec({"source": "parquet", "path": "rows.parquet", "columns": {"x": "x_*"}}, group="x_patient", split="x_fold")
    assert [len(part) for part in parts_in(split(document))] == [32, 16, 12]


def halves(found: Rows, **more: Any) -> None:
    arrays = {f"train_{name}": array[:40] for name, array in found.items()} | {f"test_{name}": array[40:] for name, array in found.items()}
    write_npz("rows.npz", {**arrays, **more})


def test_an_archive_with_parts_of_its_own_keeps_them_and_groups_divide_its_training_rows():
    found = {**rows(), "patient": np.arange(ROWS) // 4}
    halves(found)
    source = {"source": "npz", "path": "rows.npz", "parts": True}
    train, validation, test = parts_in(split(spec(source, group="patient", validation=0.2)))
    assert test == set(range(40, 60))
    assert len(validation) == 8
    assert {row // 4 for row in validation}.isdisjoint(row // 4 for row in train)
    with refused("data.split: 'fold', but this data source assigns rows to parts itself; leave data.split out"):
        split(spec(source, split="fold"))
    halves(rows())
    message = re.escape("array 'patient' (data.group): group 'p10' has row 10 in train and row 40 in test; put all rows of a group into ")
    with pytest.raises(DataError, match=message):
        split(spec(source, group="patient"))


def test_the_same_photograph_is_a_group_by_its_path_or_by_its_pixels(here: Path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(here / f"{number}.png")
    found = columns_of(rows())
    paths = [f"{row % 12}.png" if row >= 6 else "" for row in range(ROWS)]
    write_csv("rows.csv", {**found, "path": paths})
    for key, files in (("path", {"photo": "path"}), ("photo", {"photo": "path"})):
        document = spec({"source": "images", "table": "rows.csv", "files": files, "columns": {"x": "x_*"}}, group=key)
        document["modalities"]["photo"] = {"shape": [1, 8, 8], "encoder": "mlp", "likelihood": "bernoulli"}
        parts = parts_in(split(document))
        assert sorted(row for part in parts for row in part) == list(range(ROWS))
        assert sum(len({row % 12 for row in part if row >= 6}) for part in parts) == 12


# Mistakes


def where(way: str, path: Path) -> tuple[str, str]:
    """The file and the column as messages name them."""
    files = {
        "csv": path / "rows.csv", "parquet table": path / "rows.parquet", "stored parquet": path / "parts", "npz": path / "rows.npz",
        "npy": path / "arrays" / "patient.npy", "joined": path / "y.csv", "pandas": "data frame", "polars": "data frame",
        "columns": "arrays",
        "anndata": "AnnData object", "h5ad": path / "rows.h5ad", "h5mu": path / "rows.h5mu", "mudata": "MuData object",
    }  # fmt: skip
    noun = {**dict.fromkeys(("npz", "npy", "arrays"), "array"), **dict.fromkeys(("anndata", "h5ad", "h5mu", "mudata"), "obs column")}
    return (f"{files[way]}: " if way in files else ""), noun.get(way, "column")


PLACES = {
    "csv": "row 3 (line 5)", "stored parquet": "row 3 of a.parquet", "anndata": "observation 'o3'", "h5ad": "observation 'o3'",
    "h5mu": "observation 'o3'", "mudata": "observation 'o3'",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_group_and_an_unknown_part_name_their_row(way: str, here: Path):
    found = rows()
    found["patient"][3] = ""
    found["fold"][3] = "holdout"
    source, data = WAYS[way](found)
    origin, noun = where(way, here)
    place = PLACES.get(way, "row 3")
    if way == "joined":
        line = next(number for number, text in enumerate((here / "y.csv").read_text().splitlines(), 1) if text.startswith("r3,"))
        place = f"row {line - 2} (line {line})"
    end = "has no group; expected one in each row: fill it in, or leave the rows out"
    with refused(f"{origin}{noun} 'patient' (data.group): {place} {end}"):
        split(spec(source, group="patient"), data)
    origin = origin.replace("patient.npy", "fold.npy")
    with refused(f"{origin}{noun} 'fold' (data.split): {place} holds \"holdout\", {EXPECTED}"):
        split(spec(source, split="fold"), data)


@pytest.mark.parametrize("way", WAYS)
def test_an_unknown_column_has_a_suggestion(way: str):
    source, data = WAYS[way](rows())
    for key in ("group", "split"):
        word = {"group": "patiant", "split": "folds"}[key]
        said = rf"^data\.{key}: .*\bno (column|array|file) '{word}(\.npy)?'.* Did you mean '([xy]/obs/)?(patient|fold)'\?"
        with pytest.raises(DataError, match=said):
            split(spec(source, **{key: word}), data)


def changed(**columns: Any) -> Rows:
    return {**rows(), **columns}


FOLDS = np.array(["train"] * 40 + ["test"] * 20)
MISTAKES: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "no training rows": (
        changed(fold=np.array(["dev", "test"] * 30)), {"split": "fold"},
        "array 'fold' (data.split): no row for training, expected rows that hold train; found test 30, validation 30",
    ),
    "one group": (
        changed(patient=np.full(ROWS, "p1")), {"group": "patient"},
        "array 'patient' (data.group): all 60 rows are of group 'p1', so none can be held out; name a column of several groups, or "
        "set data.validation and data.test to 0",
    ),
    "a group in two parts": (
        changed(fold=FOLDS), {"group": "patient", "split": "fold"},
        "array 'patient' (data.group): group 'p10' has row 10 in train and row 40 in test; put all rows of a group into one part, or leave "
        "out data.split or data.group",
    ),
    "nearly one group": (
        changed(patient=np.array([0] * 59 + [1])), {"group": "patient"},
        "validation: a fraction of 0.1 of 60 rows in 1 group, the largest of 59, is none: give more rows, a larger fraction, or 0",
    ),
    "several values a row": (
        changed(patient=np.zeros((ROWS, 2))), {"group": "patient"},
        "data.group: array 'patient' is of shape (60, 2), expected one value for each row, (rows,)",
    ),
    "too few": (changed(patient=np.zeros(7)), {"group": "patient"}, "array 'patient': 7 values for 60 rows, expected one for each row"),
    "two missing": (
        changed(patient=np.array([np.nan, np.nan, *range(58)])), {"group": "patient"},
        "array 'patient' (data.group): row 0 and 1 more have no group; expected one in each row: fill it in, or leave the rows out",
    ),
    "no part": (
        changed(fold=np.array(["", *["train"] * 59])), {"split": "fold"}, f"array 'fold' (data.split): row 0 has no part; {EXPECTED}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_split_says_why_in_one_line(name: str):
    found, keys, message = MISTAKES[name]
    with refused(message):
        split(spec("memory", **keys), found)


def test_a_column_of_parts_is_no_modality(here: Path):
    found = columns_of({**rows(), "y": FOLDS})
    write_csv("rows.csv", found)
    document = spec({"source": "table", "path": "rows.csv", "columns": {"x": "x_*"}}, split="y")
    document["modalities"]["y"] |= {"shape": 2, "likelihood": "categorical"}
    message = "column 'y' (data.split): modality 'y' uses this column as well, which is constant in the training rows"
    with pytest.raises(DataError, match=re.escape(f"{here / 'rows.csv'}: {message}")):
        split(document)


def test_a_row_that_the_table_of_groups_lacks_has_no_group(here: Path):
    source, _ = as_joined(rows())
    lines = (here / "y.csv").read_text().splitlines(keepends=True)
    (here / "y.csv").write_text("".join(line for line in lines if not line.startswith("r7,")))
    message = f"{here / 'y.csv'}: column 'patient' (data.group): id 'r7', which only other files have, has no group; expected one in each"
    with pytest.raises(DataError, match=re.escape(message)):
        split(spec(source, group="patient"))


def test_modalities_of_an_object_that_disagree_are_a_mistake():
    mdata = multimodal(rows())
    mdata.mod["y"].obs["patient"] = "p0"
    with pytest.raises(
        DataError, match=r"obs column 'patient': observation 'o1' has 'p1' in one modality and 'p0' in another; name MODALITY/obs/patient$"
    ):
        split(spec({"source": "mudata", "keys": {"y": "y/X"}}, group="patient"), mdata)
    assert len(parts_in(split(spec({"source": "mudata", "keys": {"y": "y/X"}}, group="x/obs/patient"), mdata))[0]) == 44


def test_a_batch_and_a_source_without_columns_have_no_groups_to_name(here: Path):
    batch = Batch.complete({"x": torch.arange(2.0 * ROWS).reshape(ROWS, 2), "y": torch.arange(ROWS)[:, None] // 2 / ROWS})
    with refused("data.group: no array 'patient'. these rows are a batch; pass arrays by name, or a data frame"):
        split(spec("memory", group="patient"), batch)
    assert len(parts_in(split(spec("memory", group="y"), batch))[2]) == 12
    document = {"data": {"source": "digits", "split": "fold"}, "modalities": {"image": {**PART["part"], "shape": [1, 8, 8]}}}
    with refused("data.split: no column 'fold': this data source has none beside its modalities"):
        split(document)


def doubts(found: Rows, **keys: Any) -> list[str]:
    heard: list[Finding] = []
    split(spec("memory", **keys), found, heard)
    return [one.text for one in heard if one.kind == "split"]


def test_groups_of_one_row_and_groups_that_leave_parts_short_are_warnings():
    assert doubts(changed(patient=np.arange(ROWS)), group="patient") == [
        "data.group (array 'patient'): each of the 60 rows is a group of its own, which has no effect; check the column"
    ]
    large = changed(patient=np.array(["big"] * 56 + ["a", "b", "c", "d"]))
    assert doubts(large, group="patient", validation=0) == [
        "data.group (array 'patient'): test has 4 rows where data.test (0.2) asks for 12, because groups are not split; the largest of 5, "
        "'big', has 56 of 60 rows"
    ]
    assert doubts(rows(), group="patient") == []
    assert doubts(rows()) == []


# Training, its run folder, and what comes after


def test_from_the_command_line_a_run_goes_on_and_other_files_need_no_column(here: Path, monkeypatch: Any, capsys: Any):
    call = commands.in_this_process(monkeypatch, capsys, columns=120)
    found = columns_of(rows())
    write_csv("rows.csv", found)
    document = spec({"source": "table", "path": "rows.csv", "columns": {"x": "x_*"}})
    Path("spec.yaml").write_text(write_spec(spec_from_dict(document)))
    words = ("--out", "run", "--no-report", "--set", "data.group=patient", "--set", "data.split=fold")
    code, _, error = call("train", "spec.yaml", *words)
    assert code == 0, error
    run = open_run("run")
    assert (run.spec.data.group, run.spec.data.split) == ("patient", "fold")
    assert run.spec.data.source.kwargs["columns"] == {"x": ("x_1", "x_2"), "y": ("y",)}
    assert [len(part) for part in parts_in(run.splits)] == [32, 16, 12]
    assert call("evaluate", "run", "--metrics", "predictive", "--draws", "3")[0] == 0

    write_csv("new.csv", {"x_1": [1, ""], "x_2": [2, ""], "y": ["", 0.5]})
    code, _, error = call("impute", "run", "new.csv", "--out", "done.csv")
    assert (code, error.count("\n")) == (0, error.count("warning:")), error
    write_csv("rows.csv", {**found, "fold": np.roll(found["fold"], 1), "patient": np.roll(found["patient"], 1)})
    code, _, error = call("resume", "run", "--no-report")
    assert (code, error) == (2, "run: the rows have changed since this run began; train a new run in another folder\n")
    write_csv("rows.csv", {name: array for name, array in found.items() if name != "fold"})
    code, _, error = call("resume", "run", "--no-report")
    assert (code, error) == (
        2, f"data.split: {here / 'rows.csv'}: no column 'fold'. Found: x_1, x_2, y, patient\n"
    )  # fmt: skip


def test_a_run_on_arrays_goes_on_with_the_same_groups(here: Path):
    found = rows()
    arrays = {name: found[name] for name in ("x", "y", "patient")}
    run = nbridge.train(spec("memory", group="patient"), arrays, out="run")
    again = nbridge.resume("run", arrays)
    assert parts_in(again.splits) == parts_in(run.splits)
    with pytest.raises(RunError, match="the rows have changed since this run began"):
        nbridge.resume("run", {**arrays, "patient": np.arange(ROWS) // 4})
    completed = run.model.impute({**arrays, "x": np.full((ROWS, 2), np.nan)})
    assert completed["patient"].tolist() == found["patient"].tolist()
    assert np.isfinite(completed["x"]).all()


def shared(rng: np.random.Generator, count: int) -> np.ndarray:
    """A recording of 6 numbers in several rows."""
    return rng.normal(size=(count, 6))[np.arange(ROWS) % count].round(4)


def test_validate_warns_of_items_that_training_and_held_out_rows_share():
    rng = np.random.default_rng(0)
    found = {"number": np.arange(ROWS) % 7, **{f"v_{i}": column for i, column in enumerate(shared(rng, 20).T)}}
    write_csv("rows.csv", {**found, "patient": np.arange(ROWS) % 20})
    document: dict[str, Any] = spec({"source": "table", "path": "rows.csv", "columns": {"v": "v_*"}})
    document["modalities"] = {"v": {**PART["part"], "shape": 6}, "number": {**PART["part"], "shape": 1}}
    (warning,) = check_data(spec_from_dict(document)).warnings
    assert warning.startswith("modality 'v': ")
    assert warning.endswith(
        "validation rows share an item with training rows, so validation metrics reward memorisation; data.group: v "
        "keeps rows of one item together, or name the column of patients, speakers or photographs"
    )
    for group in ("v", "patient"):
        document["data"]["group"] = group
        assert check_data(spec_from_dict(document)).warnings == ()


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_vectors_of_few_values_repeat_by_chance_and_others_do_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert not telling(rng.integers(0, 2, (200, 8)))
    assert not telling(rng.normal(size=(200, 3)))
    assert telling(rng.normal(size=(200, 6))[rng.integers(0, 60, 200)])
    assert not telling(np.zeros((50, 100)))


# A first spec


def proposed(columns: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    found = keys_among({name: partial(label_texts, np.asarray(values)) for name, values in columns.items()})
    return dict(found.options), found.remarks


FOUR = [f"s{row % 15}" for row in range(ROWS)]
PROPOSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a patient": ({"patient": FOUR}, {"group": "patient"}),
    "a number of a subject": ({"SubjectID": np.arange(ROWS) // 4}, {"group": "SubjectID"}),
    "speakers by name": ({"speaker": [f"{'abcdefghijklmno'[row % 15]}na" for row in range(ROWS)]}, {"group": "speaker"}),
    "a site by its code": ({"recruiting_site_id": FOUR}, {"group": "recruiting_site_id"}),
    "patients before sites": ({"site": [f"c{row % 12}" for row in range(ROWS)], "patient": FOUR}, {"group": "patient"}),
    "a family of plants": ({"family": [f"{'abcdefghijklmno'[row % 15]}aceae" for row in range(ROWS)]}, {}),
    "persons in a household": ({"household": np.arange(ROWS) % 6, "n_persons": np.arange(ROWS) % 15}, {}),
    "donors of a study": ({"study_donor": FOUR}, {"group": "study_donor"}),
    "members by number": ({"member_id": FOUR, "member": np.arange(ROWS) % 15}, {"group": "member_id"}),
    "places of members in a household": ({"household_member": np.arange(ROWS) % 12}, {}),
    "visits of a patient": ({"visits_per_patient": np.arange(ROWS) % 15, "n_patient": np.arange(ROWS) % 15}, {}),
    "nobody twice": ({"patient": np.arange(ROWS)}, {}),
    "one missing": ({"patient": ["", *FOUR[1:]]}, {}),
    "nearly one patient": ({"patient": [0] * 50 + list(range(1, 11))}, {"group": "patient"}),
    "parts": ({"split": ["train"] * 50 + ["test"] * 10, "y": FOUR}, {"split": "split"}),
    "parts in several spellings": ({"my_fold": ["Training", "dev"] * 30}, {"split": "my_fold"}),
    "folds": ({"fold": np.arange(ROWS) % 5}, {}),
    "no training rows": ({"set": ["test", "dev"] * 30}, {}),
    "parts and patients": ({"patient": [f"p{row // 4}" for row in range(ROWS)], "part": ["train"] * 40 + ["test"] * 20},
                           {"split": "part", "group": "patient"}),
    "patients in two parts": ({"patient": FOUR, "part": ["train"] * 40 + ["test"] * 20}, {"split": "part"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROPOSED)
def test_columns_of_groups_and_parts_are_known_by_their_names_and_their_values(name: str):
    columns, options = PROPOSED[name]
    found, remarks = proposed(columns)
    assert found == options
    assert sum(remark.startswith("data.") for remark in remarks) == len(options)


def test_init_writes_groups_and_parts_with_their_reasons_and_the_spec_trains():
    found = {**columns_of(rows()), "fold": np.where(np.arange(ROWS) % PATIENTS < 12, "train", "test")}
    write_csv("rows.csv", found)
    made = init(["rows.csv"])
    assert (made.spec.data.group, made.spec.data.split) == ("patient", "fold")
    assert {"patient", "fold"}.isdisjoint(made.spec.modalities)
    assert "  # 60 rows of 15 patients; they stay in one part: else validation praises what was memorised\n  group: patient\n" in made.text
    assert "  # assigns rows to parts: train 48, test 12; shares below of parts that it has count for nothing\n  split: fold\n" in made.text
    test = build_data(made.spec, build_model(made.spec)).test
    assert test is not None
    assert len(test) == 12
    arrays = {name: array for name, array in rows().items() if name != "fold"}
    write_npz("rows.npz", arrays)
    made = init(["rows.npz"])
    assert (made.spec.data.group, list(made.spec.modalities)) == ("patient", ["x", "y"])
    assert nbridge.init(arrays).spec.data.group == "patient"
    pytest.importorskip("anndata")
    made = nbridge.init(annotated(arrays))
    assert (made.spec.data.group, list(made.spec.modalities)) == ("patient", ["X"])


def test_init_proposes_a_modality_whose_items_repeat(here: Path):
    rng = np.random.default_rng(0)
    write_npz("rows.npz", {"speech": shared(rng, 20), "image": rng.normal(size=(ROWS, 8))})
    made = init(["rows.npz"])
    assert made.spec.data.group == "speech"
    assert made.remarks == (
        "data.group: speech: 60 of 60 rows share their speech with others (20 different), so that rows of one are kept in one part",
    )
    parts = build_data(made.spec, build_model(made.spec))
    told = [{tuple(row) for row in part.slice(0, len(part)).values["speech"].tolist()} for part in (parts.train, parts.test) if part]
    assert told[0].isdisjoint(told[1])
    write_csv("rows.csv", {"y": rng.normal(size=ROWS), **{f"v_{i}": column for i, column in enumerate(shared(rng, 20).T)}})
    assert init(["rows.csv"]).spec.data.group == "v"
    write_npz("few.npz", {"speech": shared(rng, 5), "image": rng.normal(size=(ROWS, 8))})
    assert init(["few.npz"]).spec.data.group is None


def test_init_proposes_a_photograph_that_several_rows_have(here: Path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(here / f"{number}.png")
    write_csv("rows.csv", {"y": rng.normal(size=ROWS), "photo": [f"{row % 20}.png" for row in range(ROWS)]})
    assert init(["rows.csv"]).spec.data.group == "photo"
    (here / "shots").mkdir()
    for row in range(ROWS):
        (here / "shots" / f"{row}.png").write_bytes((here / f"{row % 20}.png").read_bytes())
    write_csv("table.csv", {"id": np.arange(ROWS), "y": rng.normal(size=ROWS)})
    made = init(["table.csv", "shots"])
    assert made.spec.data.group == "shots"
    parts = build_data(made.spec, build_model(made.spec))
    assert parts.test_ids is not None
    assert parts.train_ids is not None
    assert {int(one) % 20 for one in parts.test_ids}.isdisjoint(int(one) % 20 for one in parts.train_ids)
