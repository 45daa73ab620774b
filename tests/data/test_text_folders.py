"""Folders of text files: one text a row, named by its identifier, through every door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import nbridge
from nbridge.cli.main import app
from nbridge.data.source import open_data
from nbridge.data.tables.text_folder import TextFolder
from nbridge.draft.checks import check_data
from nbridge.draft.draft import init
from nbridge.errors import DataError

ROWS = 40
WORDS = {"I": "a small spot", "II": "a large dark spot"}
OVERRIDES = {"updates": 8}


def folder_of(path: Path, texts: dict[str, str]) -> Path:
    path.mkdir(parents=True)
    for stem, text in texts.items():
        (path / f"{stem}.txt").write_bytes(text.encode())
    return path


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty patients, of whom p0 to p29 have a note and p10 to p39 are in the table."""
    monkeypatch.chdir(tmp_path)
    stages = ["I", "II"] * (ROWS // 2)
    folder_of(tmp_path / "notes", {f"p{row}": WORDS[stages[row]] + "\r\n" * (row % 2) for row in range(30)})
    rows = range(10, ROWS)
    frame = {"patient": [f"p{row}" for row in rows], "age": [row / 7 for row in rows], "stage": [stages[row] for row in rows]}
    pd.DataFrame(frame).to_csv("patients.csv", index=False)
    return tmp_path


def trained(found: nbridge.draft.draft.Draft, out: Path | None = None) -> nbridge.runs.run.Run:
    spec = found.spec.model_dump(mode="json")
    return nbridge.train({**spec, "training": OVERRIDES}, out=out)


@pytest.mark.filterwarnings("ignore::nbridge.errors.NBridgeWarning")
def test_a_table_and_its_notes_are_drafted_trained_imputed_and_written_back(there: Path):
    found = init(["patients.csv", "notes"])
    assert found.spec.data.source.kwargs["id"] == "patient"
    notes = found.spec.modalities["notes"]
    assert (notes.likelihood.type, notes.encoder.type, notes.shape) == ("text", "text", (5,))
    assert found.present["notes"].sum() == 30
    assert check_data(found.spec).errors == ()
    run = trained(found, there / "run")
    done = run.model.impute(["patients.csv", "notes"], out=there / "done")
    assert done.imputed == {"patients": 10, "notes": 10}
    assert sorted(path.name for path in (there / "done").iterdir()) == ["notes", "patients.csv"]
    written = {path.name: path.read_bytes() for path in (there / "done" / "notes").iterdir()}
    assert set(written) == {f"p{row}.txt" for row in range(ROWS)}
    for path in (there / "notes").iterdir():
        assert written[path.name] == path.read_bytes()
    assert all(written[f"p{row}.txt"].decode().endswith("\n") for row in range(30, ROWS))
    table = pd.read_csv(there / "done" / "patients.csv").set_index("patient")
    assert table["notes__imputed"].sum() == 10
    assert table.loc["p39", "notes__imputed"] == 1
    assert table.loc["p3", "patients__imputed"] == 1
    # What was completed is completed again unchanged, and keeps its marks.
    again = run.model.impute([there / "done" / "patients.csv", there / "done" / "notes"], out=there / "again")
    assert again.imputed == {"patients": 0, "notes": 0}
    assert (there / "again" / "patients.csv").read_text() == (there / "done" / "patients.csv").read_text()


@pytest.mark.filterwarnings("ignore::nbridge.errors.NBridgeWarning")
def test_the_command_line_writes_draws_as_files(there: Path):
    run = trained(init(["patients.csv", "notes"]), there / "run")
    asked = ["impute", str(run.folder), "notes", "patients.csv", "--to", "done", "--samples", "2"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    names = {path.name for path in (there / "done" / "notes").iterdir()}
    assert {"p0.txt", "p35.1.txt", "p35.2.txt"} <= names
    assert "p35.txt" not in names
    # Without the folder, the texts are a column of the table.
    run.model.impute("patients.csv", out=there / "alone.csv")
    assert pd.read_csv(there / "alone.csv")["notes"].str.len().min() > 0


@pytest.mark.filterwarnings("ignore::nbridge.errors.NBridgeWarning")
def test_a_folder_alone_and_two_of_them(there: Path):
    other = folder_of(there / "letters", {f"p{row}": "dear all" if row % 2 else "" for row in range(30)})
    alone = trained(init("letters"))
    assert alone.model.names == ("letters",)
    done = alone.model.impute("letters", out=there / "filled")
    assert done.imputed == {"letters": 15}  # empty files are absent texts
    assert (there / "filled" / "letters" / "p1.txt").read_bytes() == (other / "p1.txt").read_bytes()
    assert pd.read_csv(there / "filled" / "rows.csv")["letters__imputed"].sum() == 15
    both = init(["notes", "letters"])
    assert set(both.spec.modalities) == {"notes", "letters"}
    run = trained(both)
    assert run.model.impute(["notes", "letters"], out=there / "both").imputed == {"notes": 0, "letters": 15}
    codes = run.model.embed(["notes", "letters"]).mean
    assert codes.shape[0] == 30
    assert np.isfinite(codes.numpy()).all()


@pytest.mark.filterwarnings("ignore::nbridge.errors.NBridgeWarning")
def test_images_and_their_captions(there: Path):
    rng = np.random.default_rng(0)
    (there / "scans").mkdir()
    for row in range(5, 35):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(there / "scans" / f"p{row}.png")
    found = init(["scans", "notes"])
    assert set(found.spec.modalities) == {"scans", "notes"}
    run = trained(found)
    done = run.model.impute(["scans", "notes"], out=there / "done")
    assert done.imputed == {"scans": 5, "notes": 5}
    assert {path.name for path in (there / "done").iterdir()} == {"scans", "notes", "rows.csv"}
    assert len([*(there / "done" / "scans").iterdir()]) == len([*(there / "done" / "notes").iterdir()]) == 35


def test_a_text_is_utf8_without_the_breaks_at_its_end(tmp_path: Path):
    folder = folder_of(tmp_path / "notes", {"a": "\ufeffGrüße\r\nzwei\r\n\n", "b": "", ".hidden": "x"})
    (folder / "c.md").write_text("passed over")
    (folder / "deeper").mkdir()
    table = TextFolder(folder, "key")
    (chunk,) = table.chunks(["key", "notes"])
    assert chunk.column("key").to_pylist() == ["a", "b"]
    assert chunk.column("notes").to_pylist() == ["Grüße\nzwei", ""]
    assert chunk.where(1) == "b.txt"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"p1.txt": b"caf\xe9"}, "notes/p1.txt: not UTF-8 text (byte 4); save it as UTF-8"),
        ({"p1.txt": b"a", "p1.TXT": b"b"}, "p1.TXT and p1.txt have the same stem, so the row's text is ambiguous; remove one"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, files: dict[str, bytes], message: str):
    (tmp_path / "notes").mkdir()
    for name, content in files.items():
        (tmp_path / "notes" / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        init(str(tmp_path / "notes"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_match_no_identifier_are_one_line(there: Path):
    folder_of(there / "other", {"x1": "a", "x2": "b"})
    with pytest.raises(DataError, match=r"patients\.csv: no column matches the file names, such as 'x1' in .*other; name it with --id"):
        init(["patients.csv", "other"])


def test_a_folder_without_rights_is_one_line(there: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for given in ("notes", ["patients.csv", "notes"]):
        with pytest.raises(DataError, match=r"notes: cannot be read \(Permission denied\)"):
            init(given)


def test_a_folder_of_texts_is_a_table_and_no_folder_of_images(there: Path):
    assert type(open_data("notes")).__name__ == "Table"
    assert type(open_data(["patients.csv", "notes"])).__name__ == "Table"
