"""PolyMNIST at full resolution and length: nbridge's default model and multivae's MMVAE+, in calls of less than ten minutes.

    python -m benchmarks.polymnist.long --out DIR [--multivae PATH_TO_PYTHON] [--missing 0.2] [--minutes 9] [--step judge]

Each call does one step as far as the minutes reach; repeat it until it says "done". The steps: a training of each system, `judge`, and
`table`, which needs DIR/judged.json alone. PATH_TO_PYTHON belongs to an environment as for `benchmarks.polymnist`; without it nbridge is
run alone. A GPU is used where there is one. A run of fewer rows tries the script out, and its table is only printed:

    python -m benchmarks.polymnist.long --out DIR --rows 600 --test-rows 100 --updates 20 --judge-steps 50 --systems nbridge

Protocol: 60,000 rows of five views, 28 x 28, of the library's source `polymnist`, of which 5 % validate; views are absent from training
rows alone. nbridge's spec names shapes and likelihoods, and all else is its default, also when it stops early. 100 epochs of 128 rows:
of nbridge 50 in each of its two stages, of MMVAE+ 100. `mmvaeplus` has all settings of its authors: beta 2.5, 32 + 32 dimensions, a
Laplace likelihood of scale .75, amsgrad, their residual networks; `mmvaeplus_conv` has networks of the sizes of nbridge's default.

Figures, as in `benchmarks.suite`: coherence is the share of generated views in which a classifier, trained on real training views, sees
the digit of the row, from one draw for each of five sets of a size; agreement, the share of rows whose hidden views all show one digit.
What the classifiers read of real views, and of views rebuilt from all five, bounds both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import nbridge
from benchmarks.polymnist.nbridge_runner import generate
from benchmarks.polymnist.task import VIEWS, device_name, keep_pictures
from benchmarks.readme import replace_section
from benchmarks.suite.judges import STEPS, panel_of
from benchmarks.suite.rivals import figures_of_pictures, write_rows
from benchmarks.suite.systems import BATCH_SIZE, give_budget
from benchmarks.suite.tasks import Task, encoder_of, training_part
from nbridge.common.atomic_files import write_json
from nbridge.data.batch import Batch
from nbridge.data.benchmarks.polymnist import PolyMNIST
from nbridge.data.split import Dataset
from nbridge.inference.impute import serving
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model
from nbridge.training.callbacks import Callback
from nbridge.training.progress import format_record
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import RESOLVED
from nbridge.training.state import read_records

HERE = Path(__file__).resolve().parent
ROOT, RESULT = HERE.parent.parent, HERE.parent / "results" / "polymnist_long.json"
ROWS, TEST_ROWS, VALIDATION, EPOCHS, SHAPE = 60_000, 2_000, 0.05, 100, (3, 28, 28)
NAMES = {"nbridge": "nbridge, default", "mmvaeplus": "MMVAE+ of its authors", "mmvaeplus_conv": "MMVAE+, networks as nbridge's"}
MARKS = {"0": (0.88, 0.89, 0.93, 0.95), "0.2": (0.89,) * 4, "0.5": (0.81,) * 4}
"""Published coherence given 1 to 4 views, by the share that is missing."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run folder, which later calls must repeat; updates are per stage of two, and MMVAE+ gets twice as many."""

    missing: str
    rows: int
    test_rows: int
    updates: int
    judge_steps: int
    seed: int

    def spec(self, *, label: bool = False) -> Spec:
        """nbridge's default; with the label as well it is for reading rows."""
        rows = {"rows": self.rows, "test_rows": self.test_rows, "missing": float(self.missing), "validation": VALIDATION}
        modalities: dict[str, Any] = {name: {"shape": SHAPE, "encoder": encoder_of(SHAPE), "likelihood": "laplace"} for name in VIEWS}
        if label:
            modalities["label"] = {"shape": 10, "encoder": "mlp", "likelihood": "categorical"}
        document = {"data": {"source": "polymnist", **rows}, "modalities": modalities, "training": {"seed": self.seed}}
        give_budget(document, self.updates)
        return Spec.model_validate(document)

    def read(self) -> tuple[Batch, Batch]:
        """Training rows without those that validate, and test rows, with labels."""
        spec = self.spec(label=True)
        splits = build_data(spec, build_model(spec))
        assert splits.test is not None
        return splits.train.sample(), splits.test.sample()

    def whole(self, _seed: int) -> Dataset:
        """The same rows, without missing views."""
        return PolyMNIST(rows=self.rows, test_rows=self.test_rows).load({**dict.fromkeys(VIEWS, SHAPE), "label": (10,)})


