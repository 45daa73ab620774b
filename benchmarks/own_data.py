"""From a user's csv to a completed csv, with the commands only and without editing a file.

    python benchmarks/own_data.py [--rows 5000] [--seeds 1]

makes a table of 60 columns in 4 modalities (clinical data of mixed types, laboratory values, counts, a stage), of which 30 % of blocks and
5 % of single laboratory values are missing, runs init, validate --data, train and impute, and writes benchmarks/results/own_data.json and a
table in benchmarks/README.md: seconds of each command, and errors of hidden cells, also of KNNImputer and the mean.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from readme import replace_section
from sklearn.impute import KNNImputer

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "own_data.json"
MISSING, CELLS = 0.3, 0.05
STAGES, SEXES = ("I", "II", "III", "IV"), ("female", "male")
Table = dict[str, list[str]]


def made(rows: int, seed: int) -> tuple[Table, Table]:
    """A table with missing values, and the truth, generated from six dimensions through slightly nonlinear maps with noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 6))

    def seen(columns: int, noise: float) -> np.ndarray:
        straight = z @ rng.normal(size=(6, columns)) / 6**0.5
        return 1.2 * straight + 0.4 * np.tanh(2 * z @ rng.normal(size=(6, columns)) / 6**0.5) + noise * rng.normal(size=(rows, columns))

    clinical, lab, counts = seen(6, 0.5), seen(30, 0.5), rng.poisson(np.exp(0.7 * seen(20, 0.2).clip(-3, 5) + 1.5))
    truth: Table = {"sample": [f"S{row:05}" for row in range(rows)]}
    truth["clin_age"] = [str(int(x)) for x in (55 + 12 * clinical[:, 0]).clip(18, 99)]
    truth |= {
        f"clin_{name}": [f"{100 + 15 * x:.1f}" for x in clinical[:, place]]
        for place, name in enumerate(("bmi", "sbp", "dbp", "hr", "t"), 1)
    }
    truth["clin_sex"] = [SEXES[int(x > 0)] for x in z[:, 1] + 0.5 * rng.normal(size=rows)]
    truth["clin_smoker"] = [("no", "yes")[int(x > 0.6)] for x in z[:, 2] + 0.5 * rng.normal(size=rows)]
    truth["stage"] = [STAGES[place] for place in np.digitize(z[:, 0] + 0.3 * rng.normal(size=rows), [-0.8, 0.2, 1])]
    truth |= {f"lab_{place + 1}": [f"{5 + x:.2f}" for x in lab[:, place]] for place in range(30)}
    truth |= {f"rna_{place + 1}": [str(x) for x in counts[:, place]] for place in range(20)}
    blocks: tuple[str, ...] = ("clin", "stage", "lab", "rna")
    hidden: dict[str, np.ndarray] = dict(zip(blocks, rng.random((4, rows)) < MISSING, strict=True))
    hidden["clin"] &= ~np.all(list(hidden.values()), axis=0)
    given: Table = {}
    for column, cells in truth.items():
        gone = hidden.get(column.partition("_")[0], np.zeros(rows, dtype=bool))
        gone = gone | (rng.random(rows) < CELLS) if column.startswith("lab") else gone
        given[column] = ["" if empty else cell for cell, empty in zip(cells, gone, strict=True)]
    return given, truth


def write(path: Path, table: Table) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(table)
        out.writerows(zip(*table.values(), strict=True))


