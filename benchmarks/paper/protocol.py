"""Shared code of the commands in this folder: a protocol at two scales, its comparison, and the tables in docs/benchmarks/paper.md.

``--scale cpu`` is a smaller network trained for fewer epochs; ``--scale paper`` has the paper's settings and wants one GPU. Either can be
split into steps with ``--minutes 9``: run the same command again to continue; it prints the table once it is complete.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.readme import replace_section
from nbridge.evaluation.results import Settings
from nbridge.runs.comparison import compare
from nbridge.runs.comparison_table import Comparison, SeedValues
from nbridge.spec.reader import read_spec
from nbridge.training.progress import ConsoleProgress

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SPECS = ROOT / "modality_specs"
DEFAULT = "bridged, default"
"""The name of the default model among the systems: what a spec gives that names only modalities, on the networks of the paper's specs."""
AS_DEFAULT = ("model=bridged", "bridges.objective={distill: 1, cross: 1}")
"""The overrides that make it: without ``objective: paper``, bridges have encoders of their own, and weights and exponents are fitted."""
MODELS = {name: (f"model={name}",) for name in ("vae", "joint", "jmvae", "telbo", "mvae", "bivcca", "bridged")} | {DEFAULT: AS_DEFAULT}
"""The systems of tables 1 and 3, with the changes to the spec that make them."""


@dataclass(frozen=True)
class Scale:
    """One scale of a protocol.

    Arguments:
        spec: The file of its spec.
        evaluations: What is measured, by the name of the split.
    """

    spec: str
    evaluations: Mapping[str, Settings]


@dataclass(frozen=True)
class Protocol:
    """A table of the paper.

    Arguments:
        name: Of the results and of the sections of docs/benchmarks/paper.md.
        models: The systems: the overrides of the spec that make each.
        scales: By name, ``cpu`` and ``paper``.
        tables: The tables in Markdown, by section of docs/benchmarks/paper.md, of the comparisons by split.
    """

    name: str
    models: Mapping[str, Sequence[str]]
    scales: Mapping[str, Scale]
    tables: Callable[[Mapping[str, Comparison]], Mapping[str, str]]


def main(protocol: Protocol, description: str | None) -> None:
    """Runs a protocol as a command."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=sorted(protocol.scales), default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "paper", help="folder of the runs")
    parser.add_argument("--minutes", type=float, help="stop after this many minutes; run the same command to continue")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change the spec; then nothing is written")
    options = parser.parse_args()
    scale = protocol.scales[options.scale]
    folder = options.out / f"{protocol.name}-{options.scale}"
    comparisons = {
        split: compared(protocol, scale, settings, folder, options.seeds, options.set, options.minutes)
        for split, settings in scale.evaluations.items()
    }
    text = dict(protocol.tables(comparisons))
    first = next(iter(text))
    text[first] += f"\n{footnote(scale, comparisons)}"
    print("\n\n".join(text.values()))
    if options.set:
        return
    result = {"scale": options.scale, "spec": scale.spec, **{split: one.as_dict() for split, one in comparisons.items()}}
    (RESULTS / f"{protocol.name}_{options.scale}.json").write_text(json.dumps(result, indent=1) + "\n")
    if options.scale == "cpu":
        for section, table in text.items():
            replace_section(section, table)


def compared(
    protocol: Protocol, scale: Scale, settings: Settings, folder: Path, seeds: int, overrides: Sequence[str], minutes: float | None
) -> Comparison:
    """Trains and evaluates the missing runs."""
    console = Console(markup=False, emoji=False, highlight=False)
    progress = ConsoleProgress(console)
    try:
        return compare(
            SPECS / scale.spec,
            protocol.models,
            folder,
            seeds=seeds,
            settings=settings,
            overrides=overrides,
            minutes=minutes,
            announce=console.print,
            callbacks=[progress],
        )
    finally:
        progress.close()


def footnote(scale: Scale, comparisons: Mapping[str, Comparison]) -> str:
    """One-line description of the protocol: networks, epochs, seeds, rows and K."""
    spec = read_spec(SPECS / scale.spec)
    sizes = "; ".join(f"{name} {_network(modality)}" for name, modality in spec.modalities.items())
    epochs = ", ".join(f"{name} {stage.epochs}" for name, stage in spec.training.stages.items())
    first = next(iter(comparisons.values()))
    measured = "; ".join(f"{split}: {_measured(one)}" for split, one in comparisons.items())
    return (
        f"\n`{scale.spec}`: {sizes}; latent {spec.latent_dim}, batch {spec.training.batch_size}, Adam {spec.training.learning_rate:g} "
        f"({spec.training.schedule}); epochs: {epochs}. Mean ± standard deviation over {first.seeds} seeds. {measured}."
    )


def _measured(comparison: Comparison) -> str:
    few = comparison.settings.density_rows
    densities = "" if few is None else f" ({few:,} of them for log-likelihoods)"
    return f"{comparison.rows:,} rows{densities}, K = {comparison.settings.samples:,}"


def _network(modality: Any) -> str:
    encoder, decoder = (
        [*component.kwargs.get("hidden", component.kwargs.get("channels", ()))] for component in (modality.encoder, modality.decoder)
    )
    return f"{modality.encoder.type} {encoder}" + (f", decoder {decoder}" if decoder else "")


def figure(comparison: Comparison, model: str, measurement: str, name: str) -> SeedValues | None:
    """A model's score over seeds; None if it has none."""
    contestant = next(one for one in comparison.results if one.name == model)
    return contestant.figures.get((measurement, name))


def difference(one: SeedValues | None, other: SeedValues | None) -> SeedValues | None:
    """The difference of two scores, per seed."""
    if one is None or other is None:
        return None
    return SeedValues(tuple(a - b for a, b in zip(one.values, other.values, strict=True)))


def cell(spread: SeedValues | None) -> str:
    """A score as table cell."""
    return "-" if spread is None else str(spread)


def percent(spread: SeedValues | None) -> str:
    """A share as table cell."""
    return (
        "-"
        if spread is None
        else f"{100 * spread.mean:.1f} %" + (f" ± {100 * spread.deviation:.1f}" if spread.deviation is not None else "")
    )


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def parameters(comparison: Comparison, model: str) -> str:
    """The size of a model."""
    return f"{next(one.parameters for one in comparison.results if one.name == model):,}"


def reduction(comparison: Comparison) -> str:
    """The share of the retrofits' parameters that bridges save."""
    sizes = {one.name: one.parameters for one in comparison.results}
    return f"Bridged has {1 - sizes['bridged'] / sizes['jmvae']:.1%} fewer parameters than JMVAE and TELBO."