class Enough(KeyboardInterrupt):
    """Raised when the time is up; training handles it like Ctrl-C between two rounds, so that nothing is lost."""


class Clock(Callback):
    """Prints each round, and stops training if the next one might end too late."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.longest = deadline, 0.0

    def on_validation(self, record: EpochRecord) -> None:
        print(f"  {record.stage} {record.update:,}: {format_record(record)}", flush=True)
        self.longest = max(self.longest, record.seconds)
        if time.time() + self.longest > self.deadline:
            raise Enough


def train_nbridge(options: argparse.Namespace, settings: Settings, deadline: float) -> None:
    folder, clock = options.out / "nbridge", Clock(deadline)
    begun = (folder / RESOLVED).is_file()
    try:
        run = nbridge.resume(folder, callbacks=[clock]) if begun else nbridge.train(settings.spec(), out=folder, callbacks=[clock])
    except Enough:
        return
    model = run.model.to("cuda" if torch.cuda.is_available() else "cpu").network
    test = settings.read()[1].select(*VIEWS).to(model.device)
    with serving(model, settings.seed):
        keep_pictures(options.out / "nbridge.npz", partial(generate, model, test), rebuilt=True)
    records = list(read_records(folder))
    updates = sum({record.stage: record.update for record in records}.values())
    seconds = round(sum(record.seconds for record in records))
    write_json(options.out / "nbridge.json", {"updates": updates, "seconds": seconds, "device": device_name()})


def train_rival(system: str, options: argparse.Namespace, settings: Settings, deadline: float) -> None:
    if options.multivae is None:
        raise SystemExit(f"{system} takes --multivae PYTHON")
    rows, part = options.out / "rows.npz", options.out / "part.npz"
    if not rows.is_file():
        write_rows(part, *settings.read())
        part.replace(rows)
    words = (system, str(options.out), str(2 * settings.updates), str(deadline), str(settings.seed))
    command, environment = [options.multivae, str(HERE / "long_rival.py"), *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    if subprocess.run(command, check=False, env=environment).returncode:
        raise SystemExit(f"{system}: {options.multivae} failed")


def judge(options: argparse.Namespace, settings: Settings, deadline: float) -> None:
    """Scores the trained systems with a classifier for each view; trained classifiers are kept in the user's cache."""
    judged = partial(training_part, settings.whole)
    task = Task("polymnist_long", "", dict.fromkeys(VIEWS, (SHAPE, "laplace")), settings.whole, label="label", judge_rows=judged)
    for name in VIEWS:
        panel_of(replace(task, modalities={name: task.modalities[name]}), 0, settings.judge_steps)
        if time.time() > deadline:
            return
    panel, test = panel_of(task, 0, settings.judge_steps), settings.read()[1]
    assert panel is not None
    trained = {path.stem: path for path in options.out.glob("*.json") if path.stem in NAMES}
    systems = {name: {**read(path), **figures_of_pictures(path.with_suffix(".npz"), panel, test)} for name, path in trained.items()}
    if systems:
        write_json(options.out / "judged.json", {**asdict(settings), "real": panel.real(test), "systems": systems})


def show(options: argparse.Namespace, settings: Settings, _deadline: float) -> None:
    """Prints the table, and saves it if the run used all rows."""
    if not (options.out / "judged.json").is_file():
        print("no results yet")
        return
    results = {settings.missing: read(options.out / "judged.json")}
    if settings.rows == ROWS:
        results = {**(read(RESULT) if RESULT.is_file() else {}), **results}
        write_json(RESULT, results)
        replace_section("polymnist_long", table(results))
    print(table(results))


