"""Sources: what they offer, on real data where it lies, and what they say about files that can't be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbridge.data.benchmarks.digits import Digits
from nbridge.data.benchmarks.emoji import Emoji
from nbridge.data.benchmarks.mnist import MNIST, FashionMNIST
from nbridge.data.benchmarks.paired import MNISTFashion, pair
from nbridge.data.memory import Memory
from nbridge.data.numpy.npz import NPZ
from nbridge.data.source import DataSource
from nbridge.data.split import split
from nbridge.errors import DataError


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


DIGITS = {"image": (1, 8, 8), "top": (1, 4, 8), "bottom": (1, 4, 8), "label": (10,)}


def test_digits_are_images_their_halves_and_labels() -> None:
    batch = Digits().load(DIGITS).batch
    image, label = batch.values["image"], batch.values["label"]
    assert image.shape == (1797, 1, 8, 8)
    assert torch.equal(torch.cat([batch.values["top"], batch.values["bottom"]], dim=2), image)
    assert image.min() == 0
    assert image.max() == 1
    assert torch.equal(image * 16, (image * 16).round())
    assert label.dtype == torch.int64
    assert label.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert all(mask.all() for mask in batch.present.values())


def test_digits_binarise_above_seven() -> None:
    grey, binary = (Digits(binarize=flag).load({"image": (1, 8, 8)}).batch.values["image"] for flag in (False, True))
    assert torch.equal(binary, (grey * 16 > 7).float())


def test_a_source_loads_what_is_asked_for_in_its_order_and_shape() -> None:
    batch = Digits().load({"bottom": (32,), "image": (64,)}).batch
    assert batch.names == ("bottom", "image")
    assert torch.equal(batch.values["image"][:, 32:], batch.values["bottom"])


@pytest.mark.parametrize(
    ("source", "shapes", "message"),
    [
        (Digits(), {"botom": (1, 4, 8)}, "modality 'botom': digits offers image, top, bottom, label. Did you mean 'bottom'?"),
        (Digits(), {"text": (5,)}, "modality 'text': digits offers image, top, bottom, label."),
        (
            Digits(),
            {"image": (1, 28, 28)},
            "modality 'image': digits offers 64 values a row, shape (1, 8, 8), which can't take the shape (1, 28, 28)",
        ),
        (Digits(), {"label": (12,)}, "modality 'label': digits offers 10 classes, shape (10,), which can't take the shape (12,)"),
        (MNIST(download=False), {"top": (1, 4, 8)}, "modality 'top': mnist offers image, label, text."),
        (FashionMNIST(download=False), {"top": (1, 4, 8)}, "modality 'top': fashion_mnist offers image, label."),
        (
            MNISTFashion(download=False),
            {"image": (1, 28, 28)},
            "modality 'image': mnist_fashion offers fashion, mnist, label.",
        ),
        (
            Memory(),
            {"x": (3,), "y": (4,)},
            "the spec names no data source: pass arrays from Python, nbridge.train(spec, data={...}) with x, y, or add one to the spec, "
            "such as `data: {source: npz, path: rows.npz}`",
        ),
    ],
)
def test_a_modality_that_a_source_lacks_is_named(source: DataSource, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with refused(message):
        source.load(shapes)


@pytest.mark.parametrize(
    ("source", "mean", "counts"),
    [
        (MNIST, 0.1307, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (FashionMNIST, 0.2860, [6000] * 10),
    ],
)
def test_official_files_load_with_their_official_parts(real_data: Path, source: type[MNIST], mean: float, counts: list[int]) -> None:
    dataset = source(download=False).load({"image": (1, 28, 28), "label": (10,)})
    assert dataset.part is not None
    train = torch.from_numpy(dataset.part == "train")
    assert (int(train.sum()), len(train)) == (60_000, 70_000)
    image, label = dataset.batch.values["image"], dataset.batch.values["label"]
    assert image.shape == (70_000, 1, 28, 28)
    assert image.dtype == torch.float32
    assert image[train].mean().item() == pytest.approx(mean, abs=1e-4)
    assert (image.min().item(), image.max().item()) == (0.0, 1.0)
    assert label[train].bincount().tolist() == counts


def test_fewer_training_rows_leave_the_test_part_whole(real_data: Path) -> None:
    dataset = MNIST(download=False, rows=200, binarize=True).load({"image": (784,)})
    splits = split(dataset, validation=0.1, test=0.5, seed=0)
    assert splits.validation is not None
    assert splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (180, 20, 10_000)
    assert set(dataset.batch.values["image"].unique().tolist()) == {0.0, 1.0}
    with refused("mnist: rows: 60001, but there are 60000 training rows"):
        MNIST(download=False, rows=60_001).load({"label": (10,)})


def test_pairs_share_their_tag_and_more_rows_leave_them_as_they_are(real_data: Path) -> None:
    shapes = {"fashion": (784,), "mnist": (784,), "label": (10,)}
    dataset, more = (MNISTFashion(download=False, rows=rows).load(shapes) for rows in (300, 400))
    first, longer = dataset.batch.values, more.batch.values
    assert torch.equal(longer["mnist"][:300], first["mnist"][:300])
    assert torch.equal(longer["mnist"][400:], first["mnist"][300:])

    mnist = MNIST(download=False).load({"image": (784,), "label": (10,)})
    fashion = FashionMNIST(download=False, rows=300).load({"image": (784,), "label": (10,)})
    assert torch.equal(first["fashion"], fashion.batch.values["image"])
    assert torch.equal(first["label"], fashion.batch.values["label"])
    for part in ("train", "test"):
        rows, pool = (torch.from_numpy(loaded.part == part) for loaded in (dataset, mnist))
        tags = dict(zip(pictures(mnist.batch.values["image"][pool]), mnist.batch.values["label"][pool].tolist(), strict=True))
        assert [tags[picture] for picture in pictures(first["mnist"][rows])] == first["label"][rows].tolist()


def pictures(images: torch.Tensor) -> list[bytes]:
    return [row.tobytes() for row in (images * 255).round().byte().numpy()]


def test_a_pairing_depends_on_its_seed_alone() -> None:
    tags, pool = np.arange(60) % 3, np.arange(90) % 3
    first, again, other = (pair(tags, pool, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (pair(tags[:20], pool, torch.Generator().manual_seed(0)) == first[:20]).all()


def test_no_row_is_paired_again_before_all_of_its_tag_were() -> None:
    tags, pool = np.repeat([0, 1], [7, 2]), np.tile([0, 1, 2], 3)
    rows = pair(tags, pool, torch.Generator().manual_seed(0))
    assert (pool[rows] == tags).all()
    assert sorted(np.bincount(rows[:7], minlength=9)[pool == 0]) == [2, 2, 3]
    with refused("label: no row to pair with label 5"):
        pair(np.array([5]), pool, torch.Generator())


def test_real_views_load_from_an_archive_under_the_data_folder(real_data: Path) -> None:
    source = NPZ(path="mfeat/mfeat.npz", keys={"pixels": "pix", "digit": "labels"})
    batch = source.load({"pixels": (1, 16, 15), "mor": (6,), "digit": (10,)}).batch
    assert batch.values["pixels"].shape == (2000, 1, 16, 15)
    assert batch.values["digit"].bincount().tolist() == [200] * 10


def test_some_emoji_are_taken_from_the_whole_file(real_data: Path):
    every, some = (Emoji(rows=rows).load({"category": (9,)}) for rows in (None, 300))
    assert len(some.batch) == 300
    assert set(some.batch.values["category"].tolist()) == set(every.batch.values["category"].tolist())
    assert set(some.ids) < set(every.ids)
    with refused(f"{real_data}/emoji/emoji32.npz: rows: 9999, but there are 3486 emoji"):
        Emoji(rows=9999).load({"category": (9,)})
