"""A batch: rows of named modalities with a boolean presence mask each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    r"""Values and presence masks of B rows, by modality name.

    Presence is explicit and never inferred from values: where a modality is absent, its values are arbitrary (zeros, noise, NaN) and do
    not affect any output. A modality that the batch does not list is absent from every row.

    Arguments:
        values: Tensors by modality, :math:`(B, *shape_i)`. Classes are indices, :math:`(B,)`, or one-hot, :math:`(B, C)`.
        present: Boolean masks by modality, :math:`(B,)`, one for each entry of ``values``.
        cells: Boolean masks of single cells, :math:`(B, *shape_i)`, only for modalities with partially observed rows; a cell is
            observed when its row is present and its mask is true.
        covariates: Values that every row has beside its modalities, :math:`(B,)`, by name: class indices, or numbers.

    Raises:
        ValueError: when names or row counts disagree.

    Example:
        >>> batch = Batch.complete({"image": torch.rand(3, 8), "label": torch.tensor([0, 2, 1])})
        >>> batch.hide("label").present["label"]
        tensor([False, False, False])
    """

    values: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    cells: Mapping[str, Tensor] = field(default_factory=dict)
    covariates: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.keys() != self.present.keys():
            raise ValueError(f"values are of {sorted(self.values)}, presence is of {sorted(self.present)}: name the same modalities")
        if not self.cells.keys() <= self.values.keys():
            raise ValueError(f"cells are of {sorted(self.cells)}, values are of {sorted(self.values)}")
        if not self.values:
            raise ValueError("a batch needs at least one modality")
        rows = {name: len(value) for name, value in self.values.items()}
        rows |= {f"presence of {name}": len(mask) for name, mask in self.present.items()}
        rows |= {f"covariate {name}": len(x) for name, x in self.covariates.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(f"modalities differ in their number of rows: {rows}")
        for name, mask in self.present.items():
            if mask.dtype != torch.bool or mask.ndim != 1:
                raise ValueError(f"presence of {name} is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape (B,)")
        for name, mask in self.cells.items():
            if mask.dtype != torch.bool or mask.shape != self.values[name].shape:
                raise ValueError(
                    f"cells of {name} are {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape "
                    f"{tuple(self.values[name].shape)}"
                )

    @classmethod
    def complete(cls, values: Mapping[str, Tensor]) -> Batch:
        """Rows in which every modality is present."""
        return cls(values, {name: torch.ones(len(x), dtype=torch.bool, device=x.device) for name, x in values.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of this batch."""
        return tuple(self.values)

    @property
    def device(self) -> torch.device:
        """The device of the values."""
        return next(iter(self.values.values())).device

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def whole(self) -> bool:
        """Whether nothing is known to be absent.

        Computed once per batch; batches indexed from it inherit the answer, so that training steps need not check again and synchronise
        with the device. Complete rows selected from an incomplete batch therefore count as not known to be complete.
        """
        if "_whole" not in vars(self):
            vars(self)["_whole"] = all(bool(mask.all()) for mask in (*self.present.values(), *self.cells.values()))
        return vars(self)["_whole"]

    def index(self, rows: Tensor) -> Batch:
        """The rows selected by an index or a boolean mask."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        # Several times faster than bracket indexing, which supports any number of axes.
        return self._map(lambda tensor: tensor.index_select(0, rows))

    def slice(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop`` (exclusive), as views."""
        return self._map(lambda tensor: tensor[start:stop])

    def subset(self, rows: Tensor) -> Batch:
        """The rows selected by an index or a boolean mask."""
        return self.index(rows)

    def sample(self, most: int | None = None) -> Batch:
        """At most the first ``most`` rows; all by default."""
        return self if most is None else self.slice(0, most)

    def representative(self) -> Batch:
        """The rows that statistics are computed from: all."""
        return self

    def presence(self) -> Batch:
        """The batch itself, which holds the presence masks."""
        return self

    def through(self, change: Callable[[Batch], Batch]) -> Batch:
        """The rows after a transformation."""
        return change(self)

    def order(self, size: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002 (rows on disk need it)
        """A random permutation of all rows, drawn from the generator, or from torch's global one."""
        return torch.randperm(len(self), generator=generator).to(self.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """The rows of each index, in turn."""
        return map(self.index, parts)

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, *names: str) -> Batch:
        """The same rows with these modalities only."""
        self._known(names)
        parts = ({name: part[name] for name in names if name in part} for part in (self.values, self.present, self.cells))
        return Batch(*parts, covariates=self.covariates)

    def without_values(self, *names: str) -> Batch:
        """The same rows and presence masks, with empty values, shape (B, 0), for these modalities."""
        self._known(names)
        values = {name: x.new_empty(len(self), 0) if name in names else x for name, x in self.values.items()}
        cells = {name: mask for name, mask in self.cells.items() if name not in names}
        return replace(self, values=values, cells=cells)

    def with_covariates(self, values: Mapping[str, Tensor]) -> Batch:
        """The same rows with these covariates instead of their own, each one value, or one for each row."""
        given = {name: x.to(self.device).expand(len(self)) for name, x in values.items()}
        part = replace(self, covariates={**self.covariates, **given})
        if "_whole" in vars(self):
            vars(part)["_whole"] = self.whole
        return part

    def only(self, *names: str) -> Batch:
        """The same rows with all other modalities marked absent; their values are kept but ignored."""
        self._known(names)
        return self._absent(set(self.values) - set(names))

    def hide(self, *names: str) -> Batch:
        """The same rows with these modalities marked absent; their values are kept but ignored."""
        self._known(names)
        return self._absent(set(names))

    def _known(self, names: tuple[str, ...]) -> None:
        if unknown := set(names) - set(self.values):
            raise ValueError(f"no modality {', '.join(sorted(unknown))} in this batch; it has {', '.join(self.values)}")

    def _absent(self, names: set[str]) -> Batch:
        masks = {name: torch.zeros_like(mask) if name in names else mask for name, mask in self.present.items()}
        return replace(self, present=masks)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        every = (self.values, self.present, self.cells, self.covariates)
        part = Batch(*({name: change(tensor) for name, tensor in part.items()} for part in every))
        if "_whole" in vars(self):
            vars(part)["_whole"] = self.whole
        return part
