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
        python = self.folder / name / "bin" / "python"
        if not python.exists():
            raise UnavailableError(f"no environment {python}; see benchmarks/tables/environments.py")
        with tempfile.TemporaryDirectory() as found:
            asked, answered = Path(found) / "question.npz", Path(found) / "answer.npz"
            np.savez(
                asked, train=task.train, rows=task.rows, counts=task.table.counts, ordered=task.table.ordered,
                groups=task.table.memberships, seed=seed, draws=FOREIGN[name],
            )  # fmt: skip
            command = [str(python), str(RUNNERS / f"{name}_runner.py"), str(asked), str(answered)]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            # A file, not a pipe, which processes started by a rival would keep open after it was stopped.
            with (Path(found) / "stderr").open("w+") as said:
                try:
                    done = subprocess.run(
                        command, stdout=said, stderr=said, check=False, timeout=self.limit, env=environment | {"OMP_NUM_THREADS": "1"}
                    )
                except subprocess.TimeoutExpired:
                    raise UnavailableError(f"stopped after {self.limit:.0f} seconds") from None
                if done.returncode:
                    said.seek(0)
                    raise UnavailableError(f"failed: {(said.read().strip() or 'no message').splitlines()[-1][:200]}")
            with np.load(answered) as file:
                return _answer(task, dict(file))


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
