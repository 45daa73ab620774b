"""The suite's tasks: names, shapes and likelihoods of modalities, and their rows; nothing else about a model.

Encoders follow from shapes by one rule for all tasks (`encoder_of`), and everything else is the library's default. Rows are subsampled so
that a run takes seconds to minutes on a CPU; the sizes are in each task's fields. Test rows depend on the task and the seed alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.data.benchmarks.celeba import CelebA
from nbridge.data.benchmarks.digits import Digits
from nbridge.data.benchmarks.mnist import MNIST
from nbridge.data.benchmarks.paired import MNISTFashion
from nbridge.data.benchmarks.polymnist import PolyMNIST
from nbridge.data.folders import data_folder
from nbridge.data.numpy.archive import read_npz
from nbridge.data.numpy.npz import NPZ
from nbridge.data.split import Dataset, Splits, split
from nbridge.data.tables.source import Table

Shape = tuple[int, ...]
Likelihood = str | Mapping[str, Any]
Modalities = Mapping[str, tuple[Shape, Likelihood]]
"""Shape and likelihood by name."""
Kind = str
"""``classes``, ``attributes``, ``reals`` or ``images``: which figures a modality has."""

SMALLEST_IMAGE = 12
"""Minimum side of an image for convolutions."""
CLASSES, ATTRIBUTES = "categorical", {"type": "bernoulli", "attributes": True}
VIEW, VIEW_READ = (3, 14, 14), (3, 28, 28)


@dataclass(frozen=True)
class Task:
    """One data set with a question: how well each modality is imputed from any others.

    Arguments:
        name: What the command line calls it.
        title: What tables call it.
        modalities: Shape and likelihood of each modality.
        read: All rows by seed, with the label if judges need one that no modality is.
        label: What judges of images tell; None where nothing is judged.
        test: Share of test rows, where the source has no test part.
        train_rows: Training and validation rows at most, drawn by the seed.
        test_rows: Test rows at most, drawn by the seed.
        judge_rows: Values and labels that the judge of an image learns from, by its name; the rows of the task when left out.
    """

    name: str
    title: str
    modalities: Modalities
    read: Callable[[int], Dataset]
    label: str | None = None
    test: float = 0.3
    train_rows: int | None = None
    test_rows: int | None = None
    judge_rows: Callable[[str], tuple[Tensor, Tensor]] | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: shape for name, (shape, _) in self.modalities.items()}

    def kind(self, name: str) -> Kind:
        """Which figures a modality has."""
        shape, likelihood = self.modalities[name]
        if likelihood == CLASSES:
            return "classes"
        if likelihood == ATTRIBUTES:
            return "attributes"
        return "images" if len(shape) == 3 else "reals"

    def elements(self, name: str) -> int:
        """Numbers of a row of a modality; 1 for a class."""
        return 1 if self.kind(name) == "classes" else math.prod(self.modalities[name][0])

    @property
    def images(self) -> list[str]:
        """The modalities that judges score."""
        return [name for name in self.modalities if self.kind(name) == "images"] if self.label else []


def encoder_of(shape: Shape) -> str:
    """Convolutions for images of `SMALLEST_IMAGE` pixels a side or more, an MLP for everything else."""
    return "conv" if len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE else "mlp"


def split_of(task: Task, seed: int) -> Splits:
    """Training, validation (a tenth) and test rows, with the judges' label where it is no modality."""
    return _split(task.name, seed)


@lru_cache(maxsize=2)
def _split(name: str, seed: int) -> Splits:
    task = TASKS[name]
    found = split(task.read(seed), validation=0.1, test=task.test, seed=seed)
    assert found.validation is not None
    assert found.test is not None
    share = 1.0 if task.train_rows is None else min(1.0, task.train_rows / (len(found.train) + len(found.validation)))
    train, validation = (rows.sample(round(share * len(rows))) for rows in (found.train, found.validation))
    return Splits(train, validation, found.test.sample(task.test_rows))


# Readers


