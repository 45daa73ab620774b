"""Rivals in environments of their own: miceforest, HyperImpute and MOFA+, each answering a question in a file with another file.

A folder, by default ``tables-rivals`` in nbridge's cache folder, has an environment for each, whose Python is ``NAME/bin/python``:

    python -m venv miceforest   && miceforest/bin/pip install miceforest==6.0.5 "lightgbm<4.6" "pandas<3"
    python -m venv mofa         && mofa/bin/pip install mofapy2==0.7.5
    python -m venv hyperimpute  && hyperimpute/bin/pip install --no-deps hyperimpute==0.1.17 miracle-imputation==0.1.6
    hyperimpute/bin/pip install "numpy<2" "pandas<2.2" "scikit-learn<1.5" "optuna<4" "xgboost<2" "pydantic<2" loguru==0.6.0 \
        torch catboost lightgbm redis cloudpickle geomloss tqdm

HyperImpute's pins would bring notebooks and TensorFlow, which its imputer does not use.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables.masks import Task
from benchmarks.tables.scores import Answer
from nbridge.data.benchmarks.download import cache_folder

RUNNERS = Path(__file__).resolve().parent / "runners"
FOREIGN = {"miceforest": 10, "hyperimpute": 1, "mofa": 100}
"""Names of the methods, and the number of their draws."""


class UnavailableError(Exception):
    """A method that cannot answer here, with the reason in one line."""


@dataclass(frozen=True)
class Environments:
    """The folder of environments, and the seconds that a run may take."""

    folder: Path
    limit: float = 500.0

    def run(self, name: str, task: Task, seed: int) -> Answer:
        """The answer of a separate process.

        Raises:
            UnavailableError: if there is no such environment, or the run fails or takes too long.
        """
        table = task.table
        kinds = {"counts": table.counts, "ordered": table.ordered, "groups": table.memberships}
        return _answer(task, self.ask(name, {"train": task.train, "rows": task.rows, **kinds}, seed, FOREIGN[name]))

    def ask(self, name: str, question: Mapping[str, np.ndarray], seed: int, draws: int) -> dict[str, np.ndarray]:
        """The arrays that a separate process answers to those of a ``runners.exchange.Question``.

        Raises:
            UnavailableError: as for `run`.
        """
        python = self.folder / name / "bin" / "python"
        if not python.exists():
            raise UnavailableError(f"no environment {python}; see benchmarks/tables/environments.py")
        with tempfile.TemporaryDirectory() as found:
            asked, answered, said = (Path(found) / part for part in ("question.npz", "answer.npz", "said.txt"))
            np.savez(asked, allow_pickle=False, seed=np.array(seed), draws=np.array(draws), **question)
            self._wait([str(python), str(RUNNERS / f"{name}_runner.py"), str(asked), str(answered)], said)
            with np.load(answered) as file:
                return dict(file)

    def _wait(self, command: list[str], said: Path) -> None:
        """Runs a command to its end, with what it prints in a file: a pipe would be kept open by processes that a rival started."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        with said.open("w") as file:
            try:
                done = subprocess.run(command, stdout=file, stderr=file, check=False, timeout=self.limit, env=environment)
            except subprocess.TimeoutExpired:
                raise UnavailableError(f"stopped after {self.limit:.0f} seconds") from None
        if done.returncode:
            raise UnavailableError(f"failed: {(said.read_text().strip() or 'no message').splitlines()[-1][:200]}")


def default_folder() -> Path:
    """Where environments are by default."""
    return cache_folder() / "tables-rivals"


def _answer(task: Task, arrays: dict[str, np.ndarray]) -> Answer:
    """The arrays of an answer, with cells that were given put back."""
    given = ~np.isnan(task.rows)
    draws = arrays.get("draws")
    return Answer(
        np.where(given, task.rows, arrays["values"]),
        None if draws is None else np.where(given, task.rows, draws),
        {int(name.split("_")[1]): value for name, value in arrays.items() if name.startswith("probabilities_")},
        seconds=float(arrays["seconds"]),
    )
