"""CelebA: what a folder of it gives, how its rows are split, and what is said of one that can't be used."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbridge.data.benchmarks.celeba import PAPER_ATTRIBUTES, CelebA, Store, read_square
from nbridge.data.split import Dataset, split
from nbridge.errors import DataError, SpecError
from nbridge.spec.reader import parse_spec

NAMES = ("Young", *reversed(PAPER_ATTRIBUTES), "5_o_Clock_Shadow")
SHAPES = {"image": (3, 8, 8), "attributes": (18,)}
FILES = [f"{number:06d}.jpg" for number in range(1, 7)]
YES = np.random.default_rng(0).random((len(FILES), len(NAMES))) < 0.4
GET = "CelebA may not be redistributed: get it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put img_align_celeba.zip and "
GET += "list_attr_celeba.txt there"


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def photograph(size: tuple[int, int] = (12, 14), seed: int = 0) -> bytes:
    """A JPEG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


PHOTOGRAPHS = {name: photograph(seed=seed) for seed, name in enumerate(FILES)}


def written(folder: Path, photographs: dict[str, bytes] = PHOTOGRAPHS) -> Path:
    """A small CelebA."""
    (folder / "img_align_celeba").mkdir(parents=True)
    for name, data in photographs.items():
        (folder / "img_align_celeba" / name).write_bytes(data)
    rows = [" ".join([name, *("1" if yes else "-1" for yes in row)]) for name, row in zip(FILES, YES, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(NAMES) + " ", *rows, ""]))
    return folder


def numbers(path: Path, column: Sequence[int]) -> None:
    path.write_text("".join(f"{name} {number}\n" for name, number in zip(FILES, column, strict=True)))


def zipped(folder: Path, inside: str = "") -> Path:
    """The same with its photographs in an archive."""
    with zipfile.ZipFile(folder / "img_align_celeba_small.zip", "w") as archive:
        for path in sorted((folder / "img_align_celeba").iterdir()):
            archive.write(path, inside + path.name)
            path.unlink()
    (folder / "img_align_celeba").rmdir()
    return folder


def loaded(folder: Path, **options: Any) -> Dataset:
    return CelebA(path=str(folder), **options).load(SHAPES)


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Damage to a table."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def test_a_folder_and_an_archive_give_the_same_rows(tmp_path: Path) -> None:
    plain = loaded(written(tmp_path / "plain"))
    assert plain.ids is not None
    assert plain.ids.tolist() == FILES
    assert plain.origin == str(tmp_path / "plain")
    assert plain.batch.names == ("image", "attributes")
    assert plain.batch.values["image"].dtype == plain.batch.values["attributes"].dtype == torch.float32
    for inside in ("", "img_align_celeba/", "celeba/img/"):
        other = loaded(zipped(written(tmp_path / f"zip{len(inside)}"), inside))
        assert torch.equal(plain.batch.values["image"], other.batch.values["image"])
        assert torch.equal(plain.batch.values["attributes"], other.batch.values["attributes"])


def test_what_some_systems_leave_beside_photographs_is_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "plain")
    plain = loaded(folder)
    for name in ("._000001.jpg", "Thumbs.db"):
        (folder / "img_align_celeba" / name).write_bytes(b"nothing")
    assert torch.equal(loaded(zipped(folder, "x/")).batch.values["image"], plain.batch.values["image"])


def test_attributes_are_the_papers_all_or_those_named_in_their_order(tmp_path: Path) -> None:
    folder = written(tmp_path / "celeba")
    columns = torch.from_numpy(YES).float()

    def attributes(number: int, chosen: Any) -> torch.Tensor:
        return CelebA(path=str(folder), attributes=chosen).load({"attributes": (number,)}).batch.values["attributes"]

    assert torch.equal(attributes(18, "paper"), columns[:, 1:19].flip(1))
    assert torch.equal(attributes(20, "all"), columns)
    assert torch.equal(attributes(2, ("Young", "Bald")), columns[:, [0, 18]])
    assert CelebA(path=str(folder)).load({"attributes": (3, 6)}).batch.values["attributes"].shape == (6, 3, 6)


def test_attributes_alone_need_no_photographs(tmp_path: Path) -> None:
    folder = written(tmp_path / "celeba", {})
    (folder / "img_align_celeba").rmdir()
    assert CelebA(path=str(folder)).load({"attributes": (18,)}).batch.names == ("attributes",)