def read(path: Path) -> Table:
    header, *rows = csv.reader(path.read_text().splitlines())
    return {name: list(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def seconds(folder: Path, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nbridge", *arguments], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def errors(given: Table, truth: Table, completed: Table) -> dict[str, float]:
    """RMSE of hidden cells in deviations of their column, by modality, and the share of hidden classes that are right."""
    numbers = [column for column in truth if column not in ("sample", "stage", "clin_sex", "clin_smoker")]
    before, after, true = (
        np.array([[float(x) if x else np.nan for x in table[c]] for c in numbers]).T for table in (given, completed, truth)
    )
    hidden, scale = np.isnan(before), true.std(0)
    middle, spread = np.nanmean(before, 0), np.nanstd(before, 0)
    means = np.broadcast_to(middle, true.shape)
    others = {
        "nbridge": after,
        "KNNImputer, 5": KNNImputer(n_neighbors=5).fit_transform((before - middle) / spread) * spread + middle,
        "KNNImputer, 20": KNNImputer(n_neighbors=20).fit_transform((before - middle) / spread) * spread + middle,
        "mean": means,
    }
    found: dict[str, float] = {}
    for block in ("clin", "lab", "rna"):
        columns = [place for place, name in enumerate(numbers) if name.startswith(block)]
        for name, values in others.items():
            off = ((values - true) / scale)[:, columns][hidden[:, columns]]
            found[f"RMSE {block}, {name}"] = float(np.sqrt((off**2).mean()))
    for column in ("stage", "clin_sex", "clin_smoker"):
        cells = [(one, other) for one, other, cell in zip(completed[column], truth[column], given[column], strict=True) if not cell]
        found[f"right {column}, nbridge"] = float(np.mean([one == other for one, other in cells]))
        known = [cell for cell in given[column] if cell]
        most = max(set(known), key=known.count)
        found[f"right {column}, mean"] = float(np.mean([other == most for _, other in cells]))
    return found | _neighbours(given, truth)


def _neighbours(given: Table, truth: Table) -> dict[str, float]:
    """Classes from the same neighbours: the largest of the one-hot columns."""
    names = [column for column in truth if column != "sample"]
    classes = {"stage": STAGES, "clin_sex": SEXES, "clin_smoker": ("no", "yes")}
    columns, places = [], {}
    for name in names:
        cells = given[name]
        if name in classes:
            places[name] = slice(len(columns), len(columns) + len(classes[name]))
            columns += [[float(cell == one) if cell else np.nan for cell in cells] for one in classes[name]]
        else:
            columns.append([float(cell) if cell else np.nan for cell in cells])
    table = np.array(columns).T
    filled = KNNImputer(n_neighbors=20).fit_transform((table - np.nanmean(table, 0)) / np.nanstd(table, 0))
    filled = filled * np.nanstd(table, 0) + np.nanmean(table, 0)
    found = {}
    for name, place in places.items():
        guess = filled[:, place].argmax(1)
        pairs = [(classes[name][one], other) for one, other, cell in zip(guess, truth[name], given[name], strict=True) if not cell]
        found[f"right {name}, KNNImputer, 20"] = float(np.mean([one == other for one, other in pairs]))
    return found


def run(rows: int, seed: int) -> dict[str, dict[str, float]]:
    given, truth = made(rows, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "rows.csv", given)
        times = {
            "init": seconds(folder, "init", "rows.csv"),
            "validate --data": seconds(folder, "validate", "rows.yaml", "--data"),
            "train": seconds(folder, "train", "rows.yaml", "--out", "run"),
            "impute": seconds(folder, "impute", "run", "rows.csv", "--out", "completed.csv"),
        }
        completed = read(folder / "completed.csv")
    for column, cells in given.items():
        assert all(cell in ("", after) for cell, after in zip(cells, completed[column], strict=True)), column
    return {"seconds": times, "errors": errors(given, truth, completed)}


def table(result: dict) -> str:
    times = result["seconds"]
    took = ", ".join(f"{verb} {one:.1f} s" for verb, one in times.items())
    seeds = f"{result['seeds']} seed{'s' if result['seeds'] > 1 else ''}"
    lines = [
        f"{result['rows']:,} rows, 60 columns, {result['cores']} cores: {took}; {sum(times.values()):.0f} s together. Means of {seeds}.",
        "",
        "| hidden cells | nbridge | KNNImputer, 5 | KNNImputer, 20 | mean, or most frequent |",
        "|---|---|---|---|---|",
    ]
    for what in dict.fromkeys(key.partition(", ")[0] for key in result["errors"]):
        cells = [result["errors"].get(f"{what}, {name}") for name in ("nbridge", "KNNImputer, 5", "KNNImputer, 20", "mean")]
        lines.append(f"| {what} | " + " | ".join("-" if cell is None else f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the table and write nothing")
    options = parser.parse_args()
    found = [run(options.rows, seed) for seed in range(options.seeds)]
    merged = {part: {key: float(np.mean([one[part][key] for one in found])) for key in found[0][part]} for part in ("seconds", "errors")}
    result = {"rows": options.rows, "seeds": options.seeds, "cores": os.cpu_count(), **merged}
    print(table(result))
    if not options.show:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        replace_section("own-data", table(result))


if __name__ == "__main__":
    main()