def _digits(_seed: int) -> Dataset:
    return Digits().load({"top": (1, 4, 8), "bottom": (1, 4, 8), "label": (10,)})


def _mnist(_seed: int) -> Dataset:
    return MNIST().load({"image": (1, 28, 28), "label": (10,)})


def _mnist_fashion(_seed: int) -> Dataset:
    return MNISTFashion().load({"fashion": (1, 28, 28), "mnist": (1, 28, 28), "label": (10,)})


def training_part(read: Callable[[int], Dataset], name: str) -> tuple[Tensor, Tensor]:
    """All rows of a source's training part, for a judge."""
    data = read(0)
    assert data.part is not None
    rows = torch.from_numpy(data.part != "test")
    batch = data.batch.subset(rows).sample()
    return batch.values[name], batch.values["label"]


VIEWS = tuple(f"view{number}" for number in range(5))
POLYMNIST_ROWS, POLYMNIST_JUDGED = 12_000, 60_000


def _polymnist(missing: float, _seed: int) -> Dataset:
    source = PolyMNIST(rows=POLYMNIST_ROWS, test_rows=2_000, missing=missing)
    data = source.load({**dict.fromkeys(VIEWS, VIEW_READ), "label": (10,)})
    batch = data.batch.sample()
    views = {name: halved(batch.values[name]) for name in VIEWS}
    return replace(data, batch=Batch({**views, "label": batch.values["label"]}, batch.present))


def _polymnist_judged(name: str) -> tuple[Tensor, Tensor]:
    data = PolyMNIST(rows=POLYMNIST_JUDGED, test_rows=2_000).load({name: VIEW_READ, "label": (10,)})
    assert data.part is not None
    batch = data.batch.subset(torch.from_numpy(data.part == "train")).sample()
    return halved(batch.values[name]), batch.values["label"]


def halved(views: Tensor) -> Tensor:
    """Views of half the height and width."""
    return F.avg_pool2d(views.nan_to_num(), 2)


def _mfeat(_seed: int) -> Dataset:
    return NPZ(path="mfeat/mfeat.npz", keys={"label": "labels"}).load({name: shape for name, (shape, _) in MFEAT.items()})


def _tcga(_seed: int) -> Dataset:
    source = NPZ(path="tcga_brca_mixomics/tcga_brca.npz", parts=True, id="ids", classes={"subtype": ["Basal", "Her2", "LumA"]})
    return source.load({name: shape for name, (shape, _) in TCGA.items()})


def _har(_seed: int) -> Dataset:
    arrays = read_npz("sp_sw_har/sp_sw_har_50hz_w64.npz")
    values = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in HAR if name != "activity"}
    values["activity"] = torch.from_numpy(np.unique(arrays["label"], return_inverse=True)[1].astype(np.int64))
    return Dataset(Batch.complete(values), groups=arrays["subject"])


CELEBA_SHAPE = (3, 32, 32)


def _celeba(_seed: int) -> Dataset:
    return CelebA().load({"image": CELEBA_SHAPE, "attributes": (18,)})


