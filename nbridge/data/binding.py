"""How names in files and data frames are bound to the modalities of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbridge.data.omics.layout import OmicsLayout
from nbridge.data.tables.layout import TableLayout


@dataclass(frozen=True)
class Binding:
    """Binds arrays, columns or slots to modalities.

    Arguments:
        keys: The array of each modality in npz files, folders of npy files and Parquet files of lists, where it differs from its name.
        id: The array or column of identifiers.
        table: The columns of each modality, for a model trained on tables, data frames or image files.
        omics: The slots of each modality, for a model trained on MuData or AnnData.
        class_names: The ordered classes of modalities whose arrays hold text.
        images: The options of the data source ``images``, for a model trained on image files.
        paths: The tables that the model was trained on.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    id: str = "id"
    table: TableLayout | None = None
    omics: OmicsLayout | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: Mapping[str, Any] | None = None
    paths: tuple[str, ...] = ()
