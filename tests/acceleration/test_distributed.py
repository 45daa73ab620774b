"""Several processes train the model that one would, and end as one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from processes import Program, Started, fork_server
from safetensors.torch import load_file

import nbridge
import nbridge.cli.main as command_line
from nbridge.acceleration.distributed import ALONE, World, join_processes
from nbridge.acceleration.normalisation import synchronised
from nbridge.models import joint
from nbridge.models.reductions import divided_by, divisor, masked_mean
from nbridge.training.checkpoint import TENSORS
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
training: {batch_size: 256, checkpoint_seconds: 0, stages: {joint: {epochs: 6}, bridges: {epochs: 3}}}
"""
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "nbridge")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def by_torchrun(*arguments: str | Path) -> Started:
    from torch.distributed import run as torchrun

    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return Started(torchrun.main, *TORCHRUN, *arguments, environment=environment)


def by_hand(program: Program, *arguments: str | Path) -> list[Started]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    variables = [{**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [Started(program, "nbridge", *arguments, environment=one) for one in variables]


def ended(processes: list[Started]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    return [process.ended() for process in processes]


PROGRESS = (
    *(f"stage {stage}: {what}" for stage in ("joint", "bridges") for what in ("1,258 rows", "done", "compiled")), "  joint ", "  bridges ",
    "warning: modality 'bottom': ", "reading ", "checking ", "fitting ", "comparing ", "measuring ",
)  # fmt: skip


def said(errors: str) -> str:
    """What a command wrote to its stream of errors, but for progress and the warning of these rows."""
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith(PROGRESS))


def epochs(folder: Path) -> list[dict]:
    lines = (folder / METRICS).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def wait_for_epochs(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while not (folder / METRICS).is_file() or (folder / METRICS).read_bytes().count(b"\n") < number:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def whole(spec: Path) -> tuple[Path, str]:
    """A run of two processes, and what they printed."""
    folder = spec.parent / "whole"
    arguments = ("train", spec, "--out", folder, "--logger", "tensorboard")
    launched = Started(ranks.launched, fork_server(), *arguments, environment=ENVIRONMENT)
    code, output, errors = launched.ended()
    assert code == 0, errors
    assert said(errors) == ""
    return folder, output + errors


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes of `ranks` wrote, which told each other of it through memory."""
    return working(tmp_path_factory.mktemp("worked"), "memory")


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What they wrote when they told each other of it through gloo."""
    return working(tmp_path_factory.mktemp("apart"), "network")


def working(folder: Path, way: str) -> Path:
    for code, _, errors in ended(by_hand(ranks.main, "work", folder, way)):
        assert code == 0, errors
    return folder


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)


@pytest.fixture(scope="module")
def gradients_of_one() -> dict[str, torch.Tensor]:
    """The gradients, terms and statistics that one process computes, without noise."""
    with pytest.MonkeyPatch.context() as patch:
        still(patch)
        return ranks.gradients(ALONE)


def still(patch: pytest.MonkeyPatch) -> None:
    from torch.distributions import Normal

    from nbridge.nn import distributions

    for kind in (Normal, distributions._SeededNormal):
        patch.setattr(kind, "rsample", kind.rsample)
    patch.setattr(joint, "random_subset", joint.random_subset)
    patch.setattr("nbridge.training.stage_rows.CHUNK", 16)
    ranks.without_noise()


def told(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"told{rank}.json").read_text())


# One process


def test_one_process_is_a_world_of_its_own_whose_every_word_is_its_own():
    with join_processes() as world:
        assert world is ALONE
    tensor = torch.arange(6.0)
    assert ALONE.total(tensor) is tensor
    assert torch.equal(ALONE.shard(tensor), tensor)
    assert torch.equal(ALONE.gather(tensor), tensor[None])
    assert ALONE.is_same_everywhere("anything")
    assert ALONE.is_main
    model = ranks.build("bridged")
    with synchronised(model, ALONE):
        assert not any("forward" in vars(module) for module in model.modules())


def test_shares_of_rows_are_disjoint_and_put_together_all():
    rows = torch.randperm(24)
    parts = [World(rank, 4).shard(rows) for rank in range(4)]
    assert torch.equal(torch.cat(parts), rows)
    assert {len(part) for part in parts} == {6}


def test_a_mean_over_rows_is_divided_by_what_its_surroundings_say():
    loss, rows = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]]), torch.tensor([[True, False, True], [False, False, False]])
    assert masked_mean(loss, rows) == 2.5
    with divided_by(lambda number: number + 3):
        assert divisor(rows).tolist() == [5, 3]
        assert masked_mean(loss, rows) == 1.0
    assert divisor(rows).tolist() == [2, 1]


