"""PolyMNIST: every view is a digit of its row's label on a crop of its photograph, by seed alone; what is kept; what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_data_downloads import NAMES, idx_bytes

from nbridge.data.benchmarks import polymnist
from nbridge.data.benchmarks.mnist import MNIST_FILES, read_parts
from nbridge.data.benchmarks.polymnist import PolyMNIST, draw_presence, draw_view, read_crops
from nbridge.data.split import Dataset, split
from nbridge.errors import DataError, SpecError
from nbridge.spec.reader import parse_spec

TRAIN, TEST = 60, 30
VIEWS = ("view0", "view1", "view2")
SHAPES = {**dict.fromkeys(VIEWS, (3, 28, 28)), "label": (10,)}
GET = "put a photograph of each view there (.jpg or .png)"


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def scene(path: Path, seed: int, size: tuple[int, int] = (40, 33)) -> None:
    """A picture of noise, whose crops all differ."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small MNIST and three pictures, and a cache beside it."""
    data = tmp_path / "data"
    (data / "mnist").mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for name, rows in zip(NAMES, (TRAIN, TRAIN, TEST, TEST), strict=True):
        array = numbers.permutation(np.arange(rows) % 10) if "labels" in name else numbers.integers(0, 256, (rows, 28, 28))
        (data / "mnist" / name).write_bytes(idx_bytes(array))
    (data / "polymnist_backgrounds").mkdir()
    for seed, name in enumerate(("b.png", "a.png", "C.PNG")):
        scene(data / "polymnist_backgrounds" / name, seed)
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setenv("NBRIDGE_DATA", str(data))
    return data


def loaded(**options: Any) -> Dataset:
    return PolyMNIST(**{"views": 3, "download": False, **options}).load(SHAPES)


def cached(home: Path) -> list[Path]:
    return sorted((home.parent / "cache" / "polymnist").iterdir())


def levels(values: torch.Tensor) -> np.ndarray:
    return (values * 255).round().byte().numpy()


def same(first: Dataset, second: Dataset) -> bool:
    ours, theirs = first.batch, second.batch
    return all(torch.equal(ours.values[name], theirs.values[name]) for name in SHAPES) and all(
        torch.equal(ours.present[name], theirs.present[name]) for name in SHAPES
    )


def matches(view: np.ndarray, colours: np.ndarray, images: np.ndarray) -> list[tuple[int, int, int]]:
    """All places and digits that give a view, sought one after the other: the row, the column and the number of the digit."""
    found = []
    for top in range(colours.shape[0] - 27):
        for left in range(colours.shape[1] - 27):
            crop = colours[top : top + 28, left : left + 28].transpose(2, 0, 1).astype(int)
            # Where the crop was left as it is or inverted throughout, the digit follows from it.
            if ((view == crop) | (view == 255 - crop)).all():
                bright = (view == 255 - crop).all(axis=0)
                found += [(top, left, number) for number in np.flatnonzero(((images > 128) == bright).all(axis=(1, 2)))]
    return found


def test_every_view_is_an_inverted_digit_of_its_label_on_a_crop_of_its_photograph(home: Path) -> None:
    dataset = loaded(rows=12, test_rows=5)
    assert dataset.part is not None
    assert dataset.part.tolist() == ["train"] * 12 + ["test"] * 5
    digits = read_parts(MNIST_FILES, ("image", "label"), download=False)
    label = dataset.batch.values["label"].numpy()
    for part in ("train", "test"):
        assert (label[dataset.part == part] == digits[part]["label"][: (dataset.part == part).sum()]).all()
    for name, file in zip(VIEWS, ("C.PNG", "a.png", "b.png"), strict=True):
        colours = np.asarray(Image.open(home / "polymnist_backgrounds" / file))
        seen = []
        for row, view in enumerate(levels(dataset.batch.values[name])):
            source = digits[dataset.part[row]]
            ((top, left, number),) = matches(view, colours, source["image"])
            assert source["label"][number] == label[row]
            seen.append((top, left, dataset.part[row], number))
        # No digit a second time while others of its class wait, and crops from all over.
        assert len({place[2:] for place in seen}) == len(seen)
        assert len({place[:2] for place in seen}) > 10


