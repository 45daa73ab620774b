"""Mixed tables with holes: nbridge compared with imputers of single cells and of whole modalities.

    python -m benchmarks.tables [--seeds 3] [--tables pbc,wine] [--methods knn,nbridge] [--missing mcar,mar,mnar,modalities,both]
        [--set KEY=VALUE ...] [--environments FOLDER] [--limit 500]
    python -m benchmarks.tables --speed

The first command writes benchmarks/results/tables.json and a section of benchmarks/README.md; runs that the file holds already are not
repeated, so that it continues where it was stopped: delete their lines to measure them again. Of each table, 80 % of the rows, drawn by the
seed, are learnt from, and cells of the others are filled in; both have holes of the same kind, and those that the files came with
(`benchmarks.tables.masks`). Methods: `benchmarks.tables.rivals`, `benchmarks.tables.environments` and `benchmarks.tables.ours`; scores:
`benchmarks.tables.scores`. With ``--set``, only nbridge's drafted and bundled specs are run, with these changes, as methods by themselves.
``--tiny`` reads the first 60 rows of each table and writes no section. With ``--speed``, a made table of 10,000 rows and 60 columns is
learnt and filled in, once, and the times are printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.readme import replace_section
from benchmarks.tables import speed
from benchmarks.tables.data import TABLES, Table, load
from benchmarks.tables.environments import FOREIGN, Environments, UnavailableError, default_folder
from benchmarks.tables.masks import MECHANISMS, Task, task_of
from benchmarks.tables.ours import OURS
from benchmarks.tables.report import METHODS, Figures, key_of, section
from benchmarks.tables.rivals import RIVALS
from benchmarks.tables.scores import Answer, scores

RESULT = Path(__file__).resolve().parent.parent / "results" / "tables.json"
TINY = 60


@dataclass(frozen=True)
class Runner:
    """Runs a method by its name."""

    environments: Environments
    changes: tuple[str, ...] = ()

    def answer(self, method: str, task: Task, seed: int) -> Answer:
        """The answer of a method, timed.

        Raises:
            UnavailableError: if the method cannot answer here.
        """
        if method in FOREIGN:
            return self.environments.run(method, task, seed)
        started = time.perf_counter()
        found = RIVALS[method](task, seed) if method in RIVALS else OURS[method](task, seed, self.changes)
        return replace(found, seconds=time.perf_counter() - started)

    def title(self, method: str) -> str:
        """The name that the figures are kept by."""
        return " ".join([method, *self.changes])


def measure(runner: Runner, table: Table, mechanism: str, method: str, seed: int) -> dict[str, Any]:
    """The figures of a run, or why there are none."""
    task = task_of(table, mechanism, seed)
    try:
        return scores(task, runner.answer(method, task, seed))
    except UnavailableError as reason:
        return {"failed": str(reason)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    if options.speed:
        found = speed.measure(*((200, 10) if options.tiny else ()))
        print(", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        return 0
    runner = Runner(Environments(options.environments, options.limit), tuple(options.set))
    results: dict[str, Any] = json.loads(options.result.read_text()) if options.result.exists() else {}
    for mechanism in options.missing:
        for name in options.tables:
            table = load(name)
            table = replace(table, values=table.values[:: len(table.values) // TINY][:TINY]) if options.tiny else table
            for seed in range(options.seeds):
                for method in options.methods:
                    key = key_of(name, mechanism, runner.title(method), seed)
                    if key not in results:
                        found = measure(runner, table, mechanism, method, seed)
                        print(key, {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
                        _keep(options.result, results, key, found)
    text = section(Figures(results, options.seeds))
    print(text)
    if options.result == RESULT:
        replace_section("tables", text)
    return 0


def _keep(path: Path, results: dict[str, Any], key: str, found: dict[str, Any]) -> None:
    """Adds figures to the file; a method that is not installed may be by the next time."""
    if not str(found.get("failed", "")).startswith("no "):
        results[key] = found
        path.write_text("{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(run)}" for name, run in results.items()) + "\n}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", type=_names(TABLES), default=TABLES)
    parser.add_argument("--methods", type=_names(METHODS), help="all by default")
    parser.add_argument("--missing", type=_names(MECHANISMS), default=MECHANISMS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the spec, as methods by themselves")
    parser.add_argument("--environments", type=Path, default=default_folder(), help="folder of the rivals' environments")
    parser.add_argument("--limit", type=float, default=500, help="seconds that a run in another environment may take")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--speed", action="store_true", help="time nbridge on a made table instead")
    parser.add_argument("--tiny", action="store_true", help="few rows, to show that all of it runs")
    options = parser.parse_args(arguments)
    options.methods = options.methods or (("nbridge", "spec") if options.set else tuple(METHODS))
    if options.tiny and options.result == RESULT and not options.speed:
        parser.error("--tiny needs --result, to keep its figures apart")
    return options


def _names(known: Sequence[str] | dict[str, str]) -> Any:
    """A parser of names with commas between them."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
