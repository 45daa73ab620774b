"""Run folders: what they hold, what they refuse, and that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from processes import Program, Started, start, with_small_files
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nbridge
from nbridge.runs.run import open_run
from nbridge.training.checkpoint import CONFIG, TENSORS, save_tensors
from nbridge.training.run_folder import CHECKPOINT, METRICS

SPEC = """
name: tiny
latent_dim: 4
data: {source: digits}
modalities:
  top: {shape: [1, 4, 8], features: 16, encoder: {type: mlp, hidden: [16]}, likelihood: bernoulli}
  bottom: {shape: 32, features: 12, encoder: {type: mlp, hidden: [16]}, likelihood: bernoulli}
  label: {shape: 10, features: 16, encoder: {type: embedding}, likelihood: categorical, weight: 10}
fusion: {hidden: [16]}
bridges: {hidden: [16]}
training: {batch_size: 256, checkpoint_seconds: 0, stages: {joint: {epochs: 10}, bridges: {epochs: 10}}}
"""
PYTHON_SPEC = {
    "modalities": {
        "x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        "y": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"},
    },
    "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
}
PYTHON_ROWS = {"x": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40) % 2}
QUICK = ("training.stages.joint.epochs=2", "training.stages.bridges.epochs=2")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(SPEC)
    nbridge.train(folder / "tiny.yaml", out=folder / "run", overrides=QUICK)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def started(*arguments: str | Path, before: Program | None = None) -> Started:
    """A command in a process of its own."""
    return start(*arguments, before=before, environment=ENVIRONMENT)


def call(*arguments: str | Path, before: Program | None = None) -> Done:
    """Waits for the end of a command."""
    return Done(*started(*arguments, before=before).ended())


def refused(*arguments: str | Path) -> str:
    """The one line that a mistake gets."""
    result = call(*arguments)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def epochs(path: Path) -> list[dict]:
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in path.read_text().splitlines()]


def test_a_run_folder_holds_what_it_promises(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        "spec.yaml", "spec.resolved.yaml", "env.json", "metrics.jsonl", "checkpoints/last.safetensors",
        "checkpoints/end-joint.safetensors", "checkpoints/end-bridges.safetensors",
        "model/model.safetensors", "model/config.json", "model/README.md",
    }  # fmt: skip
    assert (finished / "spec.yaml").read_text() == SPEC
    assert nbridge.read_spec(finished / "spec.resolved.yaml").training.stages["joint"].epochs == 2
    assert [(line["stage"], line["epoch"]) for line in epochs(finished / METRICS)] == [
        ("joint", 1),
        ("joint", 2),
        ("bridges", 1),
        ("bridges", 2),
    ]
    environment = json.loads((finished / "env.json").read_text())
    assert environment["rows"] == {"train": 1258, "validation": 180, "test": 359}
    with safe_open(finished / "model" / TENSORS, framework="pt") as file:
        assert file.metadata()["format_version"] == "1"


def test_a_loaded_model_serves_as_the_trained_one(tmp_path: Path, spec: Path):
    done = nbridge.train(spec, out=tmp_path / "run", overrides=QUICK)
    batch = done.splits.test.hide("bottom")
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        model = nbridge.load(folder)
        assert not model.network.training
        for name, values in done.model.impute(batch, samples=3).values.items():
            assert torch.equal(values, model.impute(batch, samples=3).values[name])


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path: Path, spec: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call("train", spec, "--out", whole).returncode == 0
    total = len(epochs(whole / METRICS))
    moments = random.Random(time.time_ns())
    # In stage joint, in stage bridges, and wherever it falls: after a line of metrics, somewhere before the next checkpoint is whole.
    for number, after in enumerate([moments.randrange(1, 8), moments.randrange(11, 18), moments.randrange(1, 4)]):
        start = len(epochs(killed / METRICS)) if killed.exists() else 0
        arguments = ("train", spec, "--out", killed) if number == 0 else ("resume", killed)
        goal = after if number < 2 else start + after
        process = started(*arguments)
        while process.lives() and _lines(killed / METRICS) < min(goal, total):
            time.sleep(0.002)
        time.sleep(moments.random() * 0.05)
        process.send(signal.SIGKILL)
        process.ended()
    assert call("resume", killed).returncode == 0
    assert epochs(killed / METRICS) == epochs(whole / METRICS)
    expected, found = load_file(whole / "model" / TENSORS), load_file(killed / "model" / TENSORS)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_run_killed_before_its_first_checkpoint_begins_again(run: Path, finished: Path):
    (run / CHECKPOINT).unlink()
    shutil.rmtree(run / "model")
    (run / METRICS).write_text('{"stage": "joint", "ep')
    done = nbridge.resume(run)
    found = done.model.network.state_dict()
    for name, tensor in nbridge.load(finished).network.state_dict().items():
        assert torch.equal(tensor, found[name]), name
    assert epochs(run / METRICS) == epochs(finished / METRICS)


def test_resuming_a_finished_run_changes_nothing(run: Path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    nbridge.resume(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_opened_run_is_the_trained_one_with_its_rows(tmp_path: Path, spec: Path):
    done = nbridge.train(spec, out=tmp_path / "run", overrides=QUICK)
    opened = open_run(tmp_path / "run", device="cpu")
    assert opened.folder == tmp_path / "run"
    assert opened.spec == done.spec
    assert not opened.model.network.training
    assert done.model.network.state_dict().keys() == opened.model.network.state_dict().keys()
    assert all(torch.equal(tensor, opened.model.network.state_dict()[name]) for name, tensor in done.model.network.state_dict().items())
    for part in ("train", "validation", "test"):
        first, second = getattr(done.splits, part), getattr(opened.splits, part)
        assert all(torch.equal(first.values[name], second.values[name]) for name in ("top", "bottom", "label"))


def test_a_run_that_cannot_be_opened_is_told(run: Path, tmp_path: Path):
    refusals = {
        tmp_path / "none": "no run folder here (spec.resolved.yaml is missing)",
        run / "model": f"no run folder here (spec.resolved.yaml is missing); this is a model folder, give the run folder {run}",
    }
    for folder, message in refusals.items():
        with pytest.raises(nbridge.RunError) as caught:
            open_run(folder)
        assert str(caught.value) == f"{folder}: {message}"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    del before[run / "model" / CONFIG]
    (run / "model" / CONFIG).unlink()
    with pytest.raises(nbridge.RunError) as caught:
        open_run(run)
    assert str(caught.value) == f"{run}: training has not finished; continue with: nbridge resume {run}"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_of_rows_from_python_is_opened_with_them(tmp_path: Path):
    folder = tmp_path / "run"
    done = nbridge.train(PYTHON_SPEC, PYTHON_ROWS, out=folder)
    opened = open_run(folder, PYTHON_ROWS)
    assert done.splits.test is not None
    assert opened.splits.test is not None
    assert torch.equal(opened.splits.test.values["x"], done.splits.test.values["x"])
    with pytest.raises(nbridge.RunError, match="the rows have changed since this run began"):
        open_run(folder, {**PYTHON_ROWS, "x": PYTHON_ROWS["x"] + 1})
    with pytest.raises(nbridge.RunError) as caught:
        open_run(folder)
    assert (
        str(caught.value)
        == f"{folder}: the rows of this run came from Python; pass them again, nbridge.runs.run.open_run('{folder}', data)"
    )


def test_rows_from_python_must_be_given_again_and_be_the_same(tmp_path: Path):
    spec, data = PYTHON_SPEC, PYTHON_ROWS
    nbridge.train(spec, data, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    nbridge.resume(tmp_path / "run", data)
    with pytest.raises(nbridge.RunError, match="the rows have changed since this run began"):
        nbridge.resume(tmp_path / "run", {**data, "x": data["x"] + 1})
    validation = nbridge.train(spec, {**data, "x": np.arange(120.0).reshape(40, 3)}).splits.validation.values["x"][0, 0].item()
    changed = np.where(np.arange(120.0).reshape(40, 3) == validation, 7.0, data["x"])
    with pytest.raises(nbridge.RunError, match="the rows have changed since this run began"):
        nbridge.resume(tmp_path / "run", {**data, "x": changed})
    with pytest.raises(nbridge.DataError, match="pass arrays from Python"):
        nbridge.resume(tmp_path / "run")


def test_a_run_folder_that_exists_is_refused_and_kept_without_overwrite(run: Path, spec: Path):
    before = (run / "model" / TENSORS).read_bytes()
    assert refused("train", spec, "--out", run) == (
        f"{run}: already contains a run. Use --overwrite to replace it, --out for another folder, or: nbridge resume {run}"
    )
    assert (run / "model" / TENSORS).read_bytes() == before
    nbridge.train(spec, out=run, overwrite=True, overrides=(*QUICK, "training.seed=5"))
    assert (run / "model" / TENSORS).read_bytes() != before
    assert [path.name for path in run.parent.iterdir() if path.name.startswith(".")] == []


def test_rows_that_cannot_train_a_stage_cost_no_run_that_is_there(tmp_path: Path):
    spec, data = PYTHON_SPEC, PYTHON_ROWS
    nbridge.train(spec, data, out=tmp_path / "run")
    before = (tmp_path / "run" / "model" / TENSORS).read_bytes()
    apart = {**data, "x__present": np.arange(40) < 20, "y__present": np.arange(40) >= 20}
    with pytest.raises(nbridge.DataError, match="stage bridges: 0 training rows"):
        nbridge.train(spec, apart, out=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model" / TENSORS).read_bytes() == before


def test_what_is_no_run_folder_is_never_overwritten(tmp_path: Path, spec: Path):
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    for path in (precious, precious / "thesis.txt"):
        with pytest.raises(nbridge.RunError, match=r"exists and is not a (run folder of nbridge|folder); choose another with --out"):
            nbridge.train(spec, out=path, overwrite=True, overrides=QUICK)
    assert (precious / "thesis.txt").read_text() == "years"


def test_a_mistake_in_spec_or_data_makes_no_folder(tmp_path: Path, spec: Path):
    with pytest.raises(nbridge.DataError):
        nbridge.train(spec, out=tmp_path / "run", overrides=("modalities.top.shape=[5]",))
    with pytest.raises(nbridge.SpecError):
        nbridge.train(spec, out=tmp_path / "run", overrides=("modalities.top.shpe=[5]",))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def _edit_config(run: Path, **changes: object) -> None:
    config = json.loads((run / "model" / CONFIG).read_text())
    (run / "model" / CONFIG).write_text(json.dumps({**config, **changes}))


def _edit_tensors(run: Path, edit) -> None:
    path = run / "model" / TENSORS
    tensors = load_file(path)
    edit(tensors)
    save_tensors(path, tensors, {})


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "half-written": (
        lambda run: (run / "model" / CONFIG).unlink(),
        "no finished model here. Training has not finished; continue with: nbridge resume {run}",
    ),
    "no model yet": (
        lambda run: shutil.rmtree(run / "model"),
        "no finished model here. Training has not finished; continue with: nbridge resume {run}",
    ),
    "config truncated": (lambda run: _half(run / "model" / CONFIG), "config.json: truncated or damaged (JSONDecodeError)"),
    "newer format": (
        lambda run: _edit_config(run, format_version=2),
        "config.json: format version 2 is newer than the newest supported (1); upgrade nbridge",
    ),
    "spec damaged": (lambda run: _edit_config(run, spec={"modalities": {}}), "config.json: modalities: expected 1 or more entries, got 0"),
    "tensors missing": (lambda run: (run / "model" / TENSORS).unlink(), "model.safetensors: no such file"),
    "tensors truncated": (lambda run: _half(run / "model" / TENSORS), "model.safetensors: truncated or damaged"),
    "tensors empty": (lambda run: (run / "model" / TENSORS).write_bytes(b""), "model.safetensors: truncated or damaged"),
    "not ours": (lambda run: save_file({"a": torch.zeros(1)}, run / "model" / TENSORS), "model.safetensors: not written by nbridge"),
    "a tensor missing": (
        lambda run: _edit_tensors(run, lambda tensors: tensors.pop("fusion.network.layers.0.weight")),
        "tensor fusion.network.layers.0.weight is missing, so this is not a checkpoint of this model",
    ),
    "a tensor extra": (
        lambda run: _edit_tensors(run, lambda tensors: tensors.update(spare=torch.zeros(2))),
        "tensor spare is not in the model (1 extra in all)",
    ),
    "a tensor of another shape": (
        lambda run: _edit_tensors(run, lambda tensors: tensors.update({"fusion.network.layers.0.bias": torch.zeros(3)})),
        "tensor fusion.network.layers.0.bias is torch.float32 of shape (3,), expected torch.float32 of shape (16,)",
    ),
    "a tensor of another type": (
        lambda run: _edit_tensors(
            run, lambda tensors: tensors.update({"fusion.network.layers.0.bias": torch.zeros(16, dtype=torch.float64)})
        ),
        "tensor fusion.network.layers.0.bias is torch.float64 of shape (16,), expected torch.float32 of shape (16,)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_run_is_refused_in_one_line_and_left_as_it_is(kind: str, run: Path):
    damage, message = BROKEN[kind]
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(nbridge.RunError) as caught:
        nbridge.load(run)
    assert message.format(run=run) in str(caught.value).replace(f"{run / 'model'}", str(run))
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def _tamper(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes tensors behind the back of what the file says of itself."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("model/fusion.network.layers.0.bias"), "tensor model/fusion.network.layers.0.bias is missing"),
        (lambda tensors: tensors.update({"best/spare": torch.zeros(2)}), "expected no tensor of this name"),
        (lambda tensors: tensors.update({"model/fusion.network.layers.0.bias": torch.zeros(3)}), "is torch.float32 of shape (3,)"),
    ],
)
def test_a_tensor_astray_in_a_checkpoint_is_refused(run: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str):
    shutil.rmtree(run / "model")
    _tamper(run / CHECKPOINT, edit)
    with pytest.raises(nbridge.RunError, match=re.escape(message)):
        nbridge.resume(run)


def test_a_model_in_place_of_a_checkpoint_is_refused(run: Path):
    (run / "model" / TENSORS).replace(run / CHECKPOINT)
    shutil.rmtree(run / "model")
    with pytest.raises(nbridge.RunError, match=r"unexpected tensor .*; this is not a checkpoint of a run"):
        nbridge.resume(run)


@pytest.mark.parametrize("content", ["{", "[]", '{"threads": "two", "device": "cpu", "fingerprint": "x"}', '{"threads": 0}'])
def test_a_damaged_environment_is_refused_by_resume(run: Path, content: str):
    (run / "env.json").write_text(content)
    with pytest.raises(nbridge.RunError, match=r"env.json: missing or damaged, so this run cannot be resumed"):
        nbridge.resume(run)


def test_damaged_checkpoints_are_refused_by_resume(run: Path):
    shutil.rmtree(run / "model")
    whole = (run / CHECKPOINT).read_bytes()
    _half(run / CHECKPOINT)
    with pytest.raises(nbridge.RunError, match=r"last.safetensors: truncated or damaged"):
        nbridge.resume(run)
    (run / CHECKPOINT).write_bytes(whole)
    assert nbridge.resume(run).model.names == ("top", "bottom", "label")


def test_no_run_folder_is_told_in_one_line(tmp_path: Path):
    assert refused("resume", tmp_path / "none").startswith(f"{tmp_path / 'none'}: no run folder here")
    assert refused("impute", tmp_path / "none", "x.npz", "--out", tmp_path / "y.npz") == f"{tmp_path / 'none'}: no such run folder"
    assert refused("impute", tmp_path, "x.npz", "--out", tmp_path / "y.npz") == (
        f"{tmp_path}: no finished model here. Expected model/config.json."
    )


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_one_line_and_no_checkpoint(tmp_path: Path, spec: Path):
    folder = tmp_path / "run"
    result = call("train", spec, "--out", folder, before=with_small_files)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if not line.startswith(("warning: ", "stage ", "  joint "))]
    assert len(errors) == 1
    assert "last.safetensors: cannot be written" in errors[0]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == []
    assert call("resume", folder, "--device", "cpu").returncode == 0
    before = (folder / "model" / TENSORS).read_bytes()
    rows = tmp_path / "rows.npz"
    np.savez(rows, top=np.zeros((400, 1, 4, 8), dtype=np.float32))
    (tmp_path / "out.npz").write_bytes(b"older")
    result = call("impute", folder, rows, "--out", tmp_path / "out.npz", "--overwrite", before=with_small_files)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "out.npz: cannot be written" in result.stderr
    assert (tmp_path / "out.npz").read_bytes() == b"older"
    assert (folder / "model" / TENSORS).read_bytes() == before
