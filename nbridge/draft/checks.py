"""Checks a spec against its data before training: reports all errors at once, and likely mistakes as warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from nbridge.common.warnings import Finding
from nbridge.data.group_split import of_items
from nbridge.data.split import Dataset
from nbridge.errors import DataError, SpecError
from nbridge.models.base import MultimodalVAE
from nbridge.models.support import SupportError, check_support, support_errors
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model, source_of
from nbridge.training.trainer import check_stages


@dataclass(frozen=True)
class Checked:
    """The result of the checks: errors that prevent training and likely mistakes, one line each.

    Observed masks, (N,), are by modality; there are none if rows could not be read.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    rows: int = 0
    present: Mapping[str, np.ndarray] = field(default_factory=dict)


def check_data(spec: Spec) -> Checked:
    """Checks shapes, supports, identifiers and splits of the data of a spec, and looks for likely mistakes."""
    shapes = {name: modality.shape for name, modality in spec.modalities.items()}
    try:
        source = source_of(spec)
        if errors := source.mistakes(shapes):
            return Checked(errors)
        dataset = source.load(shapes)
    except (DataError, SpecError) as error:
        return Checked(tuple(str(error).splitlines()))
    model = build_model(spec)
    model.choose_widths(dataset.batch.representative())
    errors = tuple(_unsupported(model, dataset))
    findings: list[Finding] = []
    if not errors:
        try:
            splits = build_data(spec, model, warn=findings.append)
            check_stages(model, splits.train.through(model.prepare), spec.training)
            findings += of_items(splits) if spec.data.group is None and dataset.groups is None else ()
        except DataError as error:
            errors = (str(error),)
    present = {name: mask.numpy() for name, mask in dataset.batch.present.items()}
    return Checked(errors, tuple(finding.text for finding in findings), len(dataset.batch), present)


def _unsupported(model: MultimodalVAE, dataset: Dataset) -> Iterator[str]:
    """Values outside the support of their likelihood, one line per modality, or per column of a mixed one."""
    origin = f"{dataset.origin}: " if dataset.origin else ""
    batch = dataset.batch.representative()
    for name, likelihood in model.likelihoods.items():
        try:
            check_support({name: likelihood}, batch.select(name))
        except SupportError:
            for error in support_errors(name, likelihood, batch):
                yield str(error.at(dataset.place)) if dataset.place is not None else f"{origin}{error}"
        except DataError as error:
            yield f"{origin}{error}"
