"""Results without any tuning: `nbridge init` infers the spec, `nbridge train` trains it, and the verdict is the result.

    python -m benchmarks.guessed [FILE ...] [--seeds 3]

prints a table of means ± standard deviations over seeds, which split the rows and train; figures are those of the verdict, on test rows.
Without FILE they are the table of penguins in NBRIDGE_DATA, and 100 classes of 16 rows each, with three noisy vectors of 64 numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np

import nbridge
from benchmarks.readme import spread
from nbridge.data.folders import data_folder

CLASSES, ROWS, WIDTH, NOISE = 100, 16, 64, 1.2


def hundred_classes(folder: Path) -> Path:
    """A file of vectors around the centres of their class, and the class."""
    rng = np.random.default_rng(0)
    species = rng.permutation(np.repeat(np.arange(CLASSES), ROWS))
    margin, outline, texture = (
        (rng.normal(size=(CLASSES, WIDTH))[species] + NOISE * rng.normal(size=(len(species), WIDTH))).astype(np.float32) for _ in range(3)
    )
    np.savez(folder / "hundred.npz", species=species, margin=margin, outline=outline, texture=texture)
    return folder / "hundred.npz"


def rows_of(file: Path, folder: Path, seeds: int) -> Iterator[str]:
    """The lines of a file's table, one per modality."""
    spec = folder / f"{file.stem}.yaml"
    spec.write_text(nbridge.init(file).text)
    found: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for seed in range(seeds):
        run = nbridge.train(spec, overrides=[f"data.seed={seed}", f"training.seed={seed}"], device="cpu")
        for one in run.verdict.modalities:
            if not one.reason:
                found[one.target, one.figure].append((one.model, one.baseline, one.rows))
    for (target, figure), values in found.items():
        model, baseline, rows = zip(*values, strict=True)
        yield f"| {file.stem} | {target} | {figure} | {spread(model)} | {spread(baseline)} | {mean(rows):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), data_folder()
        files = options.files or [*([data / "tables" / "penguins.csv"] if data else []), hundred_classes(folder)]
        print("| file | imputed from all others | figure | model | best baseline | test rows |\n|---|---|---|---|---|---|")
        for file in files:
            for line in rows_of(file, folder, options.seeds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
