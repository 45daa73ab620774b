"""The latent map: posterior means of rows, projected on their first two principal components, with classes if there are any."""

from __future__ import annotations

from typing import Any

from nbridge.errors import DataError
from nbridge.explore.figures import figures
from nbridge.explore.session import Session
from nbridge.visual.modality_kinds import class_names, first_categorical
from nbridge.visual.palette import COLOURS, SHAPES
from nbridge.visual.pca import LatentPCA


def latent_map(session: Session) -> dict[str, Any]:
    """The map: points, shape (B, 2), and their classes, -1 where absent.

    Raises:
        DataError: when there is no map.
    """
    pca = pca_of(session)
    rows = session.many
    assert rows is not None, "a plane is fitted to rows"
    found: dict[str, Any] = {"points": figures(pca.transform(session.codes)), "shares": list(pca.shares), "split": session.split}
    if (label := first_categorical(session.model)) is None:
        return found
    names = class_names(session.spec, label)
    if len(names) > COLOURS * SHAPES or label not in rows.names:
        return found
    classes = session.model.prepare(rows).values[label].masked_fill(~rows.present[label], -1)
    return {**found, "label": label, "names": names, "classes": classes.tolist(), "colours": COLOURS}


def pca_of(session: Session) -> LatentPCA:
    """The plane of the map.

    Raises:
        DataError: when there is no map.
    """
    if session.pca is None:
        raise DataError(session.map_unavailable)
    return session.pca
