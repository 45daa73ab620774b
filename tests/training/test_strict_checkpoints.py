"""Models and checkpoints are loaded whole or refused by name, and equal trainings write equal bytes."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Script, Started
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import nbridge
from nbridge.errors import RunError
from nbridge.training.callbacks import Callback
from nbridge.training.checkpoint import TENSORS, load_into, load_tensors, save_tensors
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import CHECKPOINT, METRICS

SPEC = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal"},
        "kind": {"shape": 2, "features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "categorical"},
    },
    "fusion": {"hidden": [4]},
    "bridges": {"hidden": [4]},
    "training": {"batch_size": 8, "checkpoint_seconds": 0, "stages": {"joint": {"epochs": 4}, "bridges": {"epochs": 4}}},
}
ROWS = {"x": np.random.default_rng(0).normal(size=(40, 3)), "kind": np.arange(40) % 2}
Undamaged = tuple[bytes, tuple[dict[str, Tensor], dict[str, Any]]]
Edit = Callable[[dict[str, Tensor], dict[str, Any]], object]


class StopAt(Callback):
    """Interrupts training after an epoch of a stage."""

    def __init__(self, stage: str, epoch: int) -> None:
        self.stop = (stage, epoch)

    def on_validation(self, record: EpochRecord) -> None:
        if (record.stage, record.epoch) == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    nbridge.train(SPEC, ROWS, out=folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def halted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were interrupted: within each stage, and between them."""
    folder = tmp_path_factory.mktemp("halted")
    for stage in ("joint", "bridges"):
        with pytest.raises(KeyboardInterrupt):
            nbridge.train(SPEC, ROWS, out=folder / stage, device="cpu", callbacks=[StopAt(stage, 2)])
    shutil.copytree(folder / "bridges", folder / "between")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbridge.training.stage.StageRun.__call__", _interrupted_in_the_second_stage())
        with pytest.raises(KeyboardInterrupt):
            nbridge.train(SPEC, ROWS, out=folder / "between", overwrite=True, device="cpu")
    return folder


def _interrupted_in_the_second_stage() -> Callable[..., None]:
    from nbridge.training.stage import StageRun

    train = StageRun.__call__

    def call(self: StageRun, *rows: Any) -> None:
        if self.stage.name == "bridges":
            raise KeyboardInterrupt
        train(self, *rows)

    return call


@pytest.fixture
def run(halted: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(halted / name, tmp_path / name))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pop(start: str, part: str = "") -> Edit:
    """Removes tensors, by the beginning and the end of their names."""

    def edit(tensors: dict[str, Tensor], _: dict[str, Any]) -> None:
        chosen = [name for name in tensors if name.startswith(start) and name.endswith(part)]
        assert chosen
        for name in chosen:
            del tensors[name]

    return edit


def put(**numbers: Any) -> Edit:
    """Changes numbers of the state."""
    return lambda _, state: state.update(numbers)


def remake(start: str, part: str, how: Callable[[Tensor], Tensor]) -> Edit:
    """Changes the first tensor of a beginning and an end of its name."""

    def edit(tensors: dict[str, Tensor], _: dict[str, Any]) -> None:
        name = next(name for name in sorted(tensors) if name.startswith(start) and name.endswith(part))
        tensors[name] = how(tensors[name])

    return edit