def test_a_row_shows_other_digits_in_other_views(home: Path) -> None:
    chosen = []
    for view in range(3):
        crops = np.zeros((1, 1, 3, 28, 28), np.uint8)
        # Digits that tell their number by the pixels that are lit.
        images = np.zeros((60, 28, 28), np.uint8)
        images.reshape(60, -1)[np.arange(60), np.arange(60)] = 129
        made = draw_view(crops, images, np.arange(60) % 10, 60, polymnist._generator(0, f"view{view}", "train"))
        chosen.append(made[:, 0].reshape(60, -1).argmax(axis=1))
        assert (chosen[-1] % 10 == np.arange(60) % 10).all()
        assert sorted(chosen[-1]) == list(range(60))
        assert set(np.unique(made)) == {0, 255}
    assert all((chosen[a] != chosen[b]).mean() > 0.5 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_what_is_as_bright_as_128_is_no_digit_and_every_crop_can_be_drawn(tmp_path: Path) -> None:
    scene(tmp_path / "x.png", 0, (30, 29))
    crops = read_crops(tmp_path / "x.png")
    assert crops.shape == (2, 3, 3, 28, 28)
    images = np.full((200, 28, 28), 128, np.uint8)
    made = draw_view(crops, images, np.zeros(200, np.uint8), 200, torch.Generator().manual_seed(0))
    assert {view.tobytes() for view in made} == {crop.tobytes() for crop in crops.reshape(6, 3, 28, 28)}


def test_rows_depend_on_their_seed_alone(home: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = loaded(missing=0.3)
    assert torch.equal(torch.get_rng_state(), state)
    cached(home)[0].unlink()
    torch.manual_seed(2)
    assert same(loaded(missing=0.3), first)
    other = loaded(missing=0.3, pairing_seed=1)
    assert torch.equal(other.batch.values["label"], first.batch.values["label"])
    for name in VIEWS:
        assert (levels(other.batch.values[name]) != levels(first.batch.values[name])).any(axis=(1, 2, 3)).mean() > 0.9
        assert not torch.equal(other.batch.present[name], first.batch.present[name])


def test_fewer_rows_or_views_are_the_first_ones(home: Path) -> None:
    whole, some = loaded(missing=0.3), loaded(missing=0.3, rows=20, test_rows=7)
    kept = torch.cat([torch.arange(20), TRAIN + torch.arange(7)])
    for name in SHAPES:
        assert torch.equal(some.batch.values[name], whole.batch.values[name][kept])
        assert torch.equal(some.batch.present[name], whole.batch.present[name][kept])
    one = PolyMNIST(views=1).load({"view0": (2352,)}).batch
    assert one.names == ("view0",)
    assert torch.equal(one.values["view0"], loaded().batch.values["view0"].flatten(1))


def test_no_test_row_is_made_of_training_digits(home: Path) -> None:
    dataset = loaded()
    splits = split(dataset, validation=0.2, test=0.5, seed=0)
    assert splits.validation is not None
    assert splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (48, 12, 30)
    assert dataset.part is not None
    digits = read_parts(MNIST_FILES, ("image", "label"), download=False)
    colours = np.asarray(Image.open(home / "polymnist_backgrounds" / "C.PNG"))
    test = levels(dataset.batch.values["view0"][torch.from_numpy(dataset.part == "test")])
    assert all(len(matches(view, colours, digits["test"]["image"])) == 1 for view in test[:6])
    assert not any(matches(view, colours, digits["train"]["image"]) for view in test[:6])


def test_colours_lie_in_the_unit_interval_and_rows_take_the_order_and_shape_asked_for(home: Path) -> None:
    batch = PolyMNIST(views=3).load({"label": (10,), "view2": (28, 84), "view0": (3, 28, 28)}).batch
    assert batch.names == ("label", "view2", "view0")
    assert batch.values["view2"].shape == (TRAIN + TEST, 28, 84)
    assert batch.values["view0"].dtype == torch.float32
    assert (batch.values["view0"].min(), batch.values["view0"].max()) == (0, 1)
    assert batch.values["label"].dtype == torch.int64
    assert batch.whole


@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**62))
def test_a_share_of_the_views_is_absent_and_a_view_of_each_row_stays(views: int, part: float, seed: int) -> None:
    share = part * (1 - 1 / views)
    present, fewer, more = (
        draw_presence(rows, views, s, torch.Generator().manual_seed(seed))
        for rows, s in ((2000, share), (50, share), (2000, share + (1 - 1 / views - share) / 2))
    )
    assert present.any(dim=1).all()
    # A mean of 2,000 draws has a standard deviation below 0.012.
    assert (1 - present.double().mean(dim=0) - share).abs().max() < 0.06
    assert torch.equal(fewer, present[:50])
    assert not (more & ~present).any()