# Two processes compute what one does


@pytest.mark.parametrize("way", ["worked", "apart"])
def test_gradients_terms_and_running_statistics_of_two_processes_are_those_of_one(
    way: str, gradients_of_one: dict[str, torch.Tensor], request: pytest.FixtureRequest
):
    """For every model, on rows with absent modalities, some of them in one process only."""
    expected = gradients_of_one
    for rank in range(2):
        found = load_file(request.getfixturevalue(way) / f"gradients{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for system in ranks.SYSTEMS:
        assert any(tensor.abs().max() > 1e-3 for name, tensor in expected.items() if name.startswith(f"{system}/joint/gradient"))


@pytest.mark.parametrize("way", ["worked", "apart"])
def test_normalisations_over_two_processes_are_those_over_one(way: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(way)
    expected, found = ranks.normalised(ALONE), [load_file(folder / f"normalised{rank}.safetensors") for rank in range(2)]
    for name, tensor in expected.items():
        case, _, part = name.partition("/")
        if part in ("y", "x.grad", "served"):
            together = torch.cat([tensors[name] for tensors in found], dim=0 if case in ("images", "average") else 1)
        elif part in ("weight", "bias"):  # of a sum over rows, not of a mean over processes
            together = found[0][name] + found[1][name]
        else:
            together = found[0][name]
            assert torch.equal(found[1][name], together)
        torch.testing.assert_close(together, tensor, rtol=1e-7, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def test_processes_see_parts_of_the_batches_of_one_and_other_ones_in_each_epoch(worked: Path):
    whole, parts = ranks.parts_of_batches(ALONE), [told(worked, rank)["parts"] for rank in range(2)]
    assert len(whole) == 12  # three epochs of four steps
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
    for epoch in range(3):
        seen = [row for step in whole[4 * epoch : 4 * epoch + 4] for row in step]
        assert len(set(seen)) == len(seen) == 48
    for steps in parts:
        shards = [frozenset(row for step in steps[4 * epoch : 4 * epoch + 4] for row in step) for epoch in range(3)]
        assert len(set(shards)) == 3


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("kind", ["complete", "some", "updates"])
def test_two_processes_have_the_loss_curve_of_one_where_there_is_no_noise(worked: Path, kind: str):
    expected = ranks.curve(ALONE, complete=kind == "complete", updates=12 if kind == "updates" else None)
    assert told(worked, 0)[kind] == told(worked, 1)[kind]
    for one, two in zip(expected, told(worked, 0)[kind], strict=True):
        assert (two["stage"], two["epoch"], two["best"]) == (one["stage"], one["epoch"], one["best"])
        assert two["terms"] == pytest.approx(one["terms"], rel=1e-4, abs=1e-5)
        assert two["validation_terms"] == pytest.approx(one["validation_terms"], rel=1e-4, abs=1e-5)
        assert two.get("hidden_terms", {}) == pytest.approx(one.get("hidden_terms", {}), rel=1e-3, abs=1e-4)
    assert ("hidden" in expected[-1]) == (kind == "updates")


def test_two_processes_have_about_the_loss_curve_of_one_where_noise_is_drawn(whole: tuple[Path, str], spec: Path):
    nbridge.train(spec, out=spec.parent / "one")
    for one, two in zip(epochs(spec.parent / "one"), epochs(whole[0]), strict=True):
        assert (two["stage"], two["epoch"]) == (one["stage"], one["epoch"])
        assert two["loss"] == pytest.approx(one["loss"], rel=0.03)
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=0.01)


# One writer


def test_one_of_two_processes_writes_and_speaks(whole: tuple[Path, str]):
    folder, output = whole
    assert [(line["stage"], line["epoch"]) for line in epochs(folder)] == [
        *(("joint", epoch) for epoch in range(1, 7)),
        *(("bridges", epoch) for epoch in range(1, 4)),
    ]
    assert output.count("stage joint: done") == output.count("next:") == 1
    assert json.loads((folder / "env.json").read_text())["processes"] == 2
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert nbridge.load(folder).names == ("top", "bottom", "label")


# How they end


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_one_line_and_training_goes_on_bit_identically(whole: tuple[Path, str], spec: Path):
    folder = spec.parent / "killed"
    process = by_torchrun("train", spec, "--out", folder)
    wait_for_epochs(folder, 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            os.kill(int(child), signal.SIGKILL)
    code, _, errors = process.ended()
    advice = f"continue from the last checkpoint with: nbridge resume {folder}"
    assert code == 1
    assert errors.count(f"process 1 of this training ended without a message (killed, perhaps out of memory); {advice}\n") == 1
    assert errors.count("Traceback") == 1  # torchrun's own
    assert len(epochs(folder)) < 9
    alone = Path(shutil.copytree(folder, folder.parent / "alone"))
    for code, _, errors in ended(by_hand(command_line.main, "resume", folder)):
        assert (code, said(errors)) == (0, "")
    assert epochs(folder) == epochs(whole[0])
    expected, found = load_file(whole[0] / "model" / TENSORS), load_file(folder / "model" / TENSORS)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    # One process goes on as well, with other noise.
    nbridge.resume(alone)
    assert epochs(alone)[-1]["validation_loss"] == pytest.approx(epochs(folder)[-1]["validation_loss"], rel=0.01)


@pytest.mark.slow
def test_a_process_that_fails_tells_why_and_the_other_that_it_did(spec: Path):
    folder = spec.parent / "failed"
    (code, _, errors), (failed, output, traceback) = ended(by_hand(ranks.main, "nbridge", "train", spec, "--out", folder))
    assert (failed, output) == (1, "")
    assert traceback.endswith("ZeroDivisionError: of all things\n")
    assert (code, said(errors)) == (
        1,
        "process 1 of this training ended with a failure (ZeroDivisionError); "
        f"continue from the last checkpoint with: nbridge resume {folder}\n",
    )
    assert (folder / CHECKPOINT).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["of the main process", "of all processes"])
def test_a_refused_run_is_told_once_and_ends_every_process_with_the_code_of_a_mistake(
    mistake: str, whole: tuple[Path, str], tmp_path: Path, spec: Path
):
    if mistake == "of all processes":
        ends = ended(by_hand(command_line.main, "train", spec, "--out", tmp_path / "run", "--set", "training.batch_size=101"))
        line = "stage joint: batches of 101 rows cannot be split evenly across 2 processes; set batch_size to 100 or 102\n"
    else:
        ends = ended(by_hand(command_line.main, "train", spec, "--out", whole[0]))
        line = (
            f"{whole[0]}: already contains a run. Use --overwrite to replace it, --out for another folder, or: nbridge resume {whole[0]}\n"
        )
    assert [code for code, *_ in ends] == [2, 2]
    assert sorted(said(errors) for *_, errors in ends) == ["", line]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "first"}, "environment variable RANK is 'first', expected a number; start several processes with torchrun"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "process 1 of 2 cannot reach the others at no.such.host.invalid:1 ("),
    ],
)
def test_processes_that_cannot_meet_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str, capfd: pytest.CaptureFixture[str]
):
    from datetime import timedelta

    monkeypatch.setattr("nbridge.acceleration.distributed.TIMEOUT", timedelta(seconds=1))
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(nbridge.NBridgeError, match=re.escape(message)) as caught, join_processes():
        pass
    assert "\n" not in str(caught.value)