def table(results: Mapping[str, Any]) -> str:
    """The scores for all shares, and the published ones."""
    lines: list[str] = []
    for share, found in sorted(results.items()):
        head = f"{float(share):.0%} of views missing in training" if float(share) else "complete rows"
        lines += ["", f"| {head} | 1 given | 2 | 3 | 4 | all hidden agree, given 1 | 2 | 3 | rebuilt from 5 | variety | epochs | minutes |"]
        lines.append("|---" * 12 + "|")
        lines += [f"| {NAMES[name]} | {' | '.join(cells(one, found['rows']))} |" for name, one in found["systems"].items()]
        lines += [f"| published, to beat | {' | '.join(f'{mark:.2f}' for mark in MARKS[share])} |" + "  |" * 7, ""]
        devices, real = ", ".join(dict.fromkeys(one["device"] for one in found["systems"].values())), found["real"]
        sizes = f"{found['rows']:,} training and {found['test_rows']:,} test rows, seed {found['seed']}, on {devices}."
        lines.append(f"{sizes} Classifiers read {real['judges']:.3f} of real views, and agree on all of a row in {real['agreement']:.3f}.")
    return "\n".join(lines[1:])


def cells(one: Mapping[str, Any], rows: int) -> list[str]:
    """A line of the table for one system."""
    images, epoch = one["kinds"]["images"], math.ceil((1 - VALIDATION) * rows / BATCH_SIZE)
    figures = [images[number]["coherence"] for number in "1234"] + [one["agreement"][number]["agreement"] for number in "123"]
    figures += [images["5"]["coherence"], mean(images[number]["variety"] for number in "1234")]
    return [*(f"{figure:.3f}" for figure in figures), f"{one['updates'] / epoch:.1f}", f"{one['seconds'] / 60:.0f}"]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def next_step(folder: Path, systems: Sequence[str]) -> str:
    """The first step that is not done; the last one can be repeated."""
    if waiting := [name for name in systems if not (folder / f"{name}.json").is_file()]:
        return waiting[0]
    judged = folder / "judged.json"
    return "table" if judged.is_file() and set(systems) <= set(read(judged)["systems"]) else "judge"


def keep_settings(folder: Path, settings: Settings) -> None:
    """Writes the settings of the run folder, or exits if the folder has other settings."""
    path = folder / "settings.json"
    if path.is_file() and (before := Settings(**read(path))) != settings:
        raise SystemExit(f"{folder} began with {before}, not {settings}; take another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(settings))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the run, one for each share")
    parser.add_argument("--multivae", metavar="PYTHON", help="python of an environment with multivae")
    parser.add_argument("--missing", choices=tuple(MARKS), default="0")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which a call stops; training does a round at least")
    parser.add_argument("--step", choices=(*NAMES, "judge", "table"), help="by default the next one")
    parser.add_argument("--systems", default="nbridge,mmvaeplus", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--updates", type=int, help=f"of each of two stages; by default {EPOCHS} epochs in total")
    parser.add_argument("--judge-steps", type=int, default=STEPS, help="of the training of each classifier")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    deadline = time.time() + 60 * options.minutes
    if unknown := set(options.systems.split(",")) - set(NAMES):
        parser.error(f"--systems: {', '.join(sorted(unknown))} is none of {', '.join(NAMES)}")
    options.out = options.out.resolve()
    updates = options.updates or EPOCHS // 2 * math.ceil((1 - VALIDATION) * options.rows / BATCH_SIZE)
    settings = Settings(options.missing, options.rows, options.test_rows, updates, options.judge_steps, options.seed)
    keep_settings(options.out, settings)
    systems = [name for name in options.systems.split(",") if name == "nbridge" or options.multivae]
    step = options.step or next_step(options.out, systems)
    steps = {"nbridge": train_nbridge, "judge": judge, "table": show}
    steps.get(step, partial(train_rival, step))(options, settings, deadline)
    following = next_step(options.out, systems)
    print("done" if step == following == "table" else f"{step} ends here; call again for {following}", flush=True)


if __name__ == "__main__":
    main()
