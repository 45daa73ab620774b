"""A kill campaign: commands are killed at random moments, started again, and must end as if nothing had happened.

    python -m benchmarks.kills [--kills 100] [--torchrun 6] [--seed 0] [--only "train, stage" impute]

trains a tiny model from a table, kills the process by SIGKILL at a random moment, runs the command that continues (`nbridge resume` once
the run folder exists, else the same command) until it ends, and compares with a run that was not disturbed: model, checkpoint, metrics,
imputed files and the figures of `nbridge compare` must be identical bit for bit, and no temporary file may be left. It writes
benchmarks/results/kills.json and a table in benchmarks/README.md.

Processes are forks of one that has imported torch and nbridge. With --torchrun N, N of the kills end one of two processes of a training
under torchrun, or torchrun itself with both.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.readme import replace_section

RESULTS = Path(__file__).resolve().parent / "results" / "kills.json"
EPOCHS = 12
"""Rounds of each of the two stages."""
SPEC = """
name: killed
latent_dim: 2
data: {source: table, path: rows.csv, id: id, columns: {a: [a1, a2], b: [b1, b2], kind: [kind]}, classes: {kind: [x, "y", z]}}
modalities:
  a: {shape: 2, features: 8, encoder: {type: mlp, hidden: [8]}, likelihood: normal}
  b: {shape: 2, features: 8, encoder: {type: mlp, hidden: [8]}, likelihood: normal}
  kind: {shape: 3, features: 8, encoder: {type: mlp, hidden: [8]}, likelihood: categorical}