def test_training_rows_lack_views_test_rows_and_labels_none(home: Path) -> None:
    dataset, whole = loaded(missing=0.4), loaded()
    assert dataset.part is not None
    assert len(cached(home)) == 1
    train = torch.from_numpy(dataset.part == "train")
    present = torch.stack([dataset.batch.present[name] for name in VIEWS], dim=1)
    assert present[~train].all()
    assert present[train].any(dim=1).all()
    assert 0.25 < 1 - present[train].double().mean() < 0.55
    assert dataset.batch.present["label"].all()
    for name in VIEWS:
        mask = dataset.batch.present[name]
        assert torch.equal(dataset.batch.values[name][mask], whole.batch.values[name][mask])
        assert not dataset.batch.values[name][~mask].any()


def test_made_rows_are_kept_and_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded()
    (path,) = cached(home)
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(polymnist, "draw_view", None)
        assert same(loaded(), first)
    # Other options, photographs and digits are other rows.
    loaded(pairing_seed=1), loaded(rows=9), loaded(test_rows=9), PolyMNIST(views=2).load({"view0": (2352,)})
    assert len(cached(home)) == 5
    scene(home / "polymnist_backgrounds" / "b.png", 9)
    assert not same(loaded(), first)
    digits = home / "mnist" / NAMES[0]
    digits.write_bytes(idx_bytes(np.zeros((TRAIN, 28, 28))))
    loaded()
    assert len(cached(home)) == 7
    assert path.read_bytes() == content


