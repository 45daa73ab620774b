"""`nbridge doctor` says what is there and what is wrong, reads only, and its advice holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Call, in_this_process

import nbridge
from nbridge.evaluation.verdict import read_verdict
from nbridge.runs.doctor import USER_EXTRAS, diagnose_run, diagnose_system
from nbridge.training.run_lock import run_lock

PART = {"encoder": {"type": "mlp", "hidden": [4]}, "features": 4}
SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {name: {**PART, "shape": 2, "likelihood": "normal"} for name in ("x", "y")},
    "data": {"source": "npz", "path": "rows.npz"},
    "training": {"updates": 8, "batch_size": 16, "stages": {"bridges": {"updates": 4}}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=generator.normal(size=(60, 2)), y=generator.normal(size=(60, 2)))
    nbridge.train({**SPEC, "data": {"source": "npz", "path": str(folder / "rows.npz")}}, out=folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return Path("run")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capsys, 200)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_the_installation_on_one_screen(call: Call):
    status, out, error = call("doctor")
    assert (status, error) == (0, "")
    assert out.count("\n") <= 24
    assert all(len(line) <= 200 for line in out.splitlines())
    assert f"nbridge {nbridge.__version__}" in out
    found = diagnose_system()
    assert set(found.extras) == set(USER_EXTRAS)
    assert found.free_disk > 0
    content = json.loads(call("doctor", "--json")[1])
    assert content["run"] is None
    assert content["system"]["versions"]["nbridge"] == nbridge.__version__


def test_a_missing_extra_is_named_with_the_command_that_installs_it(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.runs.doctor._is_installed", lambda name: name not in ("anndata", "mudata"))
    assert 'anndata, mudata: pip install "nbridge[omics]"' in call("doctor")[1]


def test_a_finished_run_a_resumable_one_and_one_that_is_written(run: Path, call: Call):
    before = contents(run)
    assert (diagnose_run(run).state, dict(diagnose_run(run).damaged)) == ("finished", {})
    with run_lock(run):
        found = diagnose_run(run)
        assert found.state == "being written"
        assert found.holder.startswith("process ")
        assert "run: being written by process " in call("doctor", "run")[1]
    assert contents(run) == before
    (run / "model" / "config.json").unlink()
    found = diagnose_run(run)
    assert (found.state, found.advice) == ("resumable", "continue with: nbridge resume run")
    nbridge.resume(run)
    assert diagnose_run(run).state == "finished"


@pytest.mark.parametrize(
    ("file", "reason", "advice"),
    [
        ("model/model.safetensors", "truncated or damaged", "remove run/model, and continue from the checkpoint: nbridge resume run"),
        ("model/config.json", "truncated or damaged", "remove run/model, and continue from the checkpoint: nbridge resume run"),
        ("checkpoints/last.safetensors", "truncated or damaged", "the model is whole and can be used; "),
        ("env.json", "missing or damaged", "the model is whole and can be used; "),
        ("spec.resolved.yaml", "", "the spec is lost; train again from the spec that you wrote"),
        ("verdict.json", "", "the model is whole and can be used; "),
    ],
)
def test_each_damaged_file_is_named_and_the_advice_holds(run: Path, call: Call, file: str, reason: str, advice: str):
    path = run / file
    if not path.exists():
        path.write_text('{"rows": 1, "figures": {}}')
    if file == "spec.resolved.yaml":
        path.write_text("modalities: {x: [")
    else:
        cut(path)
    found = diagnose_run(run)
    assert found.state == "damaged"
    assert list(found.damaged) == [file]
    assert reason in found.damaged[file]
    assert found.advice.startswith(advice)
    status, out, _ = call("doctor", "run")
    assert (status, f"  {file}:" in out) == (0, True)
    if advice.startswith("remove"):
        shutil.rmtree(run / "model")
        nbridge.resume(run)
        assert diagnose_run(run).state == "finished"
    elif advice.startswith("the model is whole"):
        nbridge.load(run)


def test_a_damaged_checkpoint_of_an_unfinished_run_means_training_again(run: Path):
    shutil.rmtree(run / "model")
    cut(run / "checkpoints" / "last.safetensors")
    found = diagnose_run(run)
    assert (found.state, list(found.damaged)) == ("damaged", ["checkpoints/last.safetensors"])
    assert found.advice == "this run cannot be resumed; train again: nbridge train run/spec.resolved.yaml --out ANOTHER"
    nbridge.train(run / "spec.resolved.yaml", out="ANOTHER")


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("checkpoints/last", "model/model", "is missing, so this is not a checkpoint of this model"),
        ("model/model", "checkpoints/last", "this is not a checkpoint of a run"),
        ("model/model", "checkpoints/end-joint", "this is not a checkpoint of a run"),
    ],
)
def test_a_whole_file_of_something_else_is_a_damaged_one(run: Path, source: str, target: str, reason: str):
    shutil.copy(run / f"{source}.safetensors", run / f"{target}.safetensors")
    found = diagnose_run(run)
    assert (found.state, list(found.damaged)) == ("damaged", [f"{target}.safetensors"])
    assert reason in found.damaged[f"{target}.safetensors"]


def test_files_that_may_not_be_read_are_not_to_be_removed(run: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        # As safetensors does, whatever the reason.
        raise FileNotFoundError

    monkeypatch.setattr("nbridge.training.checkpoint.safe_open", refuse)
    found = diagnose_run(run)
    assert found.damaged["model/model.safetensors"] == "cannot be read; check its permissions"
    assert found.advice == "make its files readable: chmod -R u+rwX run"
    with pytest.raises(nbridge.RunError, match=r"model\.safetensors: cannot be read; check its permissions$"):
        nbridge.load(run)


def test_a_model_folder_is_said_to_be_one(run: Path, call: Call):
    told = "run/model: no run folder here (spec.resolved.yaml is missing); this is a model folder, give the run folder run\n"
    assert call("doctor", "run/model")[::2] == (2, told)


def test_a_run_is_the_same_one_through_a_link_and_its_advice_can_be_pasted(run: Path):
    run.rename("a run")
    Path("a link").symlink_to("a run")
    with run_lock(Path("a run")):
        assert diagnose_run(Path("a link")).state == "being written"
    assert diagnose_run(Path("a link")).advice == "use it: nbridge impute 'a link' ROWS --out COMPLETED"


def test_what_is_no_run_folder_is_one_line(tmp_path: Path, call: Call):
    status, _, error = call("doctor", str(tmp_path))
    assert (status, error) == (2, f"{tmp_path}: no run folder here (spec.resolved.yaml is missing)\n")


@pytest.mark.parametrize("name", ["env.json", "metrics.jsonl", "verdict.json", "model/config.json", "../.run.lock"])
def test_a_file_of_deeply_nested_json_is_a_damaged_one(run: Path, call: Call, name: str):
    (run / name).write_text("[" * 10**5 + "\n" + "{}\n")
    assert name.startswith(".") or name in diagnose_run(run).damaged
    assert read_verdict(run / "verdict.json") is None or name != "verdict.json"
    for command in (("doctor", run), ("report", run), ("resume", run)):
        status, _, error = call(*map(str, command))
        assert status in (0, 1, 2)
        assert error.count("\n") <= 2
        assert "recursion" not in error