def fill(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


EDITS: dict[str, tuple[str, Edit, str]] = {
    "no moments": ("joint", pop("optimizer/"), "tensor optimizer/"),
    "no moments in the second stage": ("bridges", pop("optimizer/"), "tensor optimizer/"),
    "moments of some parameters": ("joint", pop("optimizer/encoders.x.", "weight/exp_avg"), "/exp_avg is missing"),
    "no squares": ("joint", pop("optimizer/", "/exp_avg_sq"), "/exp_avg_sq is missing"),
    "no steps": ("joint", pop("optimizer/", "/step"), "/step is missing"),
    "no best weights": ("joint", pop("best/"), "tensor best/"),
    "the next stage": ("joint", put(stage=1), "stage 1 is named joint, expected "),
    "the next stage by name": ("joint", put(stage=1, name="bridges"), "tensor optimizer/"),
    "the stage before": ("bridges", put(stage=0), "stage 0 is named bridges, expected "),
    "the stage before by name": ("bridges", put(stage=0, name="joint"), "tensor optimizer/"),
    "between stages, the one before": ("between", put(stage=0), "stage 0 is named bridges, expected "),
    "between stages, the end": ("between", put(stage=2), "stage 2 is named bridges, expected "),
    "no such stage": ("joint", put(stage=7), "stage is 7, expected at most 2"),
    "other stages": (
        "joint",
        put(stages=["joint"]),
        "expected ['joint', 'bridges']; this is a checkpoint of another model",
    ),
    "a negative stage": ("joint", put(stage=-1), "stage is -1, expected a number of 0 or more"),
    "a stage that is text": ("joint", put(stage="0"), "stage is 0, expected a number of 0 or more"),
    "a stage that is true": ("joint", put(stage=True), "stage is True, expected a number of 0 or more"),
    "another epoch": ("joint", put(epoch=1), "stage joint is at epoch 1, expected 2 after"),
    "an epoch beyond the spec": ("joint", put(epoch=9), "epoch"),
    "another update": ("joint", put(update=4), "updates in this stage, expected the 4 of update" + "|expected at most"),
    "update 0 with moments": ("joint", put(update=0), "best_update is"),
    "a best update to come": ("joint", put(best_update=99), "best_update is 99, which does not match update"),
    "no best score": ("joint", put(best_score=None), "best_update is|tensor best/"),
    "a best score that is text": ("joint", put(best_score="low"), "best_score is low, expected a finite number or null"),
    "a best score that is NaN": ("joint", put(best_score=math.nan), "best_score is nan, expected a finite number or null"),
    "a decay that never began": ("joint", put(decay_from=4), "stage joint has decay_from 4, which does not match"),
    "negative lines": ("joint", put(lines=-1), "lines is -1, expected a number of 0 or more"),
    "a list of lines": ("joint", put(lines=[1]), "lines is [1], expected a number of 0 or more"),
    "no state": ("joint", lambda _, state: state.clear(), "best_score is missing"),
    "no name": ("joint", lambda _, state: state.pop("name"), "name is missing"),
    "NaN in a moment": ("joint", remake("optimizer/", "/exp_avg", fill(math.nan)), "/exp_avg has NaN"),
    "an infinite moment": ("joint", remake("optimizer/", "/exp_avg", fill(math.inf)), "/exp_avg has an infinite value"),
    "NaN in a square": ("joint", remake("optimizer/", "/exp_avg_sq", fill(math.nan)), "/exp_avg_sq has NaN"),
    "a negative square": ("joint", remake("optimizer/", "/exp_avg_sq", fill(-1.0)), "/exp_avg_sq has a negative value"),
    "NaN in the best weights": ("joint", remake("best/", "weight", fill(math.nan)), "weight has NaN"),
    "NaN in the model": ("joint", remake("model/", "weight", fill(math.nan)), "weight has NaN"),
    "a step to come": ("joint", remake("optimizer/", "/step", fill(1000.0)), "/step is 1000, expected at most"),
    "half a step": ("joint", remake("optimizer/", "/step", fill(0.5)), "/step is 0.5, expected at most"),
    "a moment of another type": ("joint", remake("optimizer/", "/exp_avg", Tensor.double), "/exp_avg is torch.float64"),
    "a moment of another shape": ("joint", remake("optimizer/", "/exp_avg", lambda tensor: tensor[:1]), "expected torch.float32 of shape"),
    "best weights of another shape": ("joint", remake("best/", "weight", lambda tensor: tensor[:1]), "expected torch.float32 of shape"),
    "an extra moment": ("joint", lambda tensors, _: tensors.update({"optimizer/spare/step": torch.zeros(())}), "optimizer/spare/step is"),
    "moments between stages": ("between", lambda tensors, _: tensors.update({"optimizer/x/step": torch.zeros(())}), "optimizer/x/step is"),
    "a tensor of nothing": ("joint", lambda tensors, _: tensors.update({"spare": torch.zeros(2)}), "unexpected tensor spare"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_checkpoint_that_is_not_of_this_run_is_refused_by_the_name_of_what_is_wrong(kind: str, run: Callable[[str], Path]):
    name, edit, message = EDITS[kind]
    folder = run(name)
    tensors, state = load_tensors(folder / CHECKPOINT)
    edit(tensors, state)
    save_tensors(folder / CHECKPOINT, tensors, state)
    before = contents(folder)
    with pytest.raises(RunError) as caught:
        nbridge.resume(folder, ROWS)
    assert str(caught.value).startswith(f"{folder / CHECKPOINT}: ")
    assert any(part in str(caught.value) for part in message.split("|"))
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["joint", "between", "bridges"])
def test_an_unedited_checkpoint_resumes_to_the_same_bytes(name: str, run: Callable[[str], Path], whole: Path):
    folder = run(name)
    nbridge.resume(folder, ROWS)
    for file in ("model/model.safetensors", "model/config.json", "model/README.md", CHECKPOINT):
        assert (folder / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_shorter_budget_than_the_checkpoint_is_refused(run: Callable[[str], Path]):
    folder = run("joint")
    path = folder / "spec.resolved.yaml"
    path.write_text(path.read_text().replace("epochs: 4", "epochs: 1", 1))
    # Of a run that does not know its spec, such as one of an older version, the edit itself cannot be refused.
    environment = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps({name: value for name, value in environment.items() if name != "specs"}))
    with pytest.raises(RunError, match=r"last\.safetensors: stage joint is at update \d+, expected at most the \d+ of the spec"):
        nbridge.resume(folder, ROWS)


def test_moments_of_a_parameter_without_gradients_are_there_and_change_nothing(tmp_path: Path):
    """A stage of complete rows alone leaves some parameters without a gradient; those are not missing from a checkpoint."""
    rows = {"x": ROWS["x"], "kind": np.where(np.arange(40) < 20, np.nan, ROWS["kind"])}
    ended = nbridge.train(SPEC, rows, out=tmp_path / "whole", device="cpu").model.network.state_dict()
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(SPEC, rows, out=tmp_path / "cut", device="cpu", callbacks=[StopAt("joint", 1)])
    resumed = nbridge.resume(tmp_path / "cut", rows).model.network.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in ended.items())


# Files whose bytes changed


def _tamper(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes tensors and keeps what the file says of itself."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(tensors)
    save_file(tensors, path, metadata)


def _swap(one: str, other: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        assert tensors[one].shape == tensors[other].shape
        assert not torch.equal(tensors[one], tensors[other])
        tensors[one], tensors[other] = tensors[other], tensors[one]

    return edit


def _pair(path: Path, start: str) -> tuple[str, str]:
    """Two tensors of one shape and type with other values."""
    tensors = load_tensors(path)[0]
    names = [name for name in tensors if name.startswith(start)]
    return next(
        (one, other)
        for one in names
        for other in names
        if tensors[one].shape == tensors[other].shape
        and tensors[one].dtype == tensors[other].dtype
        and not torch.equal(tensors[one], tensors[other])
    )


@pytest.mark.parametrize("part", ["model/", "best/", "optimizer/"])
def test_tensors_swapped_in_a_checkpoint_are_refused(part: str, run: Callable[[str], Path]):
    folder = run("joint")
    _tamper(folder / CHECKPOINT, _swap(*_pair(folder / CHECKPOINT, part)))
    with pytest.raises(RunError, match=r"last\.safetensors: damaged; its contents do not match its digest"):
        nbridge.resume(folder, ROWS)


def test_tensors_swapped_in_a_model_are_refused(whole: Path, tmp_path: Path):
    shutil.copytree(whole / "model", tmp_path / "model")
    _tamper(tmp_path / "model" / TENSORS, _swap(*_pair(tmp_path / "model" / TENSORS, "")))
    with pytest.raises(RunError, match=r"model\.safetensors: damaged; its contents do not match its digest"):
        nbridge.load(tmp_path / "model")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_tensor_of_a_model_that_is_not_finite_is_refused_by_its_name(whole: Path, tmp_path: Path, value: float):
    shutil.copytree(whole / "model", tmp_path / "model")
    path, what = tmp_path / "model" / TENSORS, "NaN" if math.isnan(value) else "an infinite value"
    tensors, state = load_tensors(path)
    model = nbridge.build_model(nbridge.load(whole).spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    floating = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    assert len(floating) > 10
    for name in floating:
        changed = tensors[name].clone()
        changed.view(-1)[-1] = value
        message = f"{path}: tensor {name} has {what}; the file is damaged, or its training diverged"
        with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
            load_into(model, {**tensors, name: changed}, path)
        if name in (floating[0], floating[-1]):
            save_tensors(path, {**tensors, name: changed}, state)
            with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
                nbridge.load(tmp_path / "model")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_infinite_values_that_a_new_model_has_are_accepted(tmp_path: Path):
    """Conformal intervals of too few rows are the whole support, and infinite in the file."""
    spec = {**SPEC, "training": {**SPEC["training"], "conformal": True}}
    nbridge.train(spec, ROWS, out=tmp_path / "run", device="cpu")
    tensors, state = load_tensors(path := tmp_path / "run" / "model" / TENSORS)
    (name, table) = next((name, tensor) for name, tensor in tensors.items() if tensor.isinf().any())
    assert torch.equal(nbridge.load(tmp_path / "run").network.state_dict()[name], table)
    save_tensors(path, {**tensors, name: -table}, state)
    with pytest.raises(RunError, match=f"tensor {name} has an infinite value"):
        nbridge.load(tmp_path / "run")


def test_a_file_of_version_0_1_0_has_no_digest_and_is_read(whole: Path, tmp_path: Path):
    shutil.copytree(whole / "model", tmp_path / "model")
    with safe_open(path := tmp_path / "model" / TENSORS, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["digest"]
    save_file(tensors, path, metadata)
    ours = nbridge.load(whole).network.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in nbridge.load(tmp_path / "model").network.state_dict().items())


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _damaged(data: bytes, draw: st.DataObject) -> bytes:
    """Bytes flipped, cut off, repeated or overwritten; the header, which is a small part of a file, as often as the rest."""
    header = 8 + int.from_bytes(data[:8], "little")
    place = draw.draw(st.one_of(st.integers(0, 7), st.integers(0, header - 1), st.integers(header, len(data) - 1)), "place")
    kind = draw.draw(st.sampled_from(["flip", "write", "cut", "drop", "repeat"]), "kind")
    length = draw.draw(st.integers(1, 40), "length")
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ (1 << draw.draw(st.integers(0, 7), "bit"))]) + data[place + 1 :]
    if kind == "write":
        written = draw.draw(st.binary(min_size=1, max_size=8), "written")
        return data[:place] + written + data[place + len(written) :]
    if kind == "cut":
        return data[:place]
    return data[:place] + data[place + length :] if kind == "drop" else data[: place + length] + data[place:]


@pytest.fixture(scope="module")
def undamaged(halted: Path) -> Undamaged:
    """The bytes of a checkpoint, and what is in it."""
    path = halted / "joint" / CHECKPOINT
    return path.read_bytes(), load_tensors(path)


@FUZZ
@given(draw=st.data())
def test_damaged_bytes_of_a_tensor_file_are_refused_or_change_no_value(undamaged: Undamaged, tmp_path: Path, draw: st.DataObject):
    whole, (tensors, state) = undamaged
    (path := tmp_path / "damaged.safetensors").write_bytes(_damaged(whole, draw))
    try:
        found, kept = load_tensors(path)
    except RunError as error:
        message = str(error)
    else:
        message = ""
        assert (found.keys(), kept) == (tensors.keys(), state)
        assert all(torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype for name, tensor in found.items())
    assert "\n" not in message


@settings(FUZZ, max_examples=100)
@given(draw=st.data())
def test_a_damaged_config_is_refused_in_one_line_or_loads(whole: Path, tmp_path: Path, draw: st.DataObject):
    shutil.copytree(whole / "model", tmp_path / "model", dirs_exist_ok=True)
    path = tmp_path / "model" / "config.json"
    data = (whole / "model" / "config.json").read_bytes()
    place = draw.draw(st.integers(0, len(data) - 1))
    written = draw.draw(st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"9", b"-", b"null", b"[", b'"', b"1e999", b"NaN"])))
    path.write_bytes(data[:place] + written + data[place + len(written) :])
    try:
        nbridge.load(tmp_path / "model")
    except RunError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