def test_rows_that_were_damaged_are_made_again(home: Path) -> None:
    first = loaded()
    (path,) = cached(home)
    whole = path.read_bytes()
    ends = [*range(0, len(whole) - 1500, len(whole) // 9), *range(len(whole) - 1500, len(whole), 37)]
    for damaged in [b"", b"nothing", whole[:-1], whole[: len(whole) // 2], *(flipped(whole, at) for at in ends)]:
        path.write_bytes(damaged)
        assert same(loaded(), first)
        assert path.read_bytes() in (whole, damaged)
    path.write_bytes(whole[:-1])
    loaded()
    assert path.read_bytes() == whole
    assert cached(home) == [path]


def flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :]


def test_rows_that_cannot_be_kept_are_made_all_the_same(home: Path) -> None:
    (home.parent / "cache").write_text("a file where the folder should be")
    assert len(loaded().batch) == TRAIN + TEST


BACKGROUNDS = "{home}/polymnist_backgrounds"


def removed(*names: str) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        for name in names:
            (home / "polymnist_backgrounds" / name).unlink()

    return change


def replaced(content: bytes) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        (home / "polymnist_backgrounds" / "b.png").write_bytes(content)

    return change


def cut(home: Path) -> None:
    path = home / "polymnist_backgrounds" / "b.png"
    path.write_bytes(path.read_bytes()[:400])


def folder_in_place(home: Path) -> None:
    removed("b.png")(home)
    (home / "polymnist_backgrounds" / "b.png").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (removed("a.png", "b.png", "C.PNG"), f"{BACKGROUNDS}: no photographs; {GET}"),
        (removed("a.png", "b.png"), f"{BACKGROUNDS}: photographs for 1 of 3 views; {GET}, or set `views` to 1 or fewer"),
        (replaced(b"nothing like an image"), f"{BACKGROUNDS}: b.png cannot be read (not a JPEG or PNG image); fetch it again"),
        (cut, f"{BACKGROUNDS}: b.png cannot be read (image file is truncated); fetch it again"),
        (folder_in_place, f"{BACKGROUNDS}/b.png: cannot be read (Is a directory)"),
        *(
            (
                lambda home, size=size: scene(home / "polymnist_backgrounds" / "b.png", 0, size),
                f"{BACKGROUNDS}: b.png has {size[0]} x {size[1]} pixels, expected 28 x 28 or more",
            )
            for size in [(27, 40), (40, 27)]
        ),
        (
            lambda home: (home / "mnist" / NAMES[3]).unlink(),
            f"mnist: {NAMES[3]} not found, and not downloaded from {MNIST_FILES.url} (`download` is false); "
            "put them in {home}/mnist or {cache}/mnist",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(home: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(home)
    with refused(message.format(home=home, cache=home.parent / "cache")):
        loaded()


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({"missing": 1.0}, SHAPES, "missing: 1, expected a fraction in [0, 1)"),
        ({"missing": -0.1}, SHAPES, "missing: -0.1, expected a fraction in [0, 1)"),
        ({"missing": float("nan")}, SHAPES, "missing: nan, expected a fraction in [0, 1)"),
        ({"missing": 0.7}, SHAPES, "missing: 0.7, but each row keeps one of its 3 views; expected 2/3 or less"),
        (
            {"missing": 0.1},
            {"view1": (2352,)},
            "missing: 0.1, but each row keeps one of its 1 views; expected 0 or less",
        ),
        ({"rows": TRAIN + 1}, SHAPES, f"polymnist: rows: {TRAIN + 1}, but MNIST has {TRAIN} of them"),
        ({"test_rows": TEST + 1}, SHAPES, f"polymnist: test_rows: {TEST + 1}, but MNIST has {TEST} of them"),
        ({}, {"view3": (3, 28, 28)}, "modality 'view3': polymnist offers view0, view1, view2, label. Did you mean 'view2'?"),
        (
            {},
            {"view0": (1, 28, 28)},
            "modality 'view0': polymnist offers 2352 values a row, shape (3, 28, 28), which can't take the shape (1, 28, 28)",
        ),
    ],
)
def test_what_a_spec_asks_for_in_vain_is_named(
    home: Path, options: dict[str, Any], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with refused(message):
        PolyMNIST(**{"views": 3, **options}).load(shapes)


def test_a_folder_that_is_nowhere_says_where_it_was_sought(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (home / "polymnist_backgrounds").rename(home / "pictures")
    with refused(
        f"polymnist: no folder {home}/polymnist_backgrounds or {home.parent}/cache/polymnist_backgrounds; {GET}, "
        "or name its folder with `path`"
    ):
        loaded()
    monkeypatch.chdir(home.parent)
    with refused(f"polymnist: nowhere: no such folder in {home.parent} or in $NBRIDGE_DATA ({home}); {GET}"):
        loaded(path="nowhere")
    assert same(loaded(path="pictures"), loaded(path=str(own)))


def test_a_spec_reads_its_options_strictly() -> None:
    text = "modalities: {view0: {shape: [3, 28, 28], encoder: conv, likelihood: normal}}\ndata: {source: polymnist, rows: 5, missing: 0.5}"
    assert parse_spec(text).data.source.kwargs == {
        "path": None, "views": 5, "rows": 5, "test_rows": None, "missing": 0.5, "pairing_seed": 0, "download": True,
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        parse_spec(text.replace("0.5", "1.0, views: 0"))
    assert [problem.partition(": ")[2] for problem in str(caught.value).splitlines()] == [
        "data.missing: expected a number below 1, got 1.0",
        "data.views: expected a number above 0, got 0",
    ]


def test_real_views_are_found_in_mnist_and_in_the_photographs(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path)
    views = [f"view{number}" for number in range(8)]
    dataset = PolyMNIST(views=8, rows=400, test_rows=100, download=False).load(dict.fromkeys(views, (3, 28, 28)) | {"label": (10,)})
    assert dataset.batch.values["label"][:5].tolist() == [5, 0, 4, 1, 9]
    digits = read_parts(MNIST_FILES, ("image", "label"), download=False)["train"]
    fives = {shape.tobytes() for shape in digits["image"][digits["label"] == 5] > 128}
    for name, file in zip(views, sorted((real_data / "polymnist_backgrounds").glob("*.jpg")), strict=True):
        crops, view = read_crops(file), levels(dataset.batch.values[name][:1])[0]
        # All crops that have the view's first column, which no digit touches: those with its first pixel, then its others.
        places = np.argwhere((crops[..., 0, 0] == view[:, 0, 0]).all(axis=2))
        places = places[(crops[places[:, 0], places[:, 1]][..., 0] == view[..., 0]).all(axis=(1, 2))]
        assert any((view != crops[top, left]).any(axis=0).tobytes() in fives for top, left in places)
