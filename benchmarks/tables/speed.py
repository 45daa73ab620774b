"""Speed on a made table: seconds of `nbridge.train` with the drafted spec, and rows a second of `impute`."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from pyarrow import csv

import nbridge
from benchmarks.tables.data import Column, Table

ROWS, NUMBERS, PAIRS, CLASSES, ORDERED, FACTORS, HOLES = 10_000, 30, 10, 10, 10, 6, 0.2


def made(rows: int = ROWS, seed: int = 0, width: int = 1) -> Table:
    """A mixed table that a few factors cause: of 60 columns 30 numbers, 10 of two classes, 10 of four and 10 of five in order, with holes.

    The names of columns say nothing of their kinds, so that a draft makes one modality of them.

    A larger ``width`` divides the number of columns.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, FACTORS))
    columns: list[Column] = []
    values: list[np.ndarray] = []
    for kind, count in (("number", NUMBERS), ("pair", PAIRS), ("class", CLASSES), ("level", ORDERED)):
        for _ in range(count // width):
            score = z @ rng.normal(size=FACTORS) / np.sqrt(FACTORS) + 0.5 * rng.normal(size=rows)
            if kind == "number":
                columns.append(Column(f"x{len(columns) + 1}"))
                values.append(score)
                continue
            names = {"pair": ("no", "yes"), "class": ("a", "b", "c", "d"), "level": (1.0, 2.0, 3.0, 4.0, 5.0)}[kind]
            columns.append(Column(f"x{len(columns) + 1}", names, kind == "level", kind == "level"))
            edges = np.quantile(score, np.linspace(0, 1, len(names) + 1)[1:-1])
            place = np.searchsorted(edges, score).astype(float)
            values.append(place if kind != "class" else np.array([2.0, 0.0, 3.0, 1.0])[place.astype(int)])
    table = np.stack(values, 1)
    table[rng.random(table.shape) < HOLES] = np.nan
    return Table("made", tuple(columns), table, {"all": tuple(column.name for column in columns)})


def measure(rows: int = ROWS, width: int = 1) -> dict[str, float]:
    """Seconds to draft and to train, and rows a second of `impute` for a table in memory, without a first call to warm up."""
    table = made(rows, width=width)
    frame = table.arrow(table.values)
    with tempfile.TemporaryDirectory() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file, spec = Path(found) / "made.csv", Path(found) / "made.yaml"
        csv.write_csv(frame, file)
        started = time.perf_counter()
        spec.write_text(nbridge.init(file).text)
        drafted = time.perf_counter()
        model = nbridge.train(spec, device="cpu").model
        trained = time.perf_counter()
        model.impute(frame.slice(0, 100))
        before = time.perf_counter()
        model.impute(frame)
    return {"init": drafted - started, "train": trained - drafted, "rows per second": rows / (time.perf_counter() - before)}
