"""The files that pages of the site name as yours: small, made from random numbers, and of the kinds that the pages describe."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from PIL import Image

import nbridge

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = 96


def write(folder: Path) -> None:
    """Writes all files and runs into a folder."""
    rng = np.random.default_rng(0)
    for name in ("modality_specs", "examples"):
        (folder / name).symlink_to(ROOT / name)
    _patients(folder, rng)
    _cells(folder, rng)
    _arrays(folder, rng)
    _images(folder, rng)
    _faces(folder, rng)
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("patients.yaml").write_text(nbridge.init("patients.csv").text)
        nbridge.train("patients.yaml", out="runs/patients")
        nbridge.train("modality_specs/digits.yaml", out="runs/digits")
        nbridge.train("cells.yaml", out="runs/cells")
        _omics(folder, rng)
    finally:
        os.chdir(before)


def _table(path: Path, heads: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *rows])


def _patients(folder: Path, rng: np.random.Generator) -> None:
    """patients.csv: six columns of a clinic and three of a laboratory, some of them empty."""
    heads = ["id", "patient", "age", "bmi", "sex", "stage", "visits", "lab_crp", "lab_iron", "lab_sodium"]
    rows: list[list[object]] = []
    for number in range(ROWS):
        ill = rng.normal()
        lab: list[object] = [round(float(rng.normal(ill, 0.5)), 2) for _ in range(3)] if number % 4 else ["", "", ""]
        person = [round(50 + 8 * ill + float(rng.normal()), 1), round(25 + float(rng.normal()), 2), "fm"[number % 2]]
        stage = "" if number % 5 == 0 else ["I", "II", "III", "IV"][int(np.clip(ill + 2, 0, 3))]
        rows.append([f"row{number}", f"p{number // 4}", *person, stage, int(rng.poisson(2 + number % 3)), *lab])
    _table(folder / "patients.csv", heads, rows)
    ids = [row[0] for row in rows]
    _table(folder / "clinical.csv", ["id", *heads[2:7]], [[name, *row[2:7]] for name, row in zip(ids, rows, strict=True)])
    _table(folder / "lab.csv", ["id", *heads[7:]], [[name, *row[7:]] for name, row in zip(ids, rows, strict=True) if row[7] != ""])
    folds = ["train", "validation", "test", "train"]
    _table(folder / "visits.csv", [*heads, "fold"], [[*row, folds[number // 4 % 4]] for number, row in enumerate(rows)])


def _cells(folder: Path, rng: np.random.Generator) -> None:
    """cells.csv: six measurements in three batches."""
    heads = [*(f"gene_{number}" for number in range(6)), "batch", "age"]
    values = rng.normal(size=(ROWS, 6)).round(3)
    values[::7, 2] = np.nan
    rows: list[list[object]] = [
        [*("" if np.isnan(value) else value for value in row), "ABC"[number % 3], 40 + number % 30] for number, row in enumerate(values)
    ]
    _table(folder / "cells.csv", heads, rows)
    (folder / "cells.yaml").write_text(
        "data: {source: table, path: cells.csv, columns: {genes: gene_*}}\n"
        "covariates: {batch: categorical, age: normal}\n"
        "modalities: {genes: {shape: 6, encoder: mlp, likelihood: normal}}\n"
    )


def _arrays(folder: Path, rng: np.random.Generator) -> None:
    """patients.npz and rows.npz: arrays by modality."""
    tops = np.random.default_rng(1).random((5, 4, 8))
    np.savez(folder / "rows.npz", top=tops)
    arrays = {
        "mrna": rng.normal(size=(ROWS, 6)),
        "mirna": rng.poisson(3.0, (ROWS, 4)).astype(float),
        "scan": rng.random((ROWS, 1, 8, 8)),
        "subtype": rng.integers(0, 3, ROWS).astype(float),
    }
    arrays["mrna"][:20] = np.nan
    np.savez(folder / "patients.npz", **arrays)


def _images(folder: Path, rng: np.random.Generator) -> None:
    """shots/front and shots/back: images by name, some of them missing."""
    for side, kept in (("front", 30), ("back", 24)):
        (folder / "shots" / side).mkdir(parents=True)
        for number in range(kept):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "shots" / side / f"p{number}.png")


def _faces(folder: Path, rng: np.random.Generator) -> None:
    """faces/ and attributes.csv: images by name, and two columns that are joined on it."""
    (folder / "faces").mkdir()
    for number in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "faces" / f"f{number}.png")
    rows: list[list[object]] = [[f"f{number}", 20 + number, "fm"[number % 2]] for number in range(40)]
    _table(folder / "attributes.csv", ["name", "age", "sex"], rows)


def _omics(folder: Path, rng: np.random.Generator) -> None:
    """study.h5mu: RNA counts and proteins of cells, some without proteins."""
    anndata, mudata = __import__("anndata"), __import__("mudata")
    names = [f"cell{number}" for number in range(ROWS)]
    rna = anndata.AnnData(rng.poisson(2.0, (ROWS, 12)).astype(np.float32))
    rna.obs_names, rna.var_names = names, [f"gene{number}" for number in range(12)]
    rna.obs["cell_type"] = [("B", "T", "NK")[number % 3] for number in range(ROWS)]
    prot = anndata.AnnData(rng.normal(size=(70, 4)).astype(np.float32))
    prot.obs_names, prot.var_names = names[:70], [f"CD{number}" for number in range(4)]
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"rna": rna, "prot": prot}).write(folder / "study.h5mu")
    Path("study.yaml").write_text(nbridge.init("study.h5mu").text)
    nbridge.train("study.yaml", out="runs/study")