fusion: {hidden: [8]}
bridges: {hidden: [8]}
training: {batch_size: 64, checkpoint_seconds: 0, stages: {joint: {epochs: EPOCHS}, bridges: {epochs: EPOCHS}}}
"""
TRAIN = ("train", "spec.yaml", "--out", "run")
RESUME = ("resume", "run")
COMPARE = (
    "compare", "spec.yaml", "--models", "bridged,mvae", "--seeds", "1", "--out", "compared", "--metrics", "predictive", "--draws", "20",
    "--set", "training.stages.joint.epochs=4",
)  # fmt: skip
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nbridge")
MOST_SECONDS = 300
"""A command that runs longer has hung."""
METRICS, RESOLVED, CHECKPOINT = "metrics.jsonl", "spec.resolved.yaml", "checkpoints/last.safetensors"


class Process:
    """A command in a fork of this process, with its own process group; or, under torchrun, two in a new interpreter."""

    def __init__(self, folder: Path, words: Sequence[str], *, torchrun: bool = False) -> None:
        self.code: int | None = None
        self.started = time.monotonic()
        self.output = folder.parent / f"{folder.name}.output"
        if torchrun:
            with self.output.open("w") as stream:
                self._process = subprocess.Popen([*TORCHRUN, *words], cwd=folder, stdout=stream, stderr=stream, start_new_session=True)
            self.pid = self._process.pid
        else:
            self.pid = os.fork()
            if not self.pid:
                _become(folder, words, self.output)

    def ended(self) -> bool:
        """Whether it has ended; its exit code, or minus the number of the signal, is then `code`."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        if self.code is None and time.monotonic() > self.started + MOST_SECONDS:
            self.kill()
            raise TimeoutError(f"process {self.pid} has not ended within {MOST_SECONDS} seconds")
        return self.code is not None

    def kill(self) -> None:
        """Kills it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """The processes that it has started."""
        with suppress(OSError):
            return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        while not self.ended():
            time.sleep(0.005)
        assert self.code is not None
        return self.code


def _become(folder: Path, words: Sequence[str], output: Path) -> None:
    """Runs the command line of nbridge in this process, and ends it."""
    code = 1
    try:
        os.setpgid(0, 0)
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.chdir(folder)
        sys.argv = ["nbridge", *words]
        from nbridge.cli.main import main as command_line

        try:
            command_line()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(code)


@dataclass(frozen=True)
class Case:
    """What is killed.

    Arguments:
        what: Its name.
        share: Its share of the kills.
        words: The command.
        moment: Waits for a moment of the process, given its folder, the seconds that the undisturbed command takes, and random numbers.
        before: Commands whose results the folder has at first; "resume" begins in a killed run.
        torchrun: Whether two processes train under torchrun.
    """

    what: str
    share: float
    words: tuple[str, ...]
    moment: Callable[[Process, Path, float, random.Random], None]
    before: str = ""
    torchrun: bool = False


def at_any_time(process: Process, folder: Path, seconds: float, drawn: random.Random) -> None:  # noqa: ARG001
    """A moment that is uniform in the time that the command takes."""
    _until(process, lambda: False, drawn.uniform(0, seconds))


def after_lines(low: float, high: float) -> Callable[[Process, Path, float, random.Random], None]:
    """A moment soon after a round of training was written, drawn between two shares of all rounds."""

    def wait(process: Process, folder: Path, seconds: float, drawn: random.Random) -> None:
        number = drawn.randint(math.ceil(low * 2 * EPOCHS), math.floor(high * 2 * EPOCHS))
        _until(process, lambda: _lines(folder / "run" / METRICS) >= number)
        _until(process, lambda: False, drawn.uniform(0, seconds / (3 * EPOCHS)))

    return wait


def while_writing(process: Process, folder: Path, seconds: float, drawn: random.Random) -> None:
    """A moment at which a temporary file exists, after a random time."""
    _until(process, lambda: False, drawn.uniform(0, 0.9 * seconds))
    _until(process, lambda: any(_temporary(folder)), pause=0)


def after_training(process: Process, folder: Path, seconds: float, drawn: random.Random) -> None:
    """A moment between the last round and the end: fitting exponents, calibrating, and saving the model."""
    _until(process, lambda: _lines(folder / "run" / METRICS) >= 2 * EPOCHS)
    _until(process, lambda: False, drawn.uniform(0, 0.4 * seconds))


def one_of_two(process: Process, folder: Path, seconds: float, drawn: random.Random) -> None:
    """The moment of `after_lines`; kills one of two processes first, in half of the cases."""
    after_lines(0.05, 0.95)(process, folder, seconds, drawn)
    if drawn.random() < 0.5 and (children := process.children()):
        with suppress(ProcessLookupError):
            os.kill(drawn.choice(children), signal.SIGKILL)
        # torchrun then ends the other.
        process.wait()


def _until(process: Process, reached: Callable[[], bool], seconds: float = math.inf, pause: float = 0.0005) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not process.ended() and not reached():
        time.sleep(pause)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _temporary(folder: Path) -> Iterator[str]:
    """Temporary files and folders within a folder."""
    places = [folder, *(folder / name for name in ("run", "run/checkpoints", "run/model", "compared"))]
    for place in places:
        with suppress(OSError):
            yield from (entry.name for entry in os.scandir(place) if entry.name.endswith(".tmp"))


IMPUTE_CSV = ("impute", "run", "rows.csv", "--out", "completed.csv", "--intervals", "0.9")
IMPUTE_PARQUET = ("impute", "run", "rows.parquet", "--out", "completed.parquet", "--samples", "3")
CASES = (
    Case("train, stage joint", 0.16, TRAIN, after_lines(0.02, 0.48)),
    Case("train, stage bridges", 0.14, TRAIN, after_lines(0.5, 0.98)),
    Case("train, while a file is written", 0.18, TRAIN, while_writing),
    Case("train, after the last round", 0.08, TRAIN, after_training),
    Case("train, at any time", 0.08, TRAIN, at_any_time),
    Case("resume of a killed run", 0.12, RESUME, at_any_time, before="killed"),
    Case("impute, csv", 0.08, IMPUTE_CSV, at_any_time, before="run"),
    Case("impute, while a file is written", 0.06, IMPUTE_PARQUET, while_writing, before="run"),
    Case("compare", 0.10, COMPARE, at_any_time),
)
UNDER_TORCHRUN = Case("train, two processes", 0.0, TRAIN, one_of_two, torchrun=True)


@dataclass
class Whole:
    """The undisturbed command: its folder, and the seconds that it takes."""

    folder: Path
    seconds: float


@dataclass
class Found:
    """What came of a case: its kills, those whose moment a temporary file shows, and the differences to the undisturbed command."""

    kills: int = 0
    while_writing: int = 0
    differences: list[str] = field(default_factory=list)


class Kills:
    """The campaign, in a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.drawn = folder, random.Random(seed)
        self.wholes: dict[str, Whole] = {}
        self.number = 0
        _write_rows(folder)
        (folder / "spec.yaml").write_text(SPEC.replace("EPOCHS", str(EPOCHS)))

    def run(self, case: Case, kills: int) -> Found:
        """Kills a command so many times, each in a folder of its own."""
        found, tries = Found(), 0
        whole = self._whole(case)
        while found.kills < kills and tries < 5 * kills + 5:
            tries += 1
            self.number += 1
            folder = self._fresh(f"{self.number}", case)
            process = Process(folder, case.words, torchrun=case.torchrun)
            case.moment(process, folder, whole.seconds, self.drawn)
            ended = process.ended() and process.code == 0
            process.kill()
            process.wait()
            if not ended:
                found.kills += 1
                found.while_writing += any(_temporary(folder))
                found.differences += self._continued(case, folder, whole)
            shutil.rmtree(folder)
        return found

    def _continued(self, case: Case, folder: Path, whole: Whole) -> list[str]:
        """Runs what continues a killed command; the differences to the undisturbed one."""
        again = RESUME if case.words == TRAIN and (folder / "run" / RESOLVED).is_file() else case.words
        # A command that was killed after its file was whole is done: called again, it would refuse to replace the file.
        finished = again[0] == "impute" and (folder / again[again.index("--out") + 1]).is_file()
        process = None if finished else Process(folder, again, torchrun=case.torchrun)
        if process is not None and (code := process.wait()):
            return [f"{case.what}: {' '.join(again[:1])} ended with {code}: {process.output.read_text()[-300:]}"]
        return [f"{case.what}: {difference}" for difference in differences(folder, whole.folder)]

    def _fresh(self, name: str, case: Case) -> Path:
        """A folder with what the command needs."""
        folder = self.folder / name
        folder.mkdir()
        for file in ("rows.csv", "rows.parquet", "spec.yaml"):
            shutil.copy(self.folder / file, folder)
        if case.before == "run":
            shutil.copytree(self._whole(CASES[0]).folder / "run", folder / "run")
        elif case.before == "killed":
            process = Process(folder, TRAIN)
            after_lines(0.05, 0.9)(process, folder, self._whole(CASES[0]).seconds, self.drawn)
            process.kill()
            process.wait()
        return folder

    def _whole(self, case: Case) -> Whole:
        words = TRAIN if case.before == "killed" else case.words
        key = f"whole-{words[0]}-{words[-1].strip('-.=')}-{case.torchrun}"
        if key not in self.wholes:
            folder = self._fresh(key, Case(case.what, 0, words, case.moment, "run" if case.before == "run" else ""))
            process = Process(folder, words, torchrun=case.torchrun)
            if code := process.wait():
                raise RuntimeError(f"nbridge {' '.join(words)} ended with {code}: {process.output.read_text()}")
            self.wholes[key] = Whole(folder, time.monotonic() - process.started)
        return self.wholes[key]


