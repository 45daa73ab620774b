"""The section on texts: true ones beside those imputed from all other modalities."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import torch

from nbridge.common.messages import clip
from nbridge.evaluation.crossmodal import predict
from nbridge.inference.impute import impute
from nbridge.nn.text_likelihood import Text
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, table

EXAMPLES, CHARACTERS = 8, 120
"""Number of texts shown, and of characters of each."""
DRAWS = 32
"""Draws of each row behind the figures."""


def section(data: RunData) -> Iterator[Element]:
    """Accuracies of each modality of texts, and examples."""
    loaded = data.model_and_rows
    names = [name for name, likelihood in loaded.model.likelihoods.items() if isinstance(likelihood, Text)]
    found = [(name, *some) for name in names if (some := _compared(loaded, name)) is not None]
    if not found:
        raise SectionSkipped("no modality of texts with other modalities to impute it from")
    yield paragraph(
        f"Each modality from all others, on rows of the {loaded.split} split. Exact texts are the same but for blanks around them.",
        quiet=True,
    )
    yield table("Imputed texts", ("modality", "rows", "exact texts", "right tokens"), [figures for _, figures, _ in found])
    for name, _, rows in found:
        yield element("h3", name)
        yield table("True and imputed", ("true", "imputed"), rows, words=2)


def _compared(loaded: ModelAndRows, name: str) -> tuple[tuple[str, ...], list[tuple[str, str]]] | None:
    """The figures of a modality, and true and imputed texts; None if no row has it and all others."""
    model, batch = loaded.model, loaded.few
    if len(batch.names) < 2 or not (rows := torch.stack([batch.present[other] for other in batch.names]).all(0)).any():
        return None
    likelihood, others = model.likelihoods[name], tuple(other for other in model.names if other != name)
    assert isinstance(likelihood, Text)
    done = predict(model, batch, others, name, samples=DRAWS, seed=loaded.seed)
    few = batch.index(rows.nonzero()[:EXAMPLES, 0])
    guess = impute(model, few.hide(name), seed=loaded.seed).values[name]

    def shown(x: torch.Tensor) -> list[str]:
        return [clip(likelihood.vocabulary.text(row), CHARACTERS) for row in likelihood.canonical(x).tolist()]

    figures = (name, f"{done.rows:,}", f"{done.accuracy or 0:.3f}", f"{done.token_accuracy or 0:.3f}")
    return figures, list(zip(shown(few.values[name]), shown(guess), strict=True))