@pytest.mark.parametrize(("size", "crop", "side"), [((20, 31), 0.5, 10), ((178, 218), None, 148), ((41, 30), 1.0, 30), ((7, 5), 0.01, 1)])
def test_the_centre_square_is_kept_and_its_pixels_stay_when_it_has_the_size(
    tmp_path: Path, size: tuple[int, int], crop: float | None, side: int
) -> None:
    data = photograph(size)
    folder = written(tmp_path / "celeba", dict.fromkeys(FILES, data))
    options: dict[str, Any] = {"rows": 1} if crop is None else {"rows": 1, "crop": crop}
    image = CelebA(path=str(folder), **options).load({"image": (3, side, side)}).batch.values["image"][0]
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    left, top = ((edge - side) // 2 for edge in size)
    if all((edge - side) % 2 == 0 for edge in size):
        assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.tensor(decoded[top : top + side, left : left + side]))
    assert image.shape == (3, side, side)


def test_photographs_of_one_colour_keep_it_at_any_size_and_every_value_is_a_level(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (89, 109), (200, 120, 40)).save(file, "JPEG", quality=100)
    folder = written(tmp_path / "celeba", {**PHOTOGRAPHS, FILES[0]: file.getvalue()})
    for size in (1, 5, 64, 90):
        image = CelebA(path=str(folder)).load({"image": (3, size, size)}).batch.values["image"]
        levels = (image * 255).round()
        assert torch.equal(levels / 255, image)
        assert (levels[0] - torch.tensor([200.0, 120, 40])[:, None, None]).abs().max() <= 1
        assert levels.min() >= 0
        assert levels.max() <= 255


def test_a_grey_photograph_is_a_colour_one(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (12, 14), 77).save(file, "JPEG")
    image = loaded(written(tmp_path / "celeba", dict.fromkeys(FILES, file.getvalue()))).batch.values["image"]
    assert image.unique().tolist() == pytest.approx([77 / 255])


def test_the_first_rows_are_those_of_the_table(tmp_path: Path) -> None:
    folder = written(tmp_path / "celeba")
    whole, some = loaded(folder), loaded(folder, rows=4)
    assert some.ids is not None
    assert some.ids.tolist() == FILES[:4]
    for name in SHAPES:
        assert torch.equal(some.batch.values[name], whole.batch.values[name][:4])


def test_rows_are_split_by_the_official_parts_else_by_person_else_freely(tmp_path: Path) -> None:
    folder = written(tmp_path / "celeba")
    free = loaded(folder)
    assert free.part is None
    assert free.groups is None
    numbers(folder / "identity_CelebA.txt", [7, 8, 7, 9, 10, 8])
    numbers(folder / "list_eval_partition.txt", [0] * 6)
    persons = loaded(folder)
    assert persons.part is None
    assert persons.groups is not None
    assert persons.groups.tolist() == [7, 8, 7, 9, 10, 8]
    numbers(folder / "list_eval_partition.txt", [0, 0, 1, 2, 0, 2])
    official = split(loaded(folder), validation=0.5, test=0.4, seed=0)
    assert official.validation_ids is not None
    assert official.test_ids is not None
    assert official.validation_ids.tolist() == FILES[2:3]
    assert sorted(official.test_ids) == [FILES[3], FILES[5]]
    # The first rows may all be of one part: then persons decide.
    assert loaded(folder, rows=2).part is None


