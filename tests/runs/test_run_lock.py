"""Two processes never write one run folder, what killed ones leave is removed, and signals end a command in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Call, in_this_process
from processes import interruptible, start

import nbridge
import nbridge.runs.run as run_module
from nbridge.common.atomic_files import _temporary_name, remove_leftovers
from nbridge.spec.reader import write_spec
from nbridge.training import checkpoint
from nbridge.training.run_folder import METRICS
from nbridge.training.run_lock import lock_path, run_lock
from nbridge.training.state import save_state

PART = {"encoder": {"type": "mlp", "hidden": [4]}, "features": 4}
SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {name: {**PART, "shape": 2, "likelihood": "normal"} for name in ("x", "y")},
    "data": {"source": "npz", "path": "rows.npz"},
    "training": {"updates": 8, "batch_size": 16, "stages": {"bridges": {"updates": 4}}},
}
HOLD = """
import sys, time
from pathlib import Path
from nbridge.spec.reader import write_spec
from nbridge.training import checkpoint
from nbridge.training import checkpoint
from nbridge.training.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

AT_IMPORT = """
import os, signal, sys
module, name = sys.argv[1:3]
# Under nohup, or in the background of a shell, it is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
class Hook:
    def find_spec(self, imported, path=None, target=None):
        if imported == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), getattr(signal, name))
sys.meta_path.insert(0, Hook())
sys.argv = ["nbridge", *sys.argv[3:]]
from nbridge.__main__ import main
main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    np.savez("rows.npz", x=generator.normal(size=(60, 2)), y=generator.normal(size=(60, 2)))
    Path("spec.yaml").write_text(write_spec(nbridge.Spec.model_validate(SPEC)))
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capsys, 200)


@pytest.fixture
def holding(here: Path) -> Iterator[subprocess.Popen[str]]:
    """A live process that holds the folder ``run``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, "run"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_second_writer_of_a_run_gets_one_line_and_changes_nothing(here: Path, call: Call, holding: subprocess.Popen[str]):
    nbridge.train("spec.yaml", out="other")
    (here / "other").rename(here / "run")
    before = files(here / "run")
    (here / "run" / "model" / "config.json").rename(here / "config.json")
    for command in (("train", "spec.yaml", "--out", "run", "--overwrite", "--no-report"), ("resume", "run", "--no-report")):
        status, _, error = call(*command)
        assert (status, error.count("\n")) == (2, 1)
        assert error.startswith(f"run: process {holding.pid} on ")
        assert error.endswith(" is writing this run; wait until it ends, or stop it\n")
    (here / "config.json").rename(here / "run" / "model" / "config.json")
    assert files(here / "run") == before
    # Who only reads need not wait.
    assert call("impute", "run", "rows.npz", "--out", "done.npz")[0] == 0
    holding.kill()
    holding.wait()
    assert call("train", "spec.yaml", "--out", "run", "--overwrite", "--no-report")[0] == 0
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_a_run_has_one_lock_through_every_link_to_it(here: Path, call: Call, holding: subprocess.Popen[str]):
    nbridge.train("spec.yaml", out="other")
    (here / "other").rename(here / "run")
    (here / "run" / "model" / "config.json").unlink()
    (here / "link").symlink_to("run")
    (here / "runs").symlink_to(here)
    before = files(here / "run")
    for name in ("link", "runs/run", "runs/link", str(here / "link"), "link/../run"):
        for command in (("train", "spec.yaml", "--overwrite", "--no-report", "--out", name), ("resume", "--no-report", name)):
            status, _, error = call(*command)
            assert (status, error.count("\n")) == (2, 1)
            assert error.startswith(f"{name}: process {holding.pid} on ")
    assert files(here / "run") == before


def test_a_link_to_a_run_is_kept_when_the_run_is_replaced(here: Path):
    (here / "disk").mkdir()
    (here / "link").symlink_to("disk/run")
    nbridge.train("spec.yaml", out="disk/run")
    nbridge.train("spec.yaml", out="link", overwrite=True, overrides=["training.seed=3"])
    assert (here / "link").is_symlink()
    assert "seed: 3" in (here / "disk" / "run" / "spec.resolved.yaml").read_text()
    nbridge.resume("link", overrides=["training.updates=12"])
    assert (here / "link").is_symlink()
    assert "updates: 12" in (here / "disk" / "run" / "spec.resolved.yaml").read_text()
    assert not [path for folder in (here, here / "disk") for path in folder.iterdir() if path.name.startswith(".")]


