"""What all tests share: one thread, no accelerator, examples that hypothesis draws alike each time, real data where it lies."""

from __future__ import annotations

import functools
import gc
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator

# Before torch is imported: it looks for devices once.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from pathlib import Path
from typing import Any

import after_training
import pooch  # noqa: F401 (its logger keeps the stream of errors that there is now, and must not keep that of a test)
import pytest
import torch
import typer.main
from hypothesis import HealthCheck, settings

from nbridge.spec import reader, yaml_positions
from nbridge.spec.spec import Spec

gc.disable()  # While tests are collected, whose modules import much that stays.
torch.set_num_threads(1)
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=25, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


# Seeding accelerators that are not there formats a traceback for each of them, at every `torch.manual_seed`.
torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = lambda seed: None
# No test cuts off the power, so that files need not be on the disk.
os.fsync = lambda fd: None

# A command of a typer application is built from its functions once, in place of at each call in this process.
typer.main.get_command = functools.cache(typer.main.get_command)


def _write_once(write: Callable[[Spec], str]) -> Callable[[Spec], str]:
    written: dict[bytes, str] = {}

    def write_spec(spec: Spec) -> str:
        key = pickle.dumps(spec.as_dict())
        if key not in written:
            written[key] = write(spec)
        return written[key]

    return write_spec


# Tests write and read the same specs again and again, and YAML takes most of what it takes to begin a tiny training.
reader.write_spec = _write_once(reader.write_spec)
yaml_positions._compose = functools.lru_cache(1000)(yaml_positions._compose)


class Doctests:
    """What an example in a docstring finds: torch, and its random numbers from one seed."""

    @pytest.fixture(autouse=True)
    def doctest_names(self, doctest_namespace: dict[str, Any]) -> None:
        doctest_namespace["torch"] = torch
        torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    # A fixture of this file reaches the tests beside it only; as a plugin it reaches the docstrings of the package too.
    config.pluginmanager.register(Doctests())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files with slow tests come first, then those with most tests: the processes that share the files end at about the same time.
    number = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -number[item.path], item.path))


def pytest_collection_finish() -> None:
    # What libraries and collected tests hold stays to the end: the garbage collector need not look at it again and again, nor so often.
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True, scope="module")
def little_after_training(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is fitted once training is over looks at few draws of few rows and tries few values, but where it is what is tested.

    That is most of what a tiny training takes, in this process and in those that it forks.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "inference" and request.path.stem != "test_mixture":
            after_training.make_little(patch.setattr)
            patch.setenv(after_training.VARIABLE, "1")
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that NBRIDGE_DATA names; without it a test is skipped, or fails where NBRIDGE_REQUIRE_DATA is 1."""
    folder = os.environ.get("NBRIDGE_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"NBRIDGE_DATA names no folder ({folder!r})"
    if os.environ.get("NBRIDGE_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modalities whose classifiers were trained, in order, for one epoch each."""
    from nbridge.evaluation import classifiers

    heard: list[str] = []
    original = classifiers.train_classifier

    def train_classifier(encoder: Any, likelihood: Any, label_likelihood: Any, train: Any, name: str, label: str, **options: Any) -> Any:
        heard.append(name)
        return original(encoder, likelihood, label_likelihood, train, name, label, **{**options, "epochs": 1})

    monkeypatch.setattr(classifiers, "train_classifier", train_classifier)
    return heard