def differences(folder: Path, whole: Path) -> list[str]:
    """The files of two folders that differ, and temporary files."""
    one, other = _contents(folder), _contents(whole)
    found = [f"{name} {'is left' if name in one else 'is missing'}" for name in sorted(one.keys() ^ other.keys())]
    return found + [f"{name} differs" for name in sorted(one.keys() & other.keys()) if one[name] != other[name]]


def _contents(folder: Path) -> dict[str, Any]:
    """All files of a folder, with what must be equal: bytes, or numbers without times."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"env.json", "comparison.md"}
    }


def _content(path: Path) -> Any:
    if path.name == METRICS:
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".html":
        return re.sub(r"\d+(\.\d+)? s\b", "", path.read_text())
    return _without_times(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if not re.search("seconds", name)}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _write_rows(folder: Path) -> None:
    """A table of 300 rows with gaps, as csv and as Parquet."""
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    drawn = random.Random(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "a1", "a2", "b1", "b2", "kind"])
        for row in range(300):
            z, kind = drawn.gauss(0, 1), row % 3
            numbers = [f"{mean + drawn.gauss(0, 0.3):.4f}" for mean in (z, -z, kind, z * kind)]
            writer.writerow([f"r{row}", *(["", ""] if row % 5 == 0 else numbers[:2]), *numbers[2:], "" if row % 7 == 3 else "xyz"[kind]])
    options = arrow_csv.ConvertOptions(strings_can_be_null=True)
    parquet.write_table(arrow_csv.read_csv(folder / "rows.csv", convert_options=options), folder / "rows.parquet")


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = ["| what is killed | kills | with a temporary file present | differences |", "|---|---|---|---|"]
    rows = [(what, each["kills"], each["while_writing"], len(each["differences"])) for what, each in results.items()]
    rows.append(("**all**", sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows)))
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def shared_out(kills: int, cases: Sequence[Case]) -> list[int]:
    """The kills of each case: whole numbers that add up, as near to the shares as they can be.

    Example:
        >>> shared_out(10, [Case("a", 0.5, (), at_any_time), Case("b", 0.25, (), at_any_time)])
        [7, 3]
    """
    total, given, numbers = sum(case.share for case in cases), 0.0, []
    for case in cases:
        before, given = given, given + case.share
        numbers.append(round(kills * given / total) - round(kills * before / total))
    return numbers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--torchrun", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    _import_everything()
    cases = [case for case in CASES if case.what.startswith(tuple(options.only))]
    plan = list(zip(cases, shared_out(options.kills - options.torchrun, cases), strict=True))
    plan += [(UNDER_TORCHRUN, options.torchrun)]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder), options.seed)
        for case, number in plan:
            if number:
                results[case.what] = vars(kills.run(case, number))
                print(f"{case.what}: {results[case.what]}", flush=True)
    options.out.write_text(json.dumps({"seed": options.seed, "cases": results}, indent=1) + "\n")
    print(table(results))
    if options.out == RESULTS:
        replace_section("kills", table(results))
    return int(any(each["differences"] for each in results.values()))


def _import_everything() -> None:
    """Imports what commands need, so that their forks begin at once."""
    import sklearn.linear_model
    import sklearn.mixture  # noqa: F401
    import torch._dynamo  # noqa: F401

    import nbridge.cli.main
    import nbridge.evaluation.suite
    import nbridge.evaluation.versus_baseline
    import nbridge.inference.complete
    import nbridge.runs.comparison
    import nbridge.runs.run  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
