"""The model card of a pushed model: the hub's metadata, and what a run measured: its verdict and the hash of its training rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nbridge.errors import RunError
from nbridge.evaluation.verdict import Verdict, digits, read_verdict
from nbridge.training.checkpoint import CARD
from nbridge.training.run_folder import ENVIRONMENT, VERDICT, read_environment

HEADER = "---\nlibrary_name: nbridge\n---\n\n"
TAGS = ("multimodal", "vae", "missing-data", "imputation")
BEGIN, END = "<!-- nbridge: measured -->", "<!-- nbridge: end -->"
"""What is between these lines is renewed by every push of a run; all else in a card is kept."""
NAMES = {"rmse": "RMSE in standard deviations", "accuracy": "accuracy"}


def hub_card(folder: Path, license_: str | None) -> bytes:
    """The card of a model folder for the hub, with the verdict of the run that it is in.

    Arguments:
        folder: The model folder.
        license_: The licence, or None to keep that of the card.

    Raises:
        ValueError: when the card has invalid metadata.
    """
    from huggingface_hub import ModelCard, ModelCardData

    text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else "# nbridge model\n"
    verdict, rows = read_verdict(folder.parent / VERDICT), _fingerprint(folder.parent)
    if verdict is not None or rows:
        text = _renewed(text, _section(verdict, rows))
    card = ModelCard(text if text.startswith("---\n") else HEADER + text)
    data = card.data
    assert isinstance(data, ModelCardData), "a ModelCard's data"
    data.library_name = "nbridge"
    data.tags = list(dict.fromkeys((*(data.tags or ()), *TAGS)))
    data.license = license_ or data.license
    if verdict is not None and (results := _results(verdict, rows)):
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        data.model_name, data.eval_results = title[1] if title else "nbridge model", results
    return str(card).encode()


def _fingerprint(run: Path) -> str:
    """The hash of the training rows of a run; empty where there is no run."""
    if not (run / ENVIRONMENT).is_file():
        return ""
    try:
        return read_environment(run)["fingerprint"]
    except RunError:
        return ""


def _section(verdict: Verdict | None, rows: str) -> str:
    lines = []
    if verdict is not None:
        lines += [
            "## Verdict",
            "",
            f"{verdict.headline}.",
            "",
            "| modality | figure | model | baseline | rows | outcome |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {one.title} | {NAMES[one.figure]} | {digits(one.model)} | {digits(one.baseline)} | {one.rows} | {one.description} |"
            for one in verdict.modalities
        ]
        lines += ["", verdict.note]
    if rows:
        lines += ["", f"SHA-256 of the training and validation rows, as read: `{rows}`"]
    return "\n".join(lines).strip()


def _renewed(text: str, section: str) -> str:
    body = f"{BEGIN}\n\n{section}\n\n{END}"
    if BEGIN in text and END in text:
        before, _, rest = text.partition(BEGIN)
        return before + body + rest.partition(END)[2]
    return f"{text.rstrip()}\n\n{body}\n"


def _results(verdict: Verdict, rows: str) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="tabular-regression" if one.figure == "rmse" else "tabular-classification", task_name="imputation",
            dataset_type="own-rows", dataset_name=f"{verdict.split} rows" + (f" (training rows {rows[:12]})" if rows else ""),
            metric_type=one.figure, metric_name=f"{NAMES[one.figure]} of {one.title}", metric_value=round(one.model, 6),
        )
        for one in verdict.modalities
        if one.outcome != "not tested"
    ]  # fmt: skip
