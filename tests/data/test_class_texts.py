"""Classes that npz archives hold as text: drafted, trained on, checked, imputed and embedded; what is written is such text again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from commands import Call
from completing import impute_rows

import nbridge
from nbridge.data.numpy.class_texts import class_numbers
from nbridge.draft.checks import check_data
from nbridge.draft.draft import init
from nbridge.errors import DataError

ROWS = 60
CLASSES = ["high", "low", "mid"]
FEW = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return commands.in_this_process(monkeypatch, capsys, columns=120)


def texts() -> np.ndarray:
    found = np.array(CLASSES)[np.random.default_rng(0).integers(0, 3, ROWS)]
    found[:5] = ["", "NA", "", "NaN", ""]
    return found


SPELLINGS: dict[str, Any] = {
    "text": texts(),
    "column": texts()[:, None],
    "bytes": texts().astype("S"),
    "wide": texts().astype("<U30"),
}


def saved(kind: str, path: str = "rows.npz") -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(ROWS, 2))
    np.savez(path, x=x, kind=SPELLINGS[kind])
    return SPELLINGS[kind]


def trained(path: str = "rows.npz") -> nbridge.MultimodalVAE:
    return nbridge.train({**init([path]).spec.as_dict(), "training": FEW}).model


def plain(array: np.ndarray) -> np.ndarray:
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_draft_lists_the_classes_and_counts_what_is_missing(kind: str):
    saved(kind)
    found = init(["rows.npz"])
    assert found.spec.data.source.kwargs["classes"] == {"kind": CLASSES}
    assert (found.spec.modalities["kind"].shape, int((~found.present["kind"]).sum())) == ((3,), 5)
    assert check_data(found.spec).errors == ()


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("kind", SPELLINGS)
def test_what_is_imputed_is_text_and_what_was_observed_stays_to_the_letter(kind: str, samples: int | None):
    given = saved(kind)
    done = impute_rows(trained(), "rows.npz", "done.npz", samples=samples)
    with np.load("done.npz", allow_pickle=False) as out:
        found, mask = out["kind"], out["kind__imputed"]
    assert done.imputed["kind"] == 5
    assert (found.dtype, found.shape) == (given.dtype, (*([] if samples is None else [samples]), *given.shape))
    assert mask.tolist() == [True] * 5 + [False] * (ROWS - 5)
    every = found if samples is not None else found[None]
    assert all((one[5:] == given[5:]).all() for one in every)
    assert set(plain(every[:, :5]).ravel().tolist()) <= set(CLASSES)


def test_shards_and_blocks_put_together_are_the_whole(monkeypatch: pytest.MonkeyPatch):
    saved("text")
    model = trained()
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 16)
    monkeypatch.setattr("nbridge.inference.complete.BLOCK", 16)
    impute_rows(model, "rows.npz", "whole.npz", samples=2)
    for part in (1, 2, 3):
        impute_rows(model, "rows.npz", f"{part}.npz", samples=2, shard=(part, 3))
    parts = [np.load(f"{part}.npz")["kind"] for part in (1, 2, 3)]
    assert np.array_equal(np.concatenate(parts, axis=1), np.load("whole.npz")["kind"])


def test_a_longer_class_than_any_that_was_observed_is_not_cut_off():
    np.savez("rows.npz", x=np.random.default_rng(0).normal(size=(ROWS, 2)), kind=np.array(["a", "a very long class"])[np.arange(ROWS) % 2])
    model = trained()
    np.savez("few.npz", x=np.zeros((3, 2)), kind=["a", "", ""])
    impute_rows(model, "few.npz", "done.npz", samples=20)
    found = np.load("done.npz")["kind"]
    assert found.dtype == "<U17"
    assert set(found.ravel().tolist()) == {"a", "a very long class"}


def test_a_file_without_the_array_gets_text_and_one_with_numbers_keeps_numbers():
    saved("text")
    model = trained()
    np.savez("none.npz", x=np.zeros((3, 2)))
    impute_rows(model, "none.npz", "done.npz")
    assert set(np.load("done.npz")["kind"].tolist()) <= set(CLASSES)
    np.savez("numbers.npz", x=np.zeros((3, 2)), kind=[0, np.nan, 2])
    impute_rows(model, "numbers.npz", "done.npz")
    found = np.load("done.npz")["kind"]
    assert (found.dtype.kind, found[0], found[2]) == ("f", 0, 2)


def test_arrays_of_a_folder_are_text_as_well(here: Path):
    given = saved("text")
    (here / "arrays").mkdir()
    np.save(here / "arrays" / "kind.npy", given)
    impute_rows(trained(), "arrays", "done")
    found = np.load(here / "done" / "kind.npy")
    assert (found[5:] == given[5:]).all()
    assert set(found[:5].tolist()) <= set(CLASSES)


def test_a_text_that_is_no_class_is_told_with_its_row():
    saved("text")
    model = trained()
    np.savez("rows.npz", x=np.zeros((3, 2)), kind=["mid", "", "tall"])
    with pytest.raises(DataError, match=r"^rows\.npz: array 'kind': row 2 holds 'tall', expected one of high, low, mid, or an empty text$"):
        impute_rows(model, "rows.npz", "done.npz")
    assert not Path("done.npz").exists()


def test_objects_are_never_unpickled_whatever_reads_them():
    saved("text")
    spec, model = init(["rows.npz"]).spec, trained()
    np.savez("rows.npz", x=np.zeros((ROWS, 2)), kind=texts().astype(object))
    message = r"array 'kind' holds pickled Python objects, expected numbers or text$"
    with pytest.raises(DataError, match=message):
        init(["rows.npz"])
    with pytest.raises(DataError, match=message):
        nbridge.train({**spec.as_dict(), "training": FEW})
    with pytest.raises(DataError, match=message):
        impute_rows(model, "rows.npz", "done.npz")


def test_bytes_that_are_no_text_are_told():
    np.savez("rows.npz", x=np.zeros((ROWS, 2)), kind=np.array([b"\xff", b"b"] * (ROWS // 2)))
    with pytest.raises(DataError, match=r"rows\.npz: array 'kind': holds bytes that are not text in UTF-8; save it as text$"):
        init(["rows.npz"])


def test_text_without_classes_in_the_spec_is_told_what_to_add():
    saved("text")
    document = init(["rows.npz"]).spec.as_dict()
    del document["data"]["classes"]
    with pytest.raises(DataError, match=r"modality 'kind': array of dtype <U4, .* list text classes in data\.classes$"):
        nbridge.train({**document, "training": FEW})


def test_every_command_takes_such_an_archive(call: Call):
    given = saved("text")
    short = [word for stage in ("joint", "bridges") for word in ("--set", f"training.stages.{stage}.epochs=1")]
    for words in (
        ("init", "rows.npz"),
        ("validate", "rows.yaml", "--data"),
        ("train", "rows.yaml", "--out", "run", "--no-report", *short),
        ("impute", "run", "rows.npz", "--out", "done.npz", "--intervals", "0.5"),
        ("embed", "run", "rows.npz", "--out", "codes.npz"),
    ):
        code, _, err = call(*words)
        assert not code, err
    with np.load("done.npz", allow_pickle=False) as out:
        assert (out["kind"][5:] == given[5:]).all()
        assert np.allclose(out["kind__probability"].sum(1), 1)
    with np.load("codes.npz") as codes:
        assert codes["mean"].shape[0] == ROWS


def test_numbers_of_classes_are_their_places_and_nan_where_there_is_none():
    found = class_numbers(np.array(["b", " a", "NA", "", "b"]), ["a", "b", "NA"], "y")
    assert found[[0, 1, 2, 4]].tolist() == [1, 0, 2, 1]
    assert np.isnan(found[3])
