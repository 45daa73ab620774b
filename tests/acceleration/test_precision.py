"""``precision: auto``: a choice that rests on a measurement, is made once for a run, and is the same in all its processes.

No test depends on real time: clocks are made up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nbridge
from nbridge.acceleration import precision_choice
from nbridge.acceleration.distributed import World
from nbridge.acceleration.precision_choice import BUDGET, REPEATS, PrecisionChoice, choose_precision, measure, wide_weights
from nbridge.nn.networks import StackedLinear
from nbridge.runs import run as run_module
from nbridge.training import trainer as training
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

WIDE = nn.Linear(256, 256)


@pytest.fixture(autouse=True)
def _processor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def clock_of(float32: float, bf16: float, repeats: int = REPEATS) -> Iterator[float]:
    """Readings in the order in which one layer is timed: the start, then begin and end of each product, float32 first."""
    now, first = 0.0, True
    yield now
    for repeat in range(1 + repeats):
        if repeat > 2:
            yield now
        for seconds in (float32, bf16):
            yield now
            # The first time of each is slow, and must not count.
            now += seconds + (9 * first)
            yield now
        first = False
    # Whatever comes then, the budget is spent.
    while True:
        yield now + 2 * BUDGET


@pytest.mark.parametrize(
    ("float32", "bf16", "expected"),
    [(2e-4, 1e-4, "bf16"), (1.2e-4, 1e-4, "bf16"), (1.1e-4, 1e-4, "float32"), (1e-4, 1e-4, "float32"), (1e-4, 2e-4, "float32")],
)
def test_bf16_is_chosen_only_where_it_is_clearly_faster(float32: float, bf16: float, expected: str):
    readings = clock_of(float32, bf16)
    found = choose_precision("auto", WIDE, 16, clock=lambda: next(readings))
    assert (found.chosen, found.float32_ms, found.bf16_ms) == (expected, pytest.approx(1000 * float32), pytest.approx(1000 * bf16))


def test_what_is_asked_for_is_chosen_and_small_models_are_float32_without_a_measurement(monkeypatch: pytest.MonkeyPatch):
    def no_clock() -> float:
        raise AssertionError("timed")

    for asked in ("float32", "bf16"):
        assert choose_precision(asked, WIDE, 16, clock=no_clock) == PrecisionChoice(asked, asked)
    assert choose_precision("auto", nn.Linear(256, 255), 16, clock=no_clock) == PrecisionChoice("auto", "float32")
    assert choose_precision("auto", nn.ReLU(), 16, clock=no_clock) == PrecisionChoice("auto", "float32")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_precision("auto", WIDE, 16, clock=no_clock) == PrecisionChoice("auto", "float32")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert choose_precision("auto", WIDE, 16, clock=no_clock) == PrecisionChoice("auto", "float32")


def test_slow_products_are_timed_twice_and_fast_ones_a_few_times():
    reads: list[float] = []

    def clock(step: float) -> float:
        reads.append(step * len(reads))
        return reads[-1]

    measure([WIDE.weight], 4, lambda: clock(1.0))
    # The start, three rounds of two products with two readings each, the first of which does not count, and the end.
    assert len(reads) == 1 + 3 * 4 + 1
    reads.clear()
    measure([WIDE.weight], 4, lambda: clock(1e-9))
    assert len(reads) == 1 + (1 + REPEATS) * 4 + REPEATS - 2


def test_wide_layers_of_different_shapes_are_timed():
    model = nn.Sequential(nn.Linear(300, 400), nn.Linear(300, 400), StackedLinear(3, 256, 256), nn.Conv2d(4, 8, 3), nn.Linear(10, 20))
    assert [tuple(weight.shape) for weight in wide_weights(model)] == [(3, 256, 256), (400, 300)]


@pytest.mark.parametrize("shape", [(40, 30), (3, 40, 30), (8, 4, 3, 3), (5000, 4000)])
def test_timing_leaves_weights_and_random_numbers_as_they_are(shape: tuple[int, ...]):
    weight, before = nn.Parameter(torch.randn(shape)), torch.random.get_rng_state()
    kept = weight.detach().clone()
    with torch.no_grad():
        times = measure([weight], 128)
    assert min(times) > 0
    assert weight.grad is None
    assert torch.equal(weight, kept)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_processes_follow_the_first(monkeypatch: pytest.MonkeyPatch):
    class Second(World):
        def gather(self, tensor: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.tensor([0.004, 0.001], dtype=torch.float64), tensor])

    monkeypatch.setattr(precision_choice, "measure", lambda *_: pytest.fail("measured in the second process"))
    assert choose_precision("auto", WIDE, 16, world=Second(1, 2)) == PrecisionChoice("auto", "bf16", 4.0, 1.0)


# A run and its choice

SPEC = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 4, "encoder": {"type": "mlp", "hidden": [256, 256]}, "likelihood": "normal", "features": 8},
        "y": {"shape": 3, "encoder": "embedding", "likelihood": "categorical", "features": 8},
    },
    "training": {"batch_size": 16, "checkpoint_seconds": 0, "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 1}}},
}
ROWS = {"x": np.random.default_rng(0).normal(size=(48, 4)), "y": np.arange(48) % 3}


class _Stop(Callback):
    def on_validation(self, record: EpochRecord) -> None:
        raise KeyboardInterrupt


def measured(monkeypatch: pytest.MonkeyPatch, *times: tuple[float, float]) -> list[tuple[float, float]]:
    left = list(times)
    monkeypatch.setattr(precision_choice, "measure", lambda *_: left.pop(0))
    return left


def products_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions that trainings are run in."""
    found: list[str] = []
    inner = training.matmul_precision
    monkeypatch.setattr(training, "matmul_precision", lambda products, model: (found.append(products), inner(products, model))[1])
    return found


def test_a_run_keeps_its_choice_and_resume_does_not_measure_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left, found = measured(monkeypatch, (0.004, 0.001), (0.004, 0.001)), products_of(monkeypatch)
    whole = nbridge.train(SPEC, ROWS, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(SPEC, ROWS, out=tmp_path / "cut", callbacks=[_Stop()])
    assert not left
    environment = json.loads((tmp_path / "cut" / "env.json").read_text())
    assert environment["precision"] == {"asked": "auto", "chosen": "bf16", "float32_ms": 4.0, "bf16_ms": 1.0}
    again = nbridge.resume(tmp_path / "cut", ROWS)
    assert found == ["bf16"] * 3
    found = again.model.network.state_dict()
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("kept", ["auto", {"asked": "auto"}, {"asked": "auto", "chosen": "int8"}])
def test_a_choice_that_is_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: object):
    measured(monkeypatch, (0.001, 0.001))
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(SPEC, ROWS, out=tmp_path / "run", callbacks=[_Stop()])
    path = tmp_path / "run" / "env.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "precision": kept}))
    with pytest.raises(nbridge.RunError, match=r"env.json: missing or damaged, so this run cannot be resumed"):
        nbridge.resume(tmp_path / "run", ROWS)


def test_training_without_a_folder_measures_once(monkeypatch: pytest.MonkeyPatch):
    left, found = measured(monkeypatch, (0.001, 0.001), (0.002, 0.001)), products_of(monkeypatch)
    nbridge.train(SPEC, ROWS)
    assert len(left) == 1
    spec = nbridge.Spec.model_validate(SPEC)
    model = nbridge.build_model(spec)
    nbridge.fit(model, run_module.build_data(spec, model, ROWS).train, None, spec.training)
    assert (left, found) == ([], ["float32", "bf16"])
