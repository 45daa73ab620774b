"""Files that the pages of the site use, made once, and trainings that are short."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import after_training
import pytest
import sklearn.datasets
import world

from nbridge.evaluation import classifiers
from nbridge.training import stage
from nbridge.training.budgets import Budget, budget_of

MOST_UPDATES = 4
"""Updates of a stage of any training on a page."""
DIGITS = 200
"""Rows of the digits that pages train on."""


def short_budget(name: str, settings: Any, steps: int) -> Budget:
    """The budget of a stage, cut to a few updates."""
    full = budget_of(name, settings, steps)
    if full.epochs is not None:
        return replace(full, epochs=1, updates=steps)
    return replace(full, updates=min(full.updates, MOST_UPDATES))


def few_digits(return_X_y: bool = False, load: Callable[..., Any] = sklearn.datasets.load_digits) -> Any:
    """The first digits of scikit-learn."""
    if return_X_y:
        return tuple(values[:DIGITS] for values in load(return_X_y=True))
    return load()


@pytest.fixture(scope="module")
def short_trainings() -> Iterator[None]:
    """Pages show commands as you would type them; what they train is cut to a few updates, and so is what is fitted afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        after_training.make_little(patch.setattr)
        patch.setattr(stage, "budget_of", short_budget)
        patch.setattr(classifiers, "train_classifier", partial(classifiers.train_classifier, epochs=1))
        patch.setattr(sklearn.datasets, "load_digits", few_digits)
        yield


@pytest.fixture(scope="module")
def files(short_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages name: tables, arrays, images, objects, and runs trained on them."""
    folder = tmp_path_factory.mktemp("files")
    world.write(folder)
    return folder


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one page, with a copy of these files."""
    folder = tmp_path / "page"
    shutil.copytree(files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder
