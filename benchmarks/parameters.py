"""Parameters of every bundled spec, for bridged, the retrofits and MVAE.

python benchmarks/parameters.py

writes the table in docs/benchmarks/results.md.
"""

from __future__ import annotations

from pathlib import Path

from readme import replace_section

from nbridge.evaluation.parameter_counts import count_parameters
from nbridge.spec.reader import read_spec

SPECS = Path(__file__).resolve().parent.parent / "modality_specs"


def main() -> None:
    lines = ["| spec | modalities | bridged | retrofit (JMVAE, TELBO) | MVAE | bridged against retrofit |", "|---|---|---|---|---|---|"]
    for path in sorted(SPECS.glob("*.yaml"), key=lambda path: (len(read_spec(path).modalities), path.stem)):
        spec = read_spec(path)
        table = count_parameters(spec)
        counts = " | ".join(f"{model.formula:,}" for model in table.models)
        lines.append(f"| `{path.name}` | {len(spec.modalities)} | {counts} | {-table.reduction:+.1%} |")
    replace_section("params", "\n".join(lines))


if __name__ == "__main__":
    main()
