"""Kept classifiers: the same figures as from new ones, and nothing that is damaged or of something else is ever trusted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import nbridge
from nbridge.cli import main as command_line
from nbridge.errors import RunError
from nbridge.evaluation import classifiers
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.results import Evaluation, Settings
from nbridge.evaluation.suite import evaluate

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
SPEC = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "likelihood": "normal", **PART},
        "image": {"shape": 4, "likelihood": "bernoulli", **PART},
        "label": {"shape": 3, "likelihood": "categorical", **PART},
    },
    "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
}
SETTINGS = Settings(metrics=("coherence", "diversity", "agreement"), samples=3, draws=5, generated=2, rows=12)
BOTH = ["x", "image"]


def rows() -> dict[str, np.ndarray]:
    draws = np.random.default_rng(0)
    label = np.arange(60) % 3
    return {"x": draws.normal(size=(60, 3)) + label[:, None], "image": draws.random((60, 4)), "label": label}


@pytest.fixture(scope="module")
def run() -> nbridge.Run:
    return nbridge.train(SPEC, rows(), device="cpu")


def evaluated(run: nbridge.Run, folder: Path | None, settings: Settings = SETTINGS) -> Evaluation:
    """By a cache of its own, as in another process."""
    return evaluate(run.model.network, run.spec, run.splits, settings, classifiers=ClassifierCache(folder))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name.partition("-")[0]: path.read_bytes() for path in folder.iterdir()}


def test_a_second_evaluation_trains_nothing_and_gives_exactly_the_same_figures(run: nbridge.Run, tmp_path: Path, trainings: list[str]):
    torch.manual_seed(3)
    first = evaluated(run, tmp_path)
    state = torch.get_rng_state()
    assert trainings == BOTH
    assert evaluated(run, tmp_path) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert trainings == BOTH
    assert evaluated(run, None) == first
    assert trainings == BOTH * 2


def test_what_was_kept_serves_other_rows_and_settings_of_the_same_training_rows(run: nbridge.Run, tmp_path: Path, trainings: list[str]):
    evaluated(run, tmp_path)
    other = replace(SETTINGS, split="validation", generated=3)
    kept = evaluated(run, tmp_path, other)
    assert trainings == BOTH
    assert kept == evaluated(run, None, other)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)


def _without_a_seal(path: Path) -> None:
    save_file(load_file(path), path)


def _of_another_modality(path: Path) -> None:
    shutil.copy(next(other for other in path.parent.iterdir() if other != path), path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "a bit flipped": _flip_a_bit,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "by another program": _without_a_seal,
    "of another modality": _of_another_modality,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_trained_again_and_replaced(
    damage: Callable[[Path], object], run: nbridge.Run, tmp_path: Path, trainings: list[str]
):
    first = evaluated(run, tmp_path)
    before = files(tmp_path)
    damage(next(tmp_path.glob("x-*")))
    assert files(tmp_path) != before
    assert evaluated(run, tmp_path) == first
    assert trainings == [*BOTH, "x"]
    assert {name: load_bytes(content) for name, content in files(tmp_path).items()} == {
        name: load_bytes(content) for name, content in before.items()
    }


def load_bytes(content: bytes) -> tuple[int, bytes]:
    """What of a file does not depend on the order in which its header is written."""
    size = int.from_bytes(content[:8], "little")
    return size, content[8 + size :]


@pytest.mark.parametrize("constant", ["VERSION", "__version__"])
def test_another_version_trains_its_own(
    constant: str, run: nbridge.Run, tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
):
    evaluated(run, tmp_path)
    monkeypatch.setattr(classifiers, constant, "another")
    evaluated(run, tmp_path)
    assert trainings == BOTH * 2
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_takes_no_files_costs_a_training_and_nothing_else(run: nbridge.Run, tmp_path: Path, trainings: list[str]):
    taken = tmp_path / "classifiers"
    taken.write_text("a file")
    assert evaluated(run, taken) == evaluated(run, None)
    assert evaluated(run, taken) == evaluated(run, None)
    assert trainings == BOTH * 4
    assert taken.read_text() == "a file"


def test_tensors_of_another_shape_are_not_taken_and_leave_the_network_as_it_was(tmp_path: Path):
    kept, other = nn.Linear(2, 3), nn.Linear(2, 4)
    before = [parameter.clone() for parameter in other.parameters()]
    cache = ClassifierCache(tmp_path)
    cache.store("x", "0" * 64, kept)
    for found in (cache, ClassifierCache(tmp_path)):
        assert not found.restore("x", "0" * 64, other)
        assert not found.restore("x", "1" + "0" * 63, nn.Linear(2, 3))
        assert all(torch.equal(now, then) for now, then in zip(other.parameters(), before, strict=True))
        assert found.restore("x", "0" * 64, same := nn.Linear(2, 3))
        assert all(torch.equal(now, then) for now, then in zip(same.parameters(), kept.parameters(), strict=True))


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path):
    one, other = "0" * 64, "0" * 63 + "1"
    ClassifierCache(tmp_path).store("x", one, nn.Linear(2, 3))
    assert not ClassifierCache(tmp_path).restore("x", other, nn.Linear(2, 3))
    assert ClassifierCache(tmp_path).restore("x", one, nn.Linear(2, 3))


def test_the_command_keeps_classifiers_in_the_run_folder(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "rows.npz", **rows())
    spec = {**SPEC, "data": {"source": "npz", "path": str(tmp_path / "rows.npz")}}
    nbridge.train(spec, out=tmp_path / "run", device="cpu")

    def figures() -> object:
        options = ("--metrics", "coherence", "--samples", "3", "--draws", "5", "--json", "--device", "cpu")
        monkeypatch.setattr(sys, "argv", ["nbridge", "evaluate", str(tmp_path / "run"), *options])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        assert left.value.code == 0
        return json.loads(capsys.readouterr().out)

    first = figures()
    assert trainings == BOTH
    assert {path.name.partition("-")[0] for path in (tmp_path / "run" / "classifiers").iterdir()} == {"x", "image"}
    assert figures() == first
    assert trainings == BOTH
    with pytest.raises(RunError, match="already contains a run"):
        nbridge.train(spec, out=tmp_path / "run")
