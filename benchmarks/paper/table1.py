"""Tables 1 and 2 of the paper: log p(image) of MNIST by importance sampling from q(z|image, label) and from q(z|image), test and train.

    python -m benchmarks.paper.table1 [--scale cpu|paper] [--seeds 3] [--minutes 9]

trains seven systems and the default model on all 60,000 training rows (5 % of them held out to choose weights by), measures them, and
writes the tables of docs/benchmarks/paper.md and benchmarks/results/table1_SCALE.json. At the paper's scale on one GPU, in steps: ``--scale
paper --minutes 9`` until it is done.
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
from nbridge.evaluation.results import Settings, Split
from nbridge.runs.comparison_table import Comparison

PAPER = {
    "test": {
        "vae": ("-", "-100.89"), "joint": ("-98.93", "-"), "jmvae": ("-102.16", "-103.45"), "telbo": ("-98.40", "-99.64"),
        "mvae": ("-96.82", "-100.52"), "bridged": ("-98.55", "-98.76"),
    },
    "train": {"bridged": ("-98.59", "-98.77")},
}  # fmt: skip
BOTH, IMAGE = "log p(image) by q(z|image,label)", "log p(image) by q(z|image)"


def settings(split: Split, samples: int) -> Settings:
    metrics = ("likelihood", "predictive", "coherence", "diversity") if split == "test" else ("likelihood",)
    return Settings(metrics=metrics, densities=(("image",),), split=split, rows=1000, samples=samples)


def table(comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    sections = {"paper-table1": likelihoods(comparisons["test"], "test"), "paper-diversity": generation(comparisons["test"])}
    return sections | {"paper-table2": likelihoods(comparisons["train"], "train")}


def likelihoods(comparison: Comparison, split: str) -> str:
    heads = [
        f"{split}, log p(image), nats",
        "q(z\\|image, label)",
        "q(z\\|image)",
        "gap",
        "paper",
        "paper, q(z\\|image)",
        "parameters",
    ]
    rows = []
    for model in MODELS:
        both, image = (figure(comparison, model, question, "log-likelihood") for question in (BOTH, IMAGE))
        gap = None if model == "vae" else difference(both, image)
        shown = None if model == "vae" else both
        rows.append([model, cell(shown), cell(image), cell(gap), *PAPER[split].get(model, ("-", "-")), parameters(comparison, model)])
    return f"{markdown(heads, rows)}\n\n{reduction(comparison)}"


def generation(comparison: Comparison) -> str:
    heads = [
        "test",
        "label from image",
        "image from label: coherence",
        "predictive log-likelihood",
        "variance ratio",
        "Fréchet distance (floor)",
    ]
    rows = []
    for model in MODELS:
        if model == "vae":
            continue
        distance, floor = (figure(comparison, model, "diversity of image given label", name) for name in ("Fréchet distance", "its floor"))
        rows.append([
            model,
            percent(figure(comparison, model, "predictive of label given image", "accuracy")),
            percent(figure(comparison, model, "coherence of image given label", "coherence")),
            cell(figure(comparison, model, "predictive of image given label", "log-likelihood")),
            cell(figure(comparison, model, "diversity of image given label", "variance ratio")),
            f"{cell(distance)} ({cell(floor)})",
        ])  # fmt: skip
    judge = figure(comparison, "bridged", "coherence of image given label", "classifier's accuracy")
    return f"{markdown(heads, rows)}\n\nThe classifier that judges coherence is right on {percent(judge)} of the real test images."


PROTOCOL = Protocol(
    "table1",
    MODELS,
    {
        "cpu": Scale("mnist_paper_cpu.yaml", {"test": settings("test", 5000), "train": settings("train", 1000)}),
        "paper": Scale("mnist_paper.yaml", {"test": settings("test", 5000), "train": settings("train", 5000)}),
    },
    table,
)

if __name__ == "__main__":
    main(PROTOCOL, __doc__)
