"""Figures 4 to 7 of the paper as image grids, from the runs of the tables.

    python -m benchmarks.paper.figures [--scale cpu|paper] [--out runs/paper]

| figure | run | rows | columns |
|---|---|---|---|
| 4 | table3, faces from attributes | an attribute each, added to the most frequent ones | draws |
| 5 | table1, digits from a label | a label each | draws |
| 6, 7 | table4, clothes from a digit and digits from clothes | a test row each | what was given, then draws |

Each system gets a file, figure-N-MODEL.png, next to its runs. Images of faces come from CelebA, whose licence forbids sharing them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave
from torch import Tensor

from benchmarks.paper.protocol import ROOT
from nbridge.runs.run import Run, open_run

DRAWS, ROWS = 10, 10


def digits_from_labels(run: Run) -> Tensor:
    """Figure 5: a row for each label, a column for each draw."""
    images = [run.model.generate(DRAWS, {"label": label})["image"] for label in range(10)]
    return torch.stack(images)


def images_from_images(run: Run, given: str, target: str) -> Tensor:
    """Figures 6 and 7: the given image, then draws of the other."""
    assert run.splits.test is not None
    rows = first_of_each_class(run.splits.test.sample().values["label"])
    batch = run.splits.test.index(rows)
    drawn = run.model.impute(batch.only(given), samples=DRAWS, noise=False).values[target]
    return torch.cat([batch.values[given][:, None], drawn.transpose(0, 1)], dim=1)


def faces_from_attributes(run: Run) -> Tensor:
    """Figure 4: a row for each attribute, added to the most frequent ones; a column for each draw."""
    attributes = run.splits.train.sample().values["attributes"]
    usual = (attributes.mean(0) > 0.5).float()
    rows = [usual] + [torch.where(torch.arange(len(usual)) == index, 1.0, usual) for index in range(min(len(usual), ROWS - 1))]
    return torch.stack([run.model.generate(DRAWS, {"attributes": row})["image"] for row in rows])


def first_of_each_class(labels: Tensor) -> Tensor:
    return torch.stack([torch.nonzero(labels == label)[0, 0] for label in range(int(labels.max()) + 1)])


def write(path: Path, grid: Tensor, zoom: int = 2) -> None:
    """Writes images of shape (R, C, channels, H, W)."""
    pixels = grid.clamp(0, 1).expand(-1, -1, 3, -1, -1).permute(0, 3, 1, 4, 2)
    rows, height, columns, width, _ = pixels.shape
    picture = pixels.reshape(rows * height, columns * width, 3).numpy().astype(np.float32)
    imsave(path, picture.repeat(zoom, 0).repeat(zoom, 1))
    print(path)


FIGURES = {
    "4": ("table3", faces_from_attributes),
    "5": ("table1", digits_from_labels),
    "6": ("table4", lambda run: images_from_images(run, "mnist", "fashion")),
    "7": ("table4", lambda run: images_from_images(run, "fashion", "mnist")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("cpu", "paper"), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "paper", help="folder of the runs")
    options = parser.parse_args()
    for number, (table, grid) in FIGURES.items():
        for folder in sorted((options.out / f"{table}-{options.scale}").glob("*/seed-0")):
            model = folder.parent.name
            if model not in ("vae", "joint"):
                write(folder.parent.parent / f"figure-{number}-{model}.png", grid(open_run(folder)))


if __name__ == "__main__":
    main()
