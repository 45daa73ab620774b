"""Table 4 of the paper: Fashion-MNIST, MNIST and the tag that pairs them, with the parameters of every system.

    python -m benchmarks.paper.table4 [--scale cpu|paper] [--seeds 3] [--minutes 9]

trains four systems and the default model, measures log p of each image by importance sampling from q(z|all) and from its own q(z|image),
the tag's accuracy from one image and from both, and whether two absent modalities agree; writes the table of docs/benchmarks/paper.md and
benchmarks/results/table4_SCALE.json. At the paper's scale on one GPU, in steps: ``--scale paper --minutes 9`` until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.paper.protocol import AS_DEFAULT, DEFAULT, Protocol, Scale, cell, figure, main, markdown, parameters, percent, reduction
from nbridge.evaluation.results import Settings
from nbridge.runs.comparison_table import Comparison

MODELS = {name: (f"model={name}",) for name in ("jmvae", "telbo", "mvae", "bridged")} | {DEFAULT: AS_DEFAULT}
PAPER = {
    "jmvae": ("-253.71 / -249.74", "-107.17 / -105.83", "226,958,346"),
    "telbo": ("-256.23 / -263.48", "-107.17 / -106.26", "226,958,346"),
    "mvae": ("-537.71 / -531.31", "-527.23 / -517.49", "61,550,346"),
    "bridged": ("-257.28 / -249.35", "-105.74 / -102.57", "72,141,450"),
    DEFAULT: ("-", "-", "-"),
}
ALL = "fashion,mnist,label"
IMAGES = ("fashion", "mnist")


def settings(rows: int, samples: int) -> Settings:
    return Settings(
        metrics=("likelihood", "predictive", "coherence", "agreement"),
        given=(("fashion",), ("mnist",), ("fashion", "mnist"), ("label",)),
        densities=(("fashion",), ("mnist",)),
        rows=rows,
        samples=samples,
        draws=50,
    )


def table(comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    return {"paper-table4": likelihoods(comparisons["test"]), "paper-table4-generation": generation(comparisons["test"])}


def likelihoods(comparison: Comparison) -> str:
    heads = ["nats", *(head for image in IMAGES for head in (f"{image}, q(z\\|all)", f"q(z\\|{image})")), "paper, fashion", "paper, mnist"]
    rows = []
    for model in MODELS:
        found = [
            cell(figure(comparison, model, f"log p({image}) by q(z|{given})", "log-likelihood"))
            for image in IMAGES
            for given in (ALL, image)
        ]
        rows.append([model, *found, *PAPER[model][:2]])
    return markdown(heads, rows)


def generation(comparison: Comparison) -> str:
    heads = [
        "test", "tag from fashion", "from mnist", "from both", "fashion from mnist: coherence", "mnist from fashion",
        "mnist and tag agree, given fashion", "parameters", "paper",
    ]  # fmt: skip
    rows = []
    for model in MODELS:
        tags = [
            percent(figure(comparison, model, f"predictive of label given {given}", "accuracy")) for given in (*IMAGES, "fashion,mnist")
        ]
        images = [
            percent(figure(comparison, model, f"coherence of {target} given {given}", "coherence"))
            for target, given in (IMAGES, IMAGES[::-1])
        ]
        agree = percent(figure(comparison, model, "agreement of mnist,label given fashion", "agreement"))
        rows.append([model, *tags, *images, agree, parameters(comparison, model), PAPER[model][2]])
    return f"{markdown(heads, rows)}\n\n{reduction(comparison)}"


PROTOCOL = Protocol(
    "table4",
    MODELS,
    {
        "cpu": Scale("mnist_fashion_paper_cpu.yaml", {"test": settings(500, 1000)}),
        "paper": Scale("mnist_fashion_paper.yaml", {"test": settings(1000, 5000)}),
    },
    table,
)

if __name__ == "__main__":
    main(PROTOCOL, __doc__)
