"""Runs that are trained longer, runs whose spec was edited, and that a run folder always holds the spec that was trained."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import Call

import nbridge
from nbridge.errors import NBridgeWarning
from nbridge.runs.run import open_run
from nbridge.spec.differences import differences
from nbridge.spec.reader import write_spec
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import CHECKPOINT, METRICS, stage_end

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "weight": 1}
SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "likelihood": "normal", **PART},
        "y": {"shape": 2, "likelihood": "categorical", **PART},
    },
    "fusion": {"hidden": [4]},
    "bridges": {"hidden": [4]},
    "training": {
        "batch_size": 16,
        "checkpoint_seconds": 0,
        "calibrate": False,
        "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 2}},
    },
}
ROWS = {"x": np.random.default_rng(0).normal(size=(60, 3)), "y": np.arange(60) % 2}


def with_training(**changes: Any) -> dict[str, Any]:
    return {**SPEC, "training": {**SPEC["training"], **changes}}


def records(folder: Path) -> list[dict[str, Any]]:
    kept = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in kept]


def same(found: Path, expected: Path) -> None:
    """Tensors, metrics and specs of two finished runs."""
    one, other = (nbridge.load(folder).network.state_dict() for folder in (found, expected))
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        assert torch.equal(one[name], tensor), name
    assert records(found) == records(expected)
    assert nbridge.read_spec(found / "spec.resolved.yaml") == nbridge.read_spec(expected / "spec.resolved.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Interrupting(Callback):
    """Stops training after some rounds, as Ctrl-C does."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def on_validation(self, record: EpochRecord) -> None:
        self.rounds -= 1
        if not self.rounds:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    nbridge.train(SPEC, ROWS, out=folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    return commands.in_this_process(monkeypatch, capsys, columns=200)


LONGER = {
    "both stages": {"joint": {"epochs": 4}, "bridges": {"epochs": 3}},
    "the last": {"joint": {"epochs": 2}, "bridges": {"epochs": 4}},
}


def overrides_of(stages: dict[str, dict[str, int]]) -> list[str]:
    return [f"training.stages.{name}.epochs={settings['epochs']}" for name, settings in stages.items()]


@pytest.mark.parametrize("kind", LONGER)
def test_a_run_trained_longer_is_one_trained_so_long_from_the_start(kind: str, run: Path, tmp_path: Path):
    expected = nbridge.train(with_training(stages=LONGER[kind]), ROWS, out=tmp_path / "whole")
    done = nbridge.resume(run, ROWS, overrides=overrides_of(LONGER[kind]))
    same(run, tmp_path / "whole")
    assert done.spec == expected.spec
    assert sorted(path.stem for path in (run / "checkpoints").iterdir()) == ["end-bridges", "end-joint", "last"]


@pytest.mark.parametrize("rounds", [1, 3])
def test_an_interrupted_run_is_trained_longer_and_interrupted_again(rounds: int, tmp_path: Path):
    """In either stage; what was interrupted while it was trained longer is resumed like any run."""
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(SPEC, ROWS, out=tmp_path / "run", callbacks=[Interrupting(rounds)])
    with pytest.raises(KeyboardInterrupt):
        nbridge.resume(tmp_path / "run", ROWS, overrides=overrides_of(LONGER["both stages"]), callbacks=[Interrupting(2)])
    nbridge.resume(tmp_path / "run", ROWS)
    nbridge.train(with_training(stages=LONGER["both stages"]), ROWS, out=tmp_path / "whole")
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("schedule", ["constant", "decay"])
def test_a_length_in_updates_goes_on_where_it_ended(schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rounds are a share of the length, so later ones are longer than those before."""
    monkeypatch.setattr("nbridge.training.budgets.ROUNDS", 3)
    nbridge.train(with_training(stages={}, updates=6, patience=None, schedule=schedule), ROWS, out=tmp_path / "run")
    before = [record for record in records(tmp_path / "run") if record["stage"] == "joint"]
    done = nbridge.resume(tmp_path / "run", ROWS, overrides=["training.updates=12"])
    after = records(tmp_path / "run")
    assert after[: len(before)] == before
    updates = {name: [record["update"] for record in after if record["stage"] == name] for name in ("joint", "bridges")}
    assert updates == {"joint": [2, 4, 6, 10, 12], "bridges": [4, 8, 12]}
    assert done.spec.training.updates == 12


def test_what_patience_ended_goes_on_with_more_patience(tmp_path: Path):
    stages = {"joint": {"epochs": 20, "patience": 1, "learning_rate": 0.3}, "bridges": {"epochs": 1}}
    nbridge.train(with_training(stages=stages), ROWS, out=tmp_path / "run")
    ended = len([record for record in records(tmp_path / "run") if record["stage"] == "joint"])
    assert ended < 10
    before = contents(tmp_path / "run")
    with pytest.raises(nbridge.RunError, match=rf"stage joint: patience ended it after {ended} epochs; raise .*joint.patience as well"):
        nbridge.resume(tmp_path / "run", ROWS, overrides=["training.stages.joint.epochs=50"])
    assert contents(tmp_path / "run") == before
    nbridge.resume(tmp_path / "run", ROWS, overrides=["training.stages.joint.patience=4", "training.stages.joint.epochs=12"])
    nbridge.train(with_training(stages={**stages, "joint": {**stages["joint"], "patience": 4, "epochs": 12}}), ROWS, out=tmp_path / "whole")
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.seed=4"], "--set training.seed: a run that goes on can change only training.updates, "),
        (["training.stages.joint.epochs=4", "latent_dim=3"], "--set latent_dim: a run that goes on can change only "),
        (["training.stages.joint.learning_rate=1"], "--set training.stages.joint.learning_rate: a run that goes on "),
        (["training.stages.joint.epochs=1"], "stage joint: has been trained for 2 epochs, so 1 epochs are not longer"),
        (["training.updates=100"], "nothing to train longer: stages joint, bridges keep their length"),
        (["training.stages.joint={updates: 9}"], "stage joint: its length is in epochs, and stays so; set training.stages.joint.epochs"),
        (["training.stages.joint.epohcs=4"], "epohcs"),
    ],
)
def test_what_cannot_go_on_is_refused_by_name_and_left_as_it_is(overrides: list[str], message: str, run: Path):
    before = contents(run)
    with pytest.raises(nbridge.NBridgeError, match=re.escape(message)) as caught:
        nbridge.resume(run, ROWS, overrides=overrides)
    assert "\n" not in str(caught.value)
    assert contents(run) == before


def test_without_the_end_of_a_stage_it_cannot_go_on(run: Path):
    (run / stage_end("joint")).unlink()
    with pytest.raises(nbridge.RunError, match=r"end-joint.safetensors: missing, so stage joint cannot be trained longer"):
        nbridge.resume(run, ROWS, overrides=["training.stages.joint.epochs=4"])
    assert nbridge.resume(run, ROWS, overrides=["training.stages.bridges.epochs=3"]).folder == run


def edit(run: Path, name: str, old: str, new: str) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new))


def test_an_unfinished_run_of_an_edited_spec_is_refused_in_one_line(run: Path):
    shutil.rmtree(run / "model")
    for name in ("spec.yaml", "spec.resolved.yaml"):
        whole = (run / name).read_text()
        edit(run, name, "checkpoint_seconds: 0.0", "checkpoint_seconds: 7.0")
        edit(run, name, "batch_size: 16", "batch_size: 17")
        with pytest.raises(nbridge.RunError) as caught:
            nbridge.resume(run, ROWS)
        assert str(caught.value).startswith(f"{run / name}: training.batch_size is 17, was 16, training.checkpoint_seconds is 7.0, was 0.0")
        assert str(caught.value).endswith(f"or train longer with: nbridge train --continue {run} --set training.updates=N")
        assert "\n" not in str(caught.value)
        (run / name).write_text(whole)
    (run / "spec.yaml").write_text("{")
    with pytest.raises(nbridge.RunError, match=r"spec.yaml: cannot be read; edited since this run began"):
        nbridge.resume(run, ROWS)


def test_a_finished_run_of_an_edited_spec_is_the_one_trained_and_says_so(run: Path):
    before = nbridge.read_spec(run / "spec.resolved.yaml")
    edit(run, "spec.resolved.yaml", "batch_size: 16", "batch_size: 17")
    for opened in (nbridge.resume, open_run):
        with pytest.warns(NBridgeWarning, match=r"training.batch_size is 17, was 16; edited since this run began, and not used"):
            found = opened(run, ROWS)
        assert found.spec == before
        assert [finding.kind for finding in found.warnings] == ["edited"]


def test_comments_and_notation_may_change(run: Path, recwarn: pytest.WarningsRecorder):
    shutil.rmtree(run / "model")
    edit(run, "spec.resolved.yaml", "batch_size: 16", "batch_size:   16  # a power of two")
    (run / "spec.yaml").unlink()
    nbridge.resume(run, ROWS)
    assert [str(one.message) for one in recwarn if issubclass(one.category, NBridgeWarning)] == []


def test_data_that_moved_may_be_named_anew(tmp_path: Path):
    np.savez(tmp_path / "rows.npz", **ROWS)
    nbridge.train({**SPEC, "data": {"source": "npz", "path": str(tmp_path / "rows.npz")}}, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "rows.npz").rename(tmp_path / "moved.npz")
    edit(tmp_path / "run", "spec.resolved.yaml", "rows.npz", "moved.npz")
    with pytest.warns(NBridgeWarning, match=r"data.path is .*, was .*; edited since this run began; only spec.resolved.yaml is read"):
        nbridge.resume(tmp_path / "run")
    np.savez(tmp_path / "moved.npz", x=ROWS["x"] + 1, y=ROWS["y"])
    with (
        pytest.warns(NBridgeWarning, match="edited since this run began"),
        pytest.raises(nbridge.RunError, match="the rows have changed since this run began"),
    ):
        nbridge.resume(tmp_path / "run")


def trained_from(kind: str, folder: Path) -> nbridge.Run:
    """A run, by the way in which its spec was given."""
    (folder / "spec.yaml").write_text(write_spec(nbridge.Spec.model_validate(SPEC)))
    frame = pd.DataFrame({**{f"x_{place}": ROWS["x"][:, place] for place in range(3)}, "y": np.where(ROWS["y"], "b", "a")})
    of_frame = {**SPEC, "data": {"source": "frame", "columns": {"x": "x_*"}}}
    changes = ("training.seed=5", "training.stages.joint={epochs: 3}", "latent_dim=3")
    ways: dict[str, Callable[[], nbridge.Run]] = {
        "path": lambda: nbridge.train(folder / "spec.yaml", ROWS, out=folder / "run"),
        "path and overrides": lambda: nbridge.train(folder / "spec.yaml", ROWS, out=folder / "run", overrides=changes),
        "mapping": lambda: nbridge.train(SPEC, ROWS, out=folder / "run"),
        "spec": lambda: nbridge.train(nbridge.Spec.model_validate(SPEC), ROWS, out=folder / "run"),
        "columns of a frame": lambda: nbridge.train(of_frame, frame, out=folder / "run"),
    }
    return ways[kind]()


@pytest.mark.parametrize("kind", ["path", "path and overrides", "mapping", "spec", "columns of a frame"])
def test_the_resolved_spec_is_what_was_trained(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By training, by resuming, and by training longer, whatever the environment says."""
    monkeypatch.setenv("NBRIDGE_DATA", str(tmp_path))
    rows = ROWS if kind != "columns of a frame" else None

    def check(run: nbridge.Run, *, epochs: int) -> None:
        there = nbridge.read_spec(tmp_path / "run" / "spec.resolved.yaml")
        assert there == run.spec == nbridge.load(tmp_path / "run").spec
        assert len([record for record in records(tmp_path / "run") if record["stage"] == "joint"]) == epochs
        assert there.training.stages["joint"].epochs == epochs

    run = trained_from(kind, tmp_path)
    first = run.spec.training.stages["joint"].epochs
    assert first is not None
    check(run, epochs=first)
    if kind == "columns of a frame":
        assert run.spec.data.source.kwargs["columns"] == {"x": ("x_0", "x_1", "x_2"), "y": ("y",)}
    if kind not in ("path and overrides", "mapping"):
        return
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / CHECKPOINT).unlink()
    check(nbridge.resume(tmp_path / "run", rows), epochs=first)
    check(nbridge.resume(tmp_path / "run", rows, overrides=["training.stages.joint.epochs=5"]), epochs=5)
    check(nbridge.resume(tmp_path / "run", rows), epochs=5)


def test_the_command_trains_longer(call: Call, tmp_path: Path):
    np.savez(tmp_path / "rows.npz", **ROWS)
    spec = write_spec(nbridge.Spec.model_validate({**SPEC, "data": {"source": "npz", "path": "rows.npz"}}))
    (tmp_path / "spec.yaml").write_text(spec)
    assert call("train", "spec.yaml", "--out", "run", "--no-report")[0] in (0, None)
    longer = [f"--set={override}" for override in overrides_of(LONGER["both stages"])]
    assert call("train", "--continue", "run", *longer, "--no-report")[0] in (0, None)
    assert call("train", "spec.yaml", "--out", "whole", *longer, "--no-report")[0] in (0, None)
    same(tmp_path / "run", tmp_path / "whole")
    own = ["--continue", "run", *longer]
    for arguments in (["--continue", "run"], ["spec.yaml", *own], [*own, "--out", "new"], [*own, "--overwrite"], []):
        assert call("train", *arguments)[0] == 2
    code, _, message = call("train", "--continue", "run", "--set", "training.seed=3")
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith("--set training.seed: ")


def test_differences_are_the_innermost_keys_and_none_of_equal_specs():
    def found(one: Any, other: Any) -> Iterable[tuple[str, Any, Any]]:
        return [(*difference,) for difference in differences(one, other)]

    assert found(SPEC, json.loads(json.dumps(SPEC))) == []
    assert [key for key, *_ in found(SPEC, with_training(stages={"joint": {"epochs": 3}}))] == [
        "training.stages.joint.epochs",
        "training.stages.bridges.epochs",
    ]
    assert found({"a": {"b": 1}}, {"a": 2}) == [("a", {"b": 1}, 2)]