def test_a_folder_that_contains_the_current_one_is_not_replaced(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    nbridge.train("spec.yaml", out="run")
    before = files(here / "run")
    (here / "empty").mkdir()
    for name, inside in (("run", "run"), ("run", "run/model"), ("empty", "empty")):
        monkeypatch.chdir(here / inside)
        told = call("train", str(here / "spec.yaml"), "--set", f"data.path={here}/rows.npz", "--overwrite", "--out", str(here / name))
        why = "it is or contains the current folder, and is replaced as a whole; run this from another folder"
        assert told[::2] == (2, f"{here / name}: cannot be written ({why})\n")
    assert files(here / "run") == before


def test_a_new_folder_is_held_before_it_exists(here: Path, holding: subprocess.Popen[str]):
    with pytest.raises(nbridge.RunError, match="is writing this run"):
        nbridge.train("spec.yaml", out="run")
    assert not (here / "run").exists()
    nbridge.train("spec.yaml", out="another")


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path):
    entered, refused = [], []

    def work() -> None:
        try:
            with run_lock(tmp_path / "run"):
                entered.append(1)
                time.sleep(0.5)
        except nbridge.RunError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 3)
    with run_lock(tmp_path / "run"):
        assert lock_path(tmp_path / "run").exists()
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_nothing_else(here: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = _temporary_name(here / "run" / "metrics.jsonl")
    nbridge.train("spec.yaml", out="run")
    run = here / "run"
    dead = own.replace(f"-{os.getpid()}.", f"-{ended.pid}.")
    elsewhere = dead.replace(own.split(".")[3].split("-")[0], "01234567")
    for folder in (run, run / "checkpoints", run / "model"):
        for name in (dead, own, elsewhere, ".notes.tmp"):
            (folder / name).write_text("half")
    (run / dead.replace("metrics.jsonl", "spec.yaml")).mkdir()
    scratch = here / dead.replace("metrics.jsonl", "run")
    scratch.mkdir()
    (scratch / "inside").write_text("half")
    (run / "model" / "config.json").unlink()
    nbridge.resume("run")
    for folder in (run, run / "checkpoints", run / "model"):
        assert {path.name for path in folder.iterdir() if path.name.endswith(".tmp")} == {own, elsewhere, ".notes.tmp"}
    assert not scratch.exists()
    # The same for any file that is written again.
    left = here / dead.replace("metrics.jsonl", "done.npz")
    left.write_text("half")
    nbridge.load("run").impute("rows.npz", out="done.npz")
    assert not left.exists()
    remove_leftovers(here)
    assert (here / "done.npz").exists()


def killed_while_tensors_are_written() -> None:
    def save_file(tensors: Any, path: Path, metadata: Any) -> None:
        (path.parent / ".tmpR4Avix").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = save_file


def test_a_file_that_safetensors_had_begun_is_removed_too(here: Path):
    process = start("train", "spec.yaml", "--out", "run", "--set", "training.checkpoint_seconds=0", before=killed_while_tensors_are_written)
    assert process.ended()[0] == -signal.SIGKILL
    assert list(here.rglob(".tmpR4Avix"))
    nbridge.resume("run")
    assert not [path for path in here.rglob("*") if "tmp" in path.name]


def slowly() -> None:
    """Each checkpoint takes a while, so that a signal falls into training however fast the machine is."""
    interruptible()

    def save(*arguments: Any) -> None:
        save_state(*arguments)
        time.sleep(0.2)

    run_module.save_state = save


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_training_in_one_line_and_it_goes_on_as_if_nothing_had_been(here: Path, name: str, code: int):
    words = ("--no-report", "--set", "training.checkpoint_seconds=0", "--set", "training.stages.joint.epochs=20")
    process = start("train", "spec.yaml", "--out", "run", "--quiet", *words, before=slowly)
    metrics, began = here / "run" / METRICS, time.monotonic()
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
        assert process.lives()
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    process.send(getattr(signal, name))
    assert process.ended()[::2] == (code, "interrupted; continue with: nbridge resume run\n")
    assert not lock_path(here / "run").exists()
    done = metrics.read_text().splitlines()
    assert len(done) < 20
    resumed = nbridge.resume("run")
    assert metrics.read_text().splitlines()[:2] == done[:2]
    alone = nbridge.train("spec.yaml", out="alone", overrides=list(words[2::2]))
    for key, tensor in alone.model.network.state_dict().items():
        assert torch.equal(tensor, resumed.model.network.state_dict()[key]), key
    files = [path.relative_to("alone") for path in Path("alone").rglob("*.safetensors")]
    assert len(files) == 4
    for file in files:
        assert Path("run", file).read_bytes() == Path("alone", file).read_bytes(), file


@pytest.mark.parametrize(
    ("name", "code", "module"), [("SIGINT", 130, "typer"), ("SIGTERM", 143, "typer"), ("SIGHUP", 129, "typer"), ("SIGINT", 130, "torch")]
)
def test_a_signal_while_modules_are_imported_is_one_line(here: Path, name: str, code: int, module: str):
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, name, "train", "spec.yaml", "--out", "run"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "interrupted\n")
    assert not [path for path in here.iterdir() if path.name not in ("rows.npz", "spec.yaml")]
