"""Tables 3 and 5 of the paper: CelebA at 64 x 64 with 18 attributes.

    python -m benchmarks.paper.table3 [--scale cpu|paper] [--seeds 3] [--minutes 9]

trains five systems and the default model (and a VAE and a joint VAE for the likelihoods), measures log p(image) by importance sampling and
the accuracy of the attributes of images of people that training has not seen, and writes the tables of docs/benchmarks/paper.md and
benchmarks/results/table3_SCALE.json. The CPU scale reads the first 10,000 images ($NBRIDGE_DATA/celeba10k). At the paper's scale on one
GPU, in steps: ``--scale paper --minutes 9`` until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.paper.protocol import (
    MODELS,
    Protocol,
    Scale,
    cell,
    difference,
    figure,
    main,
    markdown,
    parameters,
    percent,
    reduction,
)
from nbridge.evaluation.results import Settings
from nbridge.runs.comparison_table import Comparison

PAPER = {
    "vae": ("-", "-53425"), "joint": ("-53283", "-"), "jmvae": ("-54333", "-54853"), "telbo": ("-53294", "-53602"),
    "mvae": ("-53018", "-53744"), "bridged": ("-52170", "-52370"),
}  # fmt: skip
PAPER_ACCURACY = {"bridged": "91.3 %", "jmvae": "90.5 %", "telbo": "88.1 %", "mvae": "86.1 %"}
BOTH, IMAGE = "log p(image) by q(z|image,attributes)", "log p(image) by q(z|image)"
ACCURACY = "attributes of attributes given image"


def settings(rows: int, density_rows: int | None, samples: int) -> Settings:
    return Settings(
        metrics=("likelihood", "attributes"),
        given=(("image",),),
        densities=(("image",),),
        rows=rows,
        density_rows=density_rows,
        samples=samples,
        draws=50,
    )


def table(comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    return {"paper-table3": likelihoods(comparisons["test"]), "paper-table5": attributes(comparisons["test"])}


def likelihoods(comparison: Comparison) -> str:
    heads = ["log p(image), nats", "q(z\\|image, attributes)", "q(z\\|image)", "gap", "paper", "paper, q(z\\|image)"]
    rows = []
    for model in MODELS:
        both, image = (figure(comparison, model, question, "log-likelihood") for question in (BOTH, IMAGE))
        alone = model == "vae"
        rows.append(
            [
                model,
                cell(None if alone else both),
                cell(image),
                cell(None if alone else difference(both, image)),
                *PAPER.get(model, ("-", "-")),
            ]
        )
    return markdown(heads, rows)


def attributes(comparison: Comparison) -> str:
    heads = ["attributes of held-out people, given the image", "accuracy", "paper", "parameters"]
    rows = [
        [model, percent(figure(comparison, model, ACCURACY, "accuracy")), PAPER_ACCURACY.get(model, "-"), parameters(comparison, model)]
        for model in MODELS
        if model != "vae"
    ]
    majority = percent(figure(comparison, "bridged", ACCURACY, "majority rate"))
    return f"{markdown([*heads], [*rows, ['majority class', majority, '-', '-']])}\n\n{reduction(comparison)}"


PROTOCOL = Protocol(
    "table3",
    MODELS,
    {
        "cpu": Scale("celeba_paper_cpu.yaml", {"test": settings(2000, 100, 100)}),
        "paper": Scale("celeba_paper.yaml", {"test": settings(2000, None, 5000)}),
    },
    table,
)

if __name__ == "__main__":
    main(PROTOCOL, __doc__)