# Equal trainings

TRAIN = f"""
import sys
import numpy as np, nbridge
rows = {{"x": np.random.default_rng(0).normal(size=(40, 3)), "kind": np.arange(40) % 2}}
nbridge.train({SPEC!r}, rows, out=sys.argv[1], device="cpu")
"""


def test_equal_trainings_write_equal_bytes(tmp_path: Path, whole: Path):
    """Every file of a run, trained twice in this process and in two others; only times differ."""
    nbridge.train(SPEC, ROWS, out=tmp_path / "again", device="cpu")
    started = [Started(Script(TRAIN), "script", tmp_path / name) for name in ("one", "other")]
    assert [process.ended()[0] for process in started] == [0, 0]
    for pair in ((whole, tmp_path / "again"), (tmp_path / "one", tmp_path / "other")):
        found = [contents(folder) for folder in pair]
        assert found[0].keys() == found[1].keys()
        assert [path for path in found[0] if found[0][path] != found[1][path]] == [Path(METRICS)]
        records = [[_without_times(line) for line in files[Path(METRICS)].splitlines()] for files in found]
        assert records[0] == records[1]


def _without_times(line: bytes) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key not in ("seconds", "compile_seconds")}


def test_equal_tensors_are_written_as_equal_bytes(tmp_path: Path):
    tensors = {"b": torch.arange(3), "é\n": torch.ones(2, 2), "a": torch.zeros(0), "half": torch.ones(1, dtype=torch.bfloat16)}
    written = set()
    for _ in range(8):
        save_tensors(tmp_path / "file", tensors, {"b": 1, "ä": ["\x07\u2028", 2.5]})
        written.add((tmp_path / "file").read_bytes())
    assert len(written) == 1
    assert load_tensors(tmp_path / "file")[1] == {"b": 1, "ä": ["\x07\u2028", 2.5]}
