"""A first look at images in files: sizes, colours and likelihoods are guessed with reasons, and what is written trains as it is."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from commands import Call
from PIL import Image

from nbridge.draft.draft import Draft, init
from nbridge.errors import DataError
from nbridge.explore.session import open_session
from nbridge.runs.run import open_run


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return commands.in_this_process(monkeypatch, capsys, columns=120)


def picture(path: Path, size: tuple[int, int], *, mode: str = "RGB", seed: int = 0, ink: float | None = None) -> Path:
    """An image of noise, or of black and white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    levels = levels if ink is None else np.repeat(255 * (rng.random((size[1], size[0], 1)) < ink), 3, axis=2).astype(np.uint8)
    Image.fromarray(levels).convert(mode).save(path)
    return path


def table(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def pixels(path: Path) -> np.ndarray:
    """An image as it is stored, from 0 to 1."""
    with Image.open(path) as image:
        return np.asarray(image) / 255


def described(found: Draft) -> dict[str, tuple[tuple[int, ...], str, str]]:
    return {name: (one.shape, one.encoder.type, one.likelihood.type) for name, one in found.spec.modalities.items()}


def comments(found: Draft) -> str:
    """All comments as one line of text."""
    return " ".join(line.strip().removeprefix("# ") for line in found.text.splitlines() if line.strip().startswith("#"))


def test_a_folder_is_a_modality_of_the_size_of_its_images(here: Path):
    for row in range(50):
        picture(here / "my faces" / f"p{row}.png", (20, 24), seed=row)
    (here / "my faces" / "notes.txt").write_text("x")
    found = init(["my faces"])
    assert described(found) == {"my_faces": ((3, 24, 20), "conv", "discretized_logistic")}
    assert found.spec.data.source.kwargs["folders"] == {"my_faces": "my faces"}
    assert found.spec.data.source.kwargs["resize"] is None
    assert found.remarks == ("my faces: passed over, no images by their names: notes.txt",)
    assert "50 images of 20 x 24 pixels; colour, 256 levels" in comments(found)


@pytest.mark.parametrize(
    ("sizes", "shape", "why"),
    [
        ([(600, 400)], (43, 64), "of 600 x 400 pixels, made 64 x 43, a size that trains in minutes, by data.resize"),
        (
            [(30, 40), (32, 40), (34, 44)],
            (40, 32),
            "of several sizes, from 30 x 40 to 34 x 44 pixels, made 32 x 40 by data.resize: crop (or pad, or stretch)",
        ),
    ],
)
def test_large_images_and_several_sizes_are_resized_and_it_is_said_why(
    here: Path, sizes: list[tuple[int, int]], shape: tuple[int, int], why: str
):
    for row in range(6):
        picture(here / "x" / f"{row}.png", sizes[row % len(sizes)], seed=row)
    found = init(["x"])
    assert described(found)["x"][0] == (3, *shape)
    assert found.spec.data.source.kwargs["resize"] == "crop"
    assert why in comments(found)


@pytest.mark.parametrize(
    ("options", "channels", "likelihood", "why"),
    [
        ({"mode": "L"}, 1, "discretized_logistic", "grey, 256 levels"),
        ({"ink": 0.3}, 1, "bernoulli", "grey, 100% of its pixels nearly black or white"),
        ({"mode": "P"}, 3, "discretized_logistic", "colour, 256 levels"),
    ],
)
def test_colours_and_ink_are_told_apart(here: Path, options: dict[str, Any], channels: int, likelihood: str, why: str):
    for row in range(6):
        picture(here / "x" / f"{row}.png", (9, 8), seed=row, **options)
    found = init(["x"])
    assert described(found) == {"x": ((channels, 8, 9), "conv", likelihood)}
    assert why in comments(found)


def test_folders_in_a_folder_are_modalities_if_they_share_rows(here: Path):
    for name, rows in (("front", range(12)), ("back", range(6, 20))):
        for row in rows:
            picture(here / "shots" / name / f"{row}.png", (8, 8), seed=row)
    (here / "shots" / "people.csv").write_text("x\n")
    found = init(["shots"])
    assert list(found.spec.modalities) == ["back", "front"]
    assert found.rows == 20
    assert {name: int(mask.sum()) for name, mask in found.present.items()} == {"front": 12, "back": 14}
    assert found.remarks == ("shots: passed over, not in a folder of images: people.csv",)
    for row in range(12):
        (here / "shots" / "front" / f"{row}.png").rename(here / "shots" / "front" / f"cat {row}.png")
    with refused(
        f"{here / 'shots'}: no name of an image is in two of its folders (back, front), so that no row has two modalities; if they are "
        "classes, write a table with a column of paths and one of classes"
    ):
        init(["shots"])
    (here / "empty" / "inside").mkdir(parents=True)
    with refused(
        f"{here / 'empty'}: no image in this folder (.png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff, .pgm, .ppm), nor in folders in it"
    ):
        init(["empty"])


def people(rows: int, who: Callable[[int], object]) -> dict[str, list[object]]:
    return {
        "who": [who(row) for row in range(rows)],
        "face": [f"{row % 7 + row / 10:.1f}" for row in range(rows)],
        "sex": ["fm"[row % 2] for row in range(rows)],
    }


def test_a_table_is_joined_to_a_folder_by_the_names_of_its_images(here: Path):
    for row in range(0, 30, 2):
        picture(here / "face" / f"P{row}.png", (8, 8), seed=row)
    table(here / "people.csv", people(30, lambda row: f"P{row}"))
    found = init(["face", "people.csv"])
    # A column bears the name of the folder.
    assert described(found)["face_2"] == ((3, 8, 8), "conv", "discretized_logistic")
    options = found.spec.data.source.kwargs
    assert (options["id"], options["table"], options["folders"]) == ("who", "people.csv", {"face_2": "face"})
    assert {name: int(mask.sum()) for name, mask in found.present.items()} == {"face_2": 15, "people": 30}
    assert init(["face", "people.csv"], id="who").text == found.text
    table(here / "others.csv", people(30, lambda row: f"Q{row}"))
    with refused(f"{here / 'others.csv'}: no column matches the image names, such as 'P0' in face; name it with --id"):
        init(["face", "others.csv"])
    table(here / "twice.csv", people(30, lambda row: f"P{max(row, 1)}"))
    with refused(f"{here / 'twice.csv'}: column 'who': duplicate 'P1' in row 0 (line 2) and row 1 (line 3)"):
        init(["face", "twice.csv"])


def test_a_column_of_paths_is_found_beside_its_table_or_in_a_folder_that_is_named(here: Path):
    for row in range(30):
        picture(here / "my imgs" / f"{row}.png", (8, 8), seed=row)
    cells = [f"my imgs/{row}.png" if row % 3 else "" for row in range(30)]
    table(here / "people.csv", {"photo": cells, **people(30, lambda row: f"P{row}")})
    found = init(["people.csv"])
    options = found.spec.data.source.kwargs
    assert (options["files"], options["root"], options["id"]) == ({"photo": "photo"}, None, "who")
    assert int(found.present["photo"].sum()) == 20
    table(here / "people.csv", {"photo": [f"{row}.png" for row in range(31)], **people(31, lambda row: f"P{row}")})
    found = init(["my imgs", "people.csv"])
    options = found.spec.data.source.kwargs
    assert (options["files"], options["root"], options["missing_files"]) == ({"photo": "photo"}, "my imgs", "absent")
    assert found.remarks == (
        f"photo: 1 of the 31 files that it names are not in {here / 'my imgs'}; taken for absent, data.missing_files",
    )  # fmt: skip
    found = init(["people.csv"])
    assert "photo: names images, none of which is beside the table (0.png); name their folder as well" in found.remarks


def test_from_folders_to_completed_ones_without_a_file_edited(here: Path, call: Call):
    """Squares in a corner that a word tells, seen from two sides."""
    corners = ["left", "right", "above"]
    for row in range(60):
        dark = np.zeros((16, 16), np.uint8)
        place = {"left": np.s_[8:, :8], "right": np.s_[8:, 8:], "above": np.s_[:8, :]}[corners[row % 3]]
        dark[place] = 255
        for name, image in (("front", dark), ("back", dark[:, ::-1])):
            if row % 5 or name == "back":
                (here / "shots" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(here / "shots" / name / f"{row:02}.png")
    table(
        here / "words.csv",
        {"row": [f"{row:02}" for row in range(60)], "corner": [corners[row % 3] if row % 4 else "" for row in range(60)]},
    )
    code, out, error = call("init", "shots", "words.csv", "--out", "spec.yaml")
    assert (code, error) == (0, "")
    assert out.splitlines()[-3] == "spec.yaml: 3 modalities, 60 rows"
    code, out, error = call("validate", "spec.yaml", "--data")
    assert (code, error, out.splitlines()[-1]) == (0, "", "data: 60 rows, no errors, no warnings")
    fewer = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=60")]
    code, out, _ = call("train", "spec.yaml", "--out", "run", *fewer)
    assert code == 0
    assert "next:  nbridge impute run --to COMPLETED" in out.splitlines()
    assert "data:image/png" in (here / "run" / "report.html").read_text()
    session = open_session("run")
    assert session.ids is not None
    assert {type(session.ids[0]), len(session.row(0))} == {str, 1}
    assert call("impute", "run", "--to", "COMPLETED")[0] == 0
    with (here / "COMPLETED" / "words.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [f"{row:02}" for row in range(60)]
    hidden = [(row["corner"], corners[place % 3]) for place, row in enumerate(rows) if row["corner__imputed"] == "1"]
    assert len(hidden) == 15
    assert np.mean([one == other for one, other in hidden]) > 0.8
    true = np.stack([pixels(here / "shots" / "back" / f"{row:02}.png")[:, ::-1] for row in range(60)])
    made = np.stack([pixels(here / "COMPLETED" / "front" / f"{row:02}.png") for row in range(0, 60, 5)])
    assert np.abs(made - true[::5]).mean() < 0.5 * np.abs(true.mean(0) - true[::5]).mean()


def test_from_real_photographs_and_a_table_to_completed_ones(here: Path, call: Call, real_data: Path):
    with zipfile.ZipFile(next((real_data / "celeba10k").glob("*.zip"))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:60]
        (here / "faces").mkdir()
        for name in names[:50]:
            (here / "faces" / Path(name).name).write_bytes(archive.read(name))
    lines = (real_data / "celeba10k" / "list_attr_celeba.txt").read_text().splitlines()
    kept = [lines[1].split().index(name) for name in ("Male", "Smiling")]
    told = {words[0]: [words[1 + place] for place in kept] for words in map(str.split, lines[2:])}
    stems = [Path(name).stem for name in names[5:]]
    columns = {name: [told[f"{stem}.jpg"][place] for stem in stems] for place, name in enumerate(("Male", "Smiling"))}
    table(here / "attributes.csv", {"name": stems, **columns})
    code, out, _ = call("init", "faces", "attributes.csv")
    assert (code, out.splitlines()[-3]) == (0, "faces.yaml: 2 modalities, 60 rows")
    assert "50 images of 89 x 109 pixels, made 52 x 64" in (here / "faces.yaml").read_text()
    assert call("validate", "faces.yaml", "--data")[0] == 0
    fewer = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=1")]
    assert call("train", "faces.yaml", "--out", "run", "--no-report", *fewer)[0] == 0
    assert open_run("run").splits.train.names == ("faces", "attributes")
    code, out, _ = call("impute", "run", "faces", "attributes.csv", "--to", "done", "--samples", "2")
    assert (code, out.splitlines()[0]) == (0, "done: attributes.csv: 60 rows; imputed faces 10, attributes 5")
    for name in names[:50]:
        assert (here / "done" / "faces" / Path(name).name).read_bytes() == (here / "faces" / Path(name).name).read_bytes()
    made = {path.name: pixels(path).shape for path in (here / "done" / "faces").glob("*.png")}
    assert made == {f"{Path(name).stem}.{draw}.png": (64, 52, 3) for name in names[50:] for draw in (1, 2)}