def _table(name: str, columns: Mapping[str, tuple[str, ...]], modalities: Modalities, _seed: int) -> Dataset:
    folder = data_folder()
    assert folder is not None, "NBRIDGE_DATA is not set"
    with (folder / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    discrete = [column for modality, (_, what) in modalities.items() if what != "normal" for column in columns.get(modality, (modality,))]
    classes = {column: tuple(sorted({row[column] for row in cells} - {""})) for column in discrete}
    source = Table(path=f"tables/{name}.csv", columns=dict(columns), classes=dict(classes))
    return source.load({modality: shape for modality, (shape, _) in modalities.items()})


# Tasks

HALVES: Modalities = {"top": ((1, 4, 8), "bernoulli"), "bottom": ((1, 4, 8), "bernoulli"), "label": ((10,), CLASSES)}
POLYMNIST: Modalities = dict.fromkeys(VIEWS, (VIEW, "laplace"))
MFEAT: Modalities = {
    **{name: ((width,), "normal") for name, width in {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}.items()},
    "label": ((10,), CLASSES),
}
TCGA: Modalities = {
    **{name: ((width,), "normal") for name, width in {"mirna": 184, "mrna": 200, "protein": 142}.items()},
    "subtype": ((3,), CLASSES),
}
HAR: Modalities = {
    **dict.fromkeys(("phone_acc", "phone_gyro", "watch_acc", "watch_gyro"), ((3, 64), "normal")),
    "activity": ((5,), CLASSES),
}
TABLES: Mapping[str, tuple[Mapping[str, tuple[str, ...]], Modalities]] = {
    "penguins": (
        {"numbers": ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")},
        {
            "species": ((3,), CLASSES), "island": ((3,), CLASSES), "year": ((3,), CLASSES), "numbers": ((4,), "normal"),
            "sex": ((1,), ATTRIBUTES),
        },
    ),
    "pbc": (
        {
            "binary": ("trt", "ascites", "hepato", "spiders"), "numbers": ("chol", "copper", "alk.phos", "ast", "trig"),
            "numbers_2": ("time", "age", "edema", "bili", "albumin", "platelet", "protime"),
        },
        {
            "binary": ((4,), ATTRIBUTES), "numbers": ((5,), "normal"), "numbers_2": ((7,), "normal"), "status": ((3,), CLASSES),
            "stage": ((4,), CLASSES), "sex": ((1,), ATTRIBUTES),
        },
    ),
    "bfi": (
        {scale: tuple(f"{scale}{number}" for number in range(1, 6)) for scale in "ACENO"},
        {
            **dict.fromkeys("ACENO", ((5,), "normal")), "gender": ((1,), ATTRIBUTES), "education": ((5,), CLASSES), "age": ((1,), "normal"),
        },
    ),
    "hdma": (
        {
            "numbers": ("dir", "hir", "lvr", "ccs", "mcs", "uria"),
            "binary": ("pbcr", "dmi", "self", "single", "comdominiom", "black", "deny"),
        },
        {"numbers": ((6,), "normal"), "binary": ((7,), ATTRIBUTES)},
    ),
}  # fmt: skip


def _all_tasks() -> list[Task]:
    images = ((1, 28, 28), "bernoulli")
    label = ((10,), CLASSES)
    tasks = [
        Task("digits", "digits in halves + label", HALVES, _digits, label="label"),
        Task("mnist", "MNIST + label", {"image": images, "label": label}, _mnist, "label", train_rows=20_000, test_rows=500,
             judge_rows=partial(training_part, _mnist)),
        Task("mnist_fashion", "MNIST + Fashion-MNIST + label", {"fashion": images, "mnist": images, "label": label}, _mnist_fashion,
             "label", train_rows=20_000, test_rows=500, judge_rows=partial(training_part, _mnist_fashion)),
    ]  # fmt: skip
    for missing, suffix in ((0.0, ""), (0.2, "20"), (0.5, "50")):
        title = f"PolyMNIST 14 x 14, {f'{missing:.0%} missing' if missing else 'complete'}"
        read = partial(_polymnist, missing)
        tasks.append(Task(f"polymnist{suffix}", title, POLYMNIST, read, "label", test_rows=500, judge_rows=_polymnist_judged))
    tasks += [
        Task("mfeat", "mfeat, six views + label", MFEAT, _mfeat),
        Task("tcga", "TCGA, three omics + subtype", TCGA, _tcga),
        Task("har", "phone and watch, four series + activity, by subject", HAR, _har, test_rows=500),
        Task("celeba", "CelebA 10k, 32 x 32, + 18 attributes", {"image": (CELEBA_SHAPE, "discretized_logistic"),
             "attributes": ((18,), ATTRIBUTES)}, _celeba, "attributes", test=0.1, test_rows=500),
    ]  # fmt: skip
    for name, (columns, modalities) in TABLES.items():
        tasks.append(Task(name, f"table {name}", modalities, partial(_table, name, columns, modalities)))
    return tasks


TASKS: Mapping[str, Task] = {task.name: task for task in _all_tasks()}
