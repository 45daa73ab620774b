r"""A map of the latent space: the first two principal components of the posterior means :math:`\mathbb{E}_{q(z \mid x)} [z]` of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from torch import Tensor

from nbridge.inference.impute import embed
from nbridge.report.axes import Axis
from nbridge.report.charts import Line, labelled_scatter
from nbridge.report.run_data import MANY, ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph
from nbridge.visual.modality_kinds import class_names, first_categorical
from nbridge.visual.palette import COLOURS, SHAPES
from nbridge.visual.pca import LatentPCA

FEWEST = 3
"""Minimum number of rows for a map."""


def section(data: RunData) -> Iterator[Element]:
    """The map, coloured by the first categorical modality."""
    loaded = data.model_and_rows
    rows = loaded.many.slice(0, MANY)
    if loaded.model.latent_dim < 2 or len(rows) < FEWEST:
        raise SectionSkipped(f"a map needs at least two latent dimensions and {FEWEST} rows")
    means = embed(loaded.model, rows, seed=loaded.seed).mean
    pca = LatentPCA.fit(means)
    points = pca.transform(means)
    label = first_categorical(loaded.model)
    classes = [] if label is None else class_names(data.spec, label)
    coloured = label is not None and len(classes) <= COLOURS * SHAPES
    clouds, names = _by_class(loaded, points, label, classes) if label is not None and coloured else ([Line(_pairs(points), "cloud")], [])
    by = f", coloured by {label}; each name is at the median of its rows" if coloured else ""
    yield paragraph(f"Posterior means of {len(rows):,} rows of the {loaded.split} split, given all their modalities{by}.", quiet=True)
    x, y = (
        Axis.fit(points[:, axis].tolist(), f"principal component {axis + 1} ({share:.0%} of the variance)")
        for axis, share in enumerate(pca.shares)
    )
    yield element("figure", labelled_scatter(f"Map of {len(rows)} rows in the latent space{by}", x, y, clouds, names), class_="map")
    if label is not None and not coloured:
        yield paragraph(f"{label} has {len(classes)} classes, too many to colour", quiet=True)


def _by_class(
    loaded: ModelAndRows, points: Tensor, label: str, classes: Sequence[str]
) -> tuple[list[Line], list[tuple[float, float, str]]]:
    """A cloud and a name for each class, and first a cloud of the rows without a class."""
    rows = loaded.many.slice(0, len(points))
    here, of = rows.present[label].cpu(), loaded.model.prepare(rows).values[label].cpu()
    clouds, names = [Line(_pairs(points[~here]), "other")] if not here.all() else [], []
    for number, name in enumerate(classes):
        if (own := here & (of == number)).any():
            clouds.append(Line(_pairs(points[own]), f"c{number % COLOURS} {('round', 'square')[number // COLOURS]}"))
            across, up = points[own].median(0).values.tolist()
            names.append((across, up, name))
    return clouds, names


def _pairs(points: Tensor) -> list[tuple[float, float]]:
    return [(across, up) for across, up in points.tolist()]
