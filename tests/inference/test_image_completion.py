"""Images in files that are filled in: what was there stays, what was not is what the arrays would get, and a table tells which is which."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from completing import impute_arrays, impute_rows
from PIL import Image
from pyarrow import parquet

import nbridge
from nbridge.cli import main as command_line
from nbridge.data.images.source import Images
from nbridge.errors import DataError
from nbridge.inference.impute import embed
from nbridge.training.checkpoint import save_model

SHAPES: dict[str, Any] = {"front": (3, 4, 6), "back": (1, 4, 4), "person": (2,)}
COLUMNS = ("age", "sex")
IDS = ("a b", "c", "ü", "d", "e")
HAVE = {"front": ("a b", "c", "e"), "back": ("c", "d", "ü"), "person": ("e", "a b", "d")}


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def made(**data: Any) -> tuple[nbridge.MultimodalVAE, nbridge.Spec]:
    """An untrained model of images in files, and its spec."""
    torch.manual_seed(0)
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    kinds = {"front": "discretized_logistic", "back": "bernoulli", "person": {"type": "normal"}}
    spec = nbridge.Spec.model_validate({
        "latent_dim": 2, "modalities": {name: {**part, "shape": list(shape), "likelihood": kinds[name]} for name, shape in SHAPES.items()},
        "data": {"source": "images", "columns": {"person": COLUMNS}, "classes": {"sex": ["f", "m"]}, "id": "who", **data},
        "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]},
    })  # fmt: skip
    return nbridge.Model.from_spec(spec), spec


FOLDERS: dict[str, Any] = {"folders": {"front": "shots/front", "back": "shots/back"}, "table": "people.csv"}
PATHS: dict[str, Any] = {"files": {"front": "photo", "back": "behind"}, "table": "rows.parquet"}


def levels(name: str, who: str) -> np.ndarray:
    rng = np.random.default_rng(10 * IDS.index(who) + len(name))
    return rng.integers(0, 256, SHAPES[name], dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(path)
    return path


def person(who: str) -> list[str]:
    return [f"{20 + IDS.index(who)}.5", "fm"[IDS.index(who) % 2]] if who in HAVE["person"] else ["", ""]


def arrays(order: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows as arrays, NaN where they are absent."""
    found = {name: np.full((len(order), *shape), np.nan, np.float32) for name, shape in SHAPES.items()}
    for row, who in enumerate(order):
        for name in ("front", "back"):
            if who in HAVE[name]:
                found[name][row] = levels(name, who).astype(np.float32) / 255
        if who in HAVE["person"]:
            found["person"][row] = [float(person(who)[0]), "fm".index(person(who)[1])]
    return found


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def as_levels(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders and a table of the same people, of which each lacks some."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    for name in ("front", "back"):
        for who in HAVE[name]:
            save(tmp_path / "shots" / name / f"{who}.{'bmp' if who == 'c' else 'png'}", levels(name, who))
    rows = [["age", "who", "sex", "note"], *([person(who)[0], who, person(who)[1], f"of {who}"] for who in ("e", "a b", "d"))]
    with (tmp_path / "people.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


ORDER = ("e", "a b", "d", "c", "ü")
"""The rows of the table, and behind them those that it lacks."""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("samples", [None, 2])
def test_folders_and_a_table_get_what_their_arrays_get(here: Path, samples: int | None):
    model, _spec = made(**FOLDERS)
    before = files(here)
    done = impute_rows(model, [], "done", samples=samples, seed=3)
    assert {name: content for name, content in files(here).items() if not name.startswith("done")} == before
    expected = impute_arrays(model.network, arrays(ORDER), samples=samples, seed=3)
    assert (done.imputed, done.appended) == ({"front": 2, "back": 2, "person": 2}, {str(here / "people.csv"): 2})
    written = files(here / "done")
    for name in ("front", "back"):
        own = {path.name for path in (here / "shots" / name).iterdir()}
        absent = [who for who in ORDER if who not in HAVE[name]]
        endings = [""] if samples is None else [f".{draw + 1}" for draw in range(samples)]
        assert {path.name for path in (here / "done" / name).iterdir()} == own | {f"{who}{end}.png" for who in absent for end in endings}
        assert all(written[f"{name}/{file}"] == before[f"shots/{name}/{file}"] for file in own)
        for who in absent:
            values = expected[name] if samples is not None else expected[name][None]
            for draw, end in enumerate(endings):
                assert np.array_equal(read(here / "done" / name / f"{who}{end}.png"), as_levels(values[draw][ORDER.index(who)]))
    rows = lines(here / "done" / "people.csv")
    draws = samples or 1
    assert list(rows[0])[:4] == ["age", "who", "sex", "note"]
    assert [row["who"] for row in rows[::draws]] == list(ORDER)
    for row in rows:
        who = row["who"]
        assert [row[f"{name}__imputed"] for name in ("front", "back", "person")] == [str(int(who not in HAVE[name])) for name in SHAPES]
        assert [row["age"], row["sex"]] == person(who) or who not in HAVE["person"]
        value = expected["person"] if samples is None else expected["person"][int(row["draw"]) - 1]
        assert float(row["age"]) == pytest.approx(float(value[ORDER.index(who)][0]), abs=0.051)


def path_table(folder: Path) -> Path:
    """A parquet table of paths, in a folder of its own; some of its images lie beside each other."""
    cells: dict[str, list[str | None]] = {"photo": [], "behind": []}
    for who in ORDER:
        for name, column in (("front", "photo"), ("back", "behind")):
            path = f"imgs/{who} {name}.png"
            if who in HAVE[name]:
                save(folder / path, levels(name, who))
            cells[column].append(path if who in HAVE[name] else None)
    known = [person(who) for who in ORDER]
    plain: dict[str, Any] = {"age": pa.array([float(age) if age else None for age, _ in known], pa.float32())}
    plain["sex"] = pa.array([sex or None for _, sex in known]).dictionary_encode()
    parquet.write_table(pa.table({"who": list(ORDER), **cells, **plain}), folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


@pytest.mark.parametrize("samples", [None, 2])
def test_a_table_of_paths_names_the_files_of_what_was_imputed(here: Path, samples: int | None):
    given = parquet.read_table(path_table(here))
    model, spec = made(**PATHS)
    impute_rows(model, ["rows.parquet"], "done", samples=samples)
    expected = impute_arrays(model.network, arrays(ORDER), samples=samples)
    done = parquet.read_table(here / "done" / "rows.parquet")
    draws = samples or 1
    assert done.select(given.column_names).schema.equals(given.schema)
    for name, column in (("front", "photo"), ("back", "behind")):
        assert done[f"{name}__imputed"].to_pylist()[::draws] == [who not in HAVE[name] for who in ORDER]
        for row, (path, was) in enumerate(zip(done[column].to_pylist(), np.repeat(given[column].to_pylist(), draws), strict=True)):
            assert path == was or was is None
            who, draw = ORDER[row // draws], row % draws
            values = expected[name] if samples is None else expected[name][draw]
            assert np.array_equal(read(here / "done" / path), as_levels(values[row // draws]))
            if was is not None:
                assert (here / "done" / path).read_bytes() == (here / path).read_bytes()
            else:
                assert path in {f"imgs/{who}{end}{other}.png" for end in ("", f"_{name}") for other in ("", f".{draw + 1}")}
    # Two columns name files of one folder, none of which may be written twice.
    assert len(list((here / "done" / "imgs").iterdir())) == sum(len(HAVE[name]) + draws * 2 for name in ("front", "back"))
    if samples is None:
        again = Images(**{**spec.data.source.kwargs, "table": "done/rows.parquet"}).load(SHAPES)
        assert all(bool(mask.all()) for mask in again.batch.present.values())


def test_files_that_a_table_names_and_that_are_not_there_are_imputed_under_their_names(here: Path):
    path_table(here)
    (here / "imgs" / "c front.png").rename(here / "gone.png")
    model, spec = made(**PATHS)
    with pytest.raises(DataError, match=r'row 3 names "imgs/c front\.png", no such file'):
        impute_rows(model, [], "done")
    assert not (here / "done").exists()
    model.binding = replace(model.binding, options={**spec.data.source.kwargs, "missing_files": "absent"})
    assert impute_rows(model, [], "done").imputed["front"] == 3
    assert parquet.read_table("done/rows.parquet")["photo"][3].as_py() == "imgs/c front.png"


def test_a_folder_alone_is_completed_with_a_table_of_its_rows(here: Path):
    model, _spec = made(**FOLDERS)
    done = impute_rows(model, ["shots/front"], "done")
    assert (done.imputed, done.appended) == ({"front": 0, "back": 3, "person": 3}, {})
    names = sorted(HAVE["front"])
    assert sorted(path.name for path in (here / "done").iterdir()) == ["a b.png", "back", "c.bmp", "e.png", "rows.csv"]
    assert sorted(path.name for path in (here / "done" / "back").iterdir()) == [f"{who}.png" for who in names]
    rows = lines(here / "done" / "rows.csv")
    assert [row["who"] for row in rows] == names
    assert list(rows[0]) == ["who", "age", "sex", "person__imputed", "front__imputed", "back__imputed"]
    assert {row["sex"] for row in rows} <= {"f", "m"}
    # A folder that holds one for each modality is written as such.
    impute_rows(model, ["shots"], "both")
    assert sorted(path.name for path in (here / "both").iterdir()) == ["back", "front", "rows.csv"]


def test_images_that_were_imputed_stay_marked_when_their_folder_is_completed_again(here: Path):
    model, _spec = made(**FOLDERS)
    once = impute_rows(model, ["shots"], "done")
    twice = impute_rows(model, ["done"], "again")
    assert not any(twice.imputed.values())
    assert twice.earlier == {name: number for name, number in once.imputed.items() if number}
    assert (here / "again" / "rows.csv").read_bytes() == (here / "done" / "rows.csv").read_bytes()
    # Of one folder alone, too; what is not beside its images is imputed again.
    impute_rows(model, ["shots/front"], "front")
    twice = impute_rows(model, ["front"], "once more")
    assert twice.imputed == {"front": 0, "back": 3, "person": 0}
    assert (here / "once more" / "rows.csv").read_bytes() == (here / "front" / "rows.csv").read_bytes()
    # Another table of that name is none of them.
    (here / "shots" / "rows.csv").write_text("who,age\nd,3\n")
    assert impute_rows(model, ["shots"], "third").imputed == once.imputed


def test_a_model_of_fewer_modalities_leaves_the_others_as_they_are(here: Path):
    spec = nbridge.Spec.model_validate({**made(**FOLDERS)[1].as_dict(), "model": "vae"})
    model = nbridge.Model.from_spec(spec)
    assert model.names == ("front",)
    before = files(here)
    done = impute_rows(model, [], "done")
    assert done.imputed == {"front": 2}
    written = files(here / "done")
    assert {name for name in written if f"shots/{name}" not in before} == {"people.csv", "front/d.png", "front/ü.png"}
    assert [row["age"] for row in lines(here / "done" / "people.csv")] == [person(who)[0] for who in ORDER]


def test_what_was_completed_can_be_completed_again(here: Path):
    model, _spec = made(**FOLDERS)
    impute_rows(model, [], "done")
    again = impute_rows(model, ["done/front", "done/back", "done/people.csv"], "again")
    assert again.imputed == dict.fromkeys(SHAPES, 0)
    assert again.earlier == {name: sum(who not in HAVE[name] for who in ORDER) for name in SHAPES}
    assert files(here / "done") == files(here / "again")


def test_what_fails_leaves_nothing_behind(here: Path, monkeypatch: pytest.MonkeyPatch):
    model, _spec = made(**FOLDERS)
    impute_rows(model, [], "done")
    before = files(here)

    def full(path: Path, pixels: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nbridge.data.images.rows.write_png", full)
    with refused("done: cannot be written (No space left on device)"):
        impute_rows(model, [], "done")
    assert files(here) == before
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def changed(here: Path, old: str, new: str) -> None:
    (here / "people.csv").write_text((here / "people.csv").read_text().replace(old, new))


def test_images_that_have_no_place_are_told_before_any_work(here: Path):
    model, _ = made(**FOLDERS)
    changed(here, ",d,", ",d/e,")
    with refused("row \"d/e\": not a valid file name for an image of 'front'; rename the row"):
        impute_rows(model, [], "done")
    changed(here, "d/e", "d")
    save(here / "shots" / "front" / "d.2.png", levels("front", "d"))
    with refused("modality 'front': d.2.png already exists, but row \"d\" needs its name; rename it"):
        impute_rows(model, [], "done", samples=2)
    (here / "sub").mkdir()
    path_table(here).rename(here / "sub" / "rows.parquet")
    (here / "sub" / "imgs").symlink_to(here / "imgs")
    table = parquet.read_table("sub/rows.parquet")
    cells = table["photo"].to_pylist()
    cells[0] = "../imgs/e front.png"
    parquet.write_table(table.set_column(1, "photo", pa.array(cells)), "sub/rows.parquet")
    model, _spec = made(**PATHS)
    with refused(
        f"{here / 'sub' / 'rows.parquet'}: column 'photo': row 0 names \"../imgs/e front.png\", outside of {here / 'sub'}, so that it "
        "can't be copied with the table; name a folder above both, data.root, or write absolute paths"
    ):
        impute_rows(model, ["sub/rows.parquet"], "done")
    assert not (here / "done").exists()


@pytest.mark.parametrize(
    ("target", "rows", "message"),
    [
        ("shots", (), "{target}: contains the input {here}/shots/front; choose another folder"),
        ("shots/front/new", ("shots/front",), "{target}: inside the input folder {here}/shots/front; choose another"),
        ("other", (), "{target}: the folder contains other files (thesis.txt); choose another"),
        ("people.csv", (), "{target}: a file, expected a folder"),
        ("new", ("other",), "{here}/other: no images in this folder, and no folder named back, front"),
        ("new", ("other/thesis.txt",), "other/thesis.txt: expected image folders or tables (.csv, .tsv, .csv.gz, .tsv.gz, .parquet)"),
        ("new", ("odd",), "{here}/odd: ambiguous modality; name the folder after a modality or its folder in the source: front, back"),
        ("new", ("shots", "shots/back"), "{here}/shots/back: images of 'back', like {here}/shots/back; pass only one of them"),
    ],
)
def test_rows_and_places_that_cannot_be_are_told(here: Path, target: str, rows: Sequence[str], message: str):
    (here / "other").mkdir()
    (here / "other" / "thesis.txt").write_text("x")
    save(here / "odd" / "a.png", levels("front", "c"))
    model, _spec = made(**FOLDERS)
    before = files(here)
    with refused(message.format(here=here, target=target)):
        impute_rows(model, rows, target)
    assert files(here) == before


def test_one_table_of_image_paths_is_completed_in_a_folder_by_the_one_verb_too(here: Path):
    path_table(here)
    model, _ = made(**PATHS)
    impute_rows(model, ["rows.parquet"], "expected")
    model.impute("rows.parquet", out="done")
    assert files(here / "done") == files(here / "expected")


def test_intervals_are_of_columns(here: Path):
    model, _spec = made(**FOLDERS)
    impute_rows(model, [], "done", intervals=(0.5,), draws=19)
    names = list(lines(here / "done" / "people.csv")[0])
    assert [name for name in names if name.endswith(("__lower", "__sd"))] == ["age__sd", "age__lower"]
    assert {name.partition("__")[0] for name in names if "__" in name} == {"age", "sex", "front", "back", "person"}


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["nbridge", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    return (left.value.code, *capsys.readouterr())


def test_the_command_writes_folders(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    model, spec = made(**FOLDERS)
    save_model("run/model", model.network, spec)

    def said(*arguments: str) -> tuple[object, str, str]:
        return call(monkeypatch, capsys, "impute", "run", *arguments)

    told = "done: people.csv: 5 rows; imputed front 2, back 2, person 2\npeople.csv: 2 missing rows were appended\n"
    assert said("--to", "done") == (0, told, "")
    assert said("--to", "done") == (2, "", "--to done: exists already. Use --overwrite to replace it.\n")
    assert said("--to", "done", "--overwrite") == (0, told, "")
    alone = "alone: rows.csv: 3 rows; imputed front 0, back 3, person 3\n"
    assert said("shots/front", "--out", "alone") == (0, alone, "")
    refusals: Mapping[tuple[str, ...], str] = {
        ("people.csv", "--out", "new.csv"): "--out new.csv: this model has images, which are written as files; write to a folder, "
        "--to FOLDER",
        ("shots", "--out", "new", "--shard", "1/2"): "--shard 1/2: not supported for images; leave it out",
        ("shots/front", "--out", "shots/front", "--overwrite"): "--out shots/front: this is the input folder; choose another path",
    }  # fmt: skip
    for arguments, message in refusals.items():
        assert said(*arguments) == (2, "", f"{message}\n")
    assert not (here / "new").exists()
    assert call(monkeypatch, capsys, "embed", "run", "shots/front", "--out", "codes.npz") == (0, "codes.npz: 3 rows, 2 dimensions\n", "")
    with np.load("codes.npz") as archive:
        codes = dict(archive)
    names = sorted(HAVE["front"])
    alone = nbridge.Batch.complete({"front": torch.from_numpy(arrays(names)["front"])})
    assert codes["who"].tolist() == names
    assert np.allclose(codes["mean"], embed(model.network, alone).mean)
    # Arrays go their own way.
    np.savez("rows.npz", **arrays(ORDER))
    assert said("rows.npz", "--out", "completed.npz")[0] == 0
    expected = impute_arrays(model.network, arrays(ORDER))
    assert np.array_equal(np.load("completed.npz")["front"], expected["front"])
