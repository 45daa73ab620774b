"""Rows of named modalities, each with a boolean mask of presence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    r"""Values and presence of B rows, by modality name.

    Presence is explicit: it is never inferred from values, and a modality that is absent from a row may hold anything there (zeros,
    noise, NaN) without changing any output. A modality that is not named at all is absent from every row.

    Arguments:
        values: Tensors by modality, :math:`(B, *shape_i)`. Categories may be class indices, :math:`(B,)`, or one-hot, :math:`(B, C)`.
        present: Boolean masks by modality, :math:`(B,)`, one for each entry of ``values``.
        cells: Boolean masks of single cells, :math:`(B, *shape_i)`, only for modalities with rows observed in part; a cell counts as
            observed when its row is present and its mask is true.

    Raises:
        ValueError: when the names or the numbers of rows disagree.

    Example:
        >>> batch = Batch.complete({"image": torch.rand(3, 8), "label": torch.tensor([0, 2, 1])})
        >>> batch.hide("label").present["label"]
        tensor([False, False, False])
    """

    values: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    cells: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.keys() != self.present.keys():
            raise ValueError(f"values are of {sorted(self.values)}, presence is of {sorted(self.present)}: name the same modalities")
        if not self.cells.keys() <= self.values.keys():
            raise ValueError(f"cells are of {sorted(self.cells)}, values are of {sorted(self.values)}")
        if not self.values:
            raise ValueError("a batch needs at least one modality")
        rows = {name: len(value) for name, value in self.values.items()}
        rows |= {f"presence of {name}": len(mask) for name, mask in self.present.items()}
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
        """The modalities that this batch names."""
        return tuple(self.values)

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return next(iter(self.values.values())).device

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def whole(self) -> bool:
        """Whether it is known that nothing is absent.

        A batch looks once. What is picked from it takes over its answer, so that no training step has to look, and wait for a device to
        tell: rows that happen to be complete, of a batch that is not, count as not known.
        """
        if "_whole" not in vars(self):
            vars(self)["_whole"] = all(bool(mask.all()) for mask in (*self.present.values(), *self.cells.values()))
        return vars(self)["_whole"]

    def index(self, rows: Tensor) -> Batch:
        """The rows picked by an index or a boolean mask."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        # Several times as fast as indexing by brackets, which serves any number of axes.
        return self._map(lambda tensor: tensor.index_select(0, rows))

    def slice(self, start: int, stop: int) -> Batch:
        """The rows from ``start`` up to ``stop``, as views."""
        return self._map(lambda tensor: tensor[start:stop])

    def subset(self, rows: Tensor) -> Batch:
        """The rows picked by an index or a boolean mask."""
        return self.index(rows)

    def sample(self, most: int | None = None) -> Batch:
        """The first rows, at most so many; all when it is left out."""
        return self if most is None else self.slice(0, most)

    def representative(self) -> Batch:
        """The rows that statistics are taken from: all."""
        return self

    def presence(self) -> Batch:
        """The batch itself, which knows who is present."""
        return self

    def through(self, change: Callable[[Batch], Batch]) -> Batch:
        """The rows after a change."""
        return change(self)

    def order(self, size: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002 (rows on disk need it)
        """A permutation of all rows, drawn from the generator, or from torch's own."""
        return torch.randperm(len(self), generator=generator).to(self.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """The rows of each index, one after the other."""
        return map(self.index, parts)

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, *names: str) -> Batch:
        """The same rows of these modalities alone; the others are no longer named."""
        self._known(names)
        return Batch(*({name: part[name] for name in names if name in part} for part in (self.values, self.present, self.cells)))

    def without_values(self, *names: str) -> Batch:
        """The same rows and presence, with nothing in the place of these modalities' values: shape (B, 0)."""
        self._known(names)
        values = {name: x.new_empty(len(self), 0) if name in names else x for name, x in self.values.items()}
        return Batch(values, self.present, {name: mask for name, mask in self.cells.items() if name not in names})

    def only(self, *names: str) -> Batch:
        """The same rows with all other modalities absent; their values stay but count for nothing."""
        self._known(names)
        return self._absent(set(self.values) - set(names))

    def hide(self, *names: str) -> Batch:
        """The same rows with these modalities absent; their values stay but count for nothing."""
        self._known(names)
        return self._absent(set(names))

    def _known(self, names: tuple[str, ...]) -> None:
        if unknown := set(names) - set(self.values):
            raise ValueError(f"no modality {', '.join(sorted(unknown))} in this batch; it has {', '.join(self.values)}")

    def _absent(self, names: set[str]) -> Batch:
        masks = {name: torch.zeros_like(mask) if name in names else mask for name, mask in self.present.items()}
        return Batch(self.values, masks, self.cells)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        part = Batch(*({name: change(tensor) for name, tensor in part.items()} for part in (self.values, self.present, self.cells)))
        if "_whole" in vars(self):
            vars(part)["_whole"] = self.whole
        return part