def unlink(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def emptied(folder: Path) -> None:
    unlink(*(f"img_align_celeba/{name}" for name in FILES))(folder)
    (folder / "img_align_celeba").rmdir()


def two_archives(folder: Path) -> None:
    (zipped(folder) / "img_align_celeba.zip").write_bytes(b"")


def damaged_archive(folder: Path) -> None:
    path = zipped(folder) / "img_align_celeba_small.zip"
    path.write_bytes(path.read_bytes()[:-30])


def damaged_member(folder: Path) -> None:
    path = zipped(folder) / "img_align_celeba_small.zip"
    data = path.read_bytes()
    at = data.index(PHOTOGRAPHS[FILES[2]]) + 200
    path.write_bytes(data[:at] + b"damage" + data[at + 6 :])


def extra_photographs(folder: Path) -> None:
    for number in (9, 8):
        (folder / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(photograph())


def cut_photograph(folder: Path) -> None:
    path = folder / "img_align_celeba" / FILES[3]
    path.write_bytes(path.read_bytes()[:300])


def no_photograph(folder: Path) -> None:
    (folder / "img_align_celeba" / FILES[3]).write_text("nothing like an image")


def table(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "list_attr_celeba.txt").write_text(text)

    return change


def persons(column: Sequence[int], *more: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        numbers(folder / "identity_CelebA.txt", column)
        for further in more:
            further(folder)

    return change


def parts(column: Sequence[int]) -> Callable[[Path], None]:
    return lambda folder: numbers(folder / "list_eval_partition.txt", column)


TABLE = "{folder}/list_attr_celeba.txt"
STORE = "{folder}/img_align_celeba"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (emptied, f"{{folder}}: neither a folder img_align_celeba nor a file img_align_celeba*.zip; {GET}"),
        (two_archives, "{folder}: img_align_celeba.zip and img_align_celeba_small.zip, expected one archive; move the other elsewhere"),
        (damaged_archive, f"{STORE}_small.zip: not a zip file, or damaged (File is not a zip file); fetch it again"),
        (
            damaged_member,
            f"{STORE}_small.zip: 000003.jpg cannot be read (Bad CRC-32 for file '000003.jpg'); fetch it again",
        ),
        (unlink("list_attr_celeba.txt"), f"{{folder}}: no list_attr_celeba.txt; {GET}"),
        (
            unlink("img_align_celeba/000002.jpg", "img_align_celeba/000005.jpg"),
            f"{STORE}: 2 of 6 images are missing, the first is 000002.jpg; fetch them again, or set `rows` to use the first ones only",
        ),
        (extra_photographs, f"{STORE}: 2 images have no row in list_attr_celeba.txt, the first is 000008.jpg; fetch that again"),
        (
            cut_photograph,
            f"{STORE}: 000004.jpg cannot be read (Truncated File Read); fetch it again",
        ),
        (no_photograph, f"{STORE}: 000004.jpg cannot be read (not a JPEG image); fetch it again"),
        (table(""), f'{TABLE}: line 1: "", expected the number of images'),
        (table("six\nMale\n000001.jpg 1\n"), f'{TABLE}: line 1: "six", expected the number of images'),
        (table("0\nMale\n"), f"{TABLE}: line 1 says 0 images, but 0 rows follow the names; fetch it again"),
        (table("3\nMale\n1.jpg 1\n2.jpg 1\n"), f"{TABLE}: line 1 says 3 images, but 2 rows follow the names; fetch it again"),
        (table("2\nMale Bald\n1.jpg 1 1\n2.jpg 1\n"), f"{TABLE}: line 4: 2 columns, expected an image and 2 attributes"),
        (table("2\nMale Bald\n1.jpg 1 1\n2.jpg 1 0\n"), f'{TABLE}: line 4: Bald is "0", expected -1 or 1'),
        (table("2\nMale\n1.jpg 1\n1.jpg -1\n"), f'{TABLE}: line 4: duplicate image "1.jpg", also in line 3'),
        (
            table("1\nMale Smiling\n1.jpg 1 1\n"),
            f'attributes: {TABLE} has no "Bald". Found: Male, Smiling',
        ),
        (
            persons([1] * 6, changed("identity_CelebA.txt", "000002.jpg 1\n", "")),
            "{folder}/identity_CelebA.txt: 1 of 6 images have no row, the first is 000002.jpg; fetch it again",
        ),
        (
            persons([1] * 6, changed("identity_CelebA.txt", "000002.jpg 1", "000002.jpg")),
            '{folder}/identity_CelebA.txt: line 2: "000002.jpg", expected an image and an identity number',
        ),
        (
            parts([0, 0, 3, 0, 0, 0]),
            '{folder}/list_eval_partition.txt: line 3: "000003.jpg 3", expected an image and 0, 1 or 2 (train, validation, test)',
        ),
    ],
)
def test_a_folder_that_cannot_be_used_says_which_file_and_why(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = written(tmp_path / "celeba")
    damage(folder)
    with refused(message.format(folder=folder)):
        loaded(folder)


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({}, {"picture": (3, 8, 8)}, "modality 'picture': celeba offers image, attributes."),
        ({}, {"attribute": (18,)}, "modality 'attribute': celeba offers image, attributes. Did you mean 'attributes'?"),
        *(
            (
                {},
                {"image": shape},
                f"modality 'image': celeba offers colour squares of any size, shape (3, S, S), which can't take the shape {shape}",
            )
            for shape in [(1, 8, 8), (3, 8, 9), (192,)]
        ),
        (
            {},
            {"attributes": (40,)},
            "modality 'attributes': shape (40,), but data.attributes, 'paper', names 18; "
            "write shape: 18, or name others (paper, all, or a list)",
        ),
        (
            {"attributes": ("Young",)},
            {"attributes": (18,)},
            "modality 'attributes': shape (18,), but data.attributes, your list, names 1; "
            "write shape: 1, or name others (paper, all, or a list)",
        ),
        (
            {"attributes": ("Young", "Smilling")},
            {"attributes": (2,)},
            f"attributes: {TABLE} has no \"Smilling\". Did you mean 'Smiling'? Found: {', '.join(NAMES)}",
        ),
        (
            {"attributes": ("Young", "Male", "Young")},
            {"attributes": (3,)},
            'attributes: duplicate "Young"',
        ),
        ({"rows": 7}, {"attributes": (18,)}, "celeba: rows: 7, but there are 6 images"),
    ],
)
def test_what_a_spec_asks_for_in_vain_is_named(
    tmp_path: Path, options: dict[str, Any], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    folder = written(tmp_path / "celeba")
    with refused(message.format(folder=folder)):
        CelebA(path=str(folder), **options).load(shapes)


def test_a_folder_that_is_nowhere_says_where_it_was_sought_and_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data = tmp_path / "cache", tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr("pooch.os_cache", lambda _: cache)
    monkeypatch.setenv("NBRIDGE_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    with refused(f"celeba: no folder {data}/celeba10k or {cache}/celeba10k; {GET}, or name its folder with `path`"):
        CelebA().load(SHAPES)
    with refused(f"celeba: faces: no such folder in {tmp_path} or in $NBRIDGE_DATA ({data}); {GET}"):
        CelebA(path="faces").load(SHAPES)
    with refused(f"celeba: {data}/faces: no such folder; {GET}"):
        CelebA(path=str(data / "faces")).load(SHAPES)
    (tmp_path / "faces").write_text("")
    with refused(f"celeba: {tmp_path}/faces: a file, expected a folder; {GET}"):
        CelebA(path="faces").load(SHAPES)
    for home in (cache, data):
        written(home / "celeba10k")
        assert CelebA().load(SHAPES).origin == str(home / "celeba10k")
    monkeypatch.delenv("NBRIDGE_DATA")
    assert CelebA().load(SHAPES).origin == str(cache / "celeba10k")


@given(st.integers(0, len(PHOTOGRAPHS[FILES[0]])), st.binary(max_size=8), st.booleans())
def test_a_damaged_photograph_is_read_or_refused_in_one_line(at: int, damage: bytes, cut: bool) -> None:
    data = PHOTOGRAPHS[FILES[0]]
    changed = data[:at] + damage + (b"" if cut else data[at + len(damage) :])
    try:
        said, shape = "", read_square(Store(Path("faces"), {FILES[0]: FILES[0]}, lambda _: changed), FILES[0], 8, 1.0).shape
    except DataError as error:
        said, shape = str(error), None
    assert shape == (3, 8, 8) or re.fullmatch(r"faces: 000001\.jpg cannot be read \(.+\); fetch it again", said)


def test_a_spec_reads_its_options_strictly() -> None:
    text = """
modalities: {attributes: {shape: 2, encoder: mlp, likelihood: bernoulli}}
data: {source: celeba, attributes: [Male, Young], rows: 5, crop: 1}
"""
    assert parse_spec(text).data.source.kwargs == {"path": None, "attributes": ("Male", "Young"), "rows": 5, "crop": 1.0}
    with pytest.raises(SpecError) as caught:
        parse_spec(text.replace("[Male, Young]", "papers").replace("crop: 1", "crop: 1.5"))
    assert [problem.partition(": ")[2] for problem in str(caught.value).splitlines()] == [
        "data.attributes: expected 'paper', 'all' or a list, got \"papers\". Did you mean 'paper'?",
        "data.crop: expected 1 or less, got 1.5",
    ]


def test_real_faces_load_and_no_person_is_in_two_parts(real_data: Path) -> None:
    source = CelebA(path=str(real_data / "celeba10k"), rows=300)
    dataset = source.load({"image": (3, 64, 64), "attributes": (18,)})
    image, attributes = dataset.batch.values["image"], dataset.batch.values["attributes"]
    assert image.shape == (300, 3, 64, 64)
    assert torch.equal((image * 255).round() / 255, image)
    assert 0.3 < image.mean() < 0.6
    first = {name for name, yes in zip(PAPER_ATTRIBUTES, attributes[0].tolist(), strict=True) if yes}
    assert first == {"Brown_Hair", "Heavy_Makeup", "Mouth_Slightly_Open", "Smiling", "Straight_Hair"}
    assert dataset.part is None
    assert dataset.groups is not None
    assert dataset.ids is not None
    person = dict(zip(dataset.ids.tolist(), dataset.groups.tolist(), strict=True))
    splits = split(dataset, validation=0.1, test=0.2, seed=0)
    ids = [part for part in (splits.train_ids, splits.validation_ids, splits.test_ids) if part is not None]
    whose = [{person[name] for name in part.tolist()} for part in ids]
    assert sum(map(len, whose)) == len(set(person.values())) < 300
    assert [len(part) for part in ids] == [210, 30, 60]


def test_every_real_row_has_attributes_and_a_person(real_data: Path) -> None:
    dataset = CelebA(path=str(real_data / "celeba10k"), attributes="all").load({"attributes": (40,)})
    assert len(dataset.batch) == 10_000
    assert dataset.groups is not None
    assert len(np.unique(dataset.groups)) == 5429
    assert dataset.batch.values["attributes"].unique().tolist() == [0.0, 1.0]
    male = dataset.batch.values["attributes"][:, 20].mean().item()
    assert male == pytest.approx(0.422, abs=5e-4)
