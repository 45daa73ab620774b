r"""Covariates: always-given columns, such as the batch of a cell, that encoders and decoders are given, so that z need not hold them.

Categorical ones are one-hot, numbers standardised by the training rows; together they are a vector c of each row. Encoders read the
features of a modality and c (`CovariateEncoder`), decoders z and c (`nbridge.nn.decoders.RowDecoder`), as in scVI (Lopez et al., 2018).

Axes: B rows, W width of c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbridge.common import randomness
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.errors import DataError
from nbridge.nn.encoders import Encoder
from nbridge.nn.networks import MLP


class Covariates(nn.Module):
    """The covariates of a model, as the vector c that its networks read, and the columns of size factors.

    Values are class indices, or numbers. Frequencies of classes, means and deviations are those of the training rows.

    Arguments:
        classes: The ordered classes of each categorical covariate, empty for numbers.
        sizes: The columns of size factors, which are not in c unless they are covariates too.
        shapes: The shape of the encoder's input of each modality whose inputs are centred by the covariates (`centred`).
    """

    shares: Tensor
    mean: Tensor
    sd: Tensor
    usual_c: Tensor

    def __init__(
        self, classes: Mapping[str, Sequence[str]], sizes: Iterable[str] = (), shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        super().__init__()
        self.classes = {name: tuple(one) for name, one in classes.items()}
        self.sizes = tuple(dict.fromkeys(sizes))
        self.names = tuple(dict.fromkeys((*self.classes, *self.sizes)))
        self.width = sum(len(one) or 1 for one in self.classes.values())
        self._numbers = tuple(name for name in self.names if not self.classes.get(name))
        self.register_buffer("shares", torch.cat([torch.zeros(0), *(torch.full((len(one),), 1 / len(one)) for one in self._categorical())]))
        self.register_buffer("mean", torch.zeros(len(self._numbers)))
        self.register_buffer("sd", torch.ones(len(self._numbers)))
        self.register_buffer("usual_c", torch.zeros(self.width))
        self._centred = tuple(shapes or ()) if self.width else ()
        for name in self._centred:
            self.register_buffer(_slopes(name), torch.zeros(self.width, *(shapes or {})[name]))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """The vector c of each row, shape (B, W), from the values of all covariates, each of shape (B,).

        Raises:
            DataError: if one is missing.
        """
        self._require(values)
        parts = []
        for name, classes in self.classes.items():
            if classes:
                parts.append(F.one_hot(values[name], len(classes)).to(self.mean))
            else:
                place = self._numbers.index(name)
                parts.append(((values[name].to(self.mean) - self.mean[place]) / self.sd[place])[:, None])
        return torch.cat(parts, 1)

    def alike(self, values: Mapping[str, Tensor]) -> Tensor | None:
        """The pairs of rows whose covariates are alike, boolean, shape (B, B): equal classes, and numbers within half a deviation.

        None if there are no covariates but sizes.
        """
        if not self.width:
            return None
        each = []
        for name, classes in self.classes.items():
            x = values[name]
            unit = 0.5 * self.sd[self._numbers.index(name)] if not classes else 0.5
            each.append((x[:, None] - x).abs() < unit)
        return torch.stack(each).all(0)

    def size(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """Log of the size factors of a column relative to its mean over the training rows, shape (B,); 0 where a row has none.

        Raises:
            DataError: if the column is missing.
        """
        self._require(values)
        return (values[name].to(self.mean) / self.mean[self._numbers.index(name)]).log().nan_to_num(0.0)

    @torch.no_grad()
    def fit(self, values: Mapping[str, Tensor]) -> None:
        """Estimates frequencies, means and deviations from the values of training rows; a constant number keeps the deviation 1."""
        self._require(values)
        counts = [torch.bincount(values[name], minlength=len(one)).double() for name, one in self.classes.items() if one]
        self.shares.copy_(torch.cat([torch.zeros(0), *(one.cpu() / one.sum().cpu() for one in counts)]))
        for place, name in enumerate(self._numbers):
            known = values[name].double()
            known = known[known.isfinite()]
            if len(known):
                self.mean[place] = known.mean()
                sd = known.std(correction=0)
                self.sd[place] = torch.where(sd > 1e-6 * known.mean().abs().clamp(min=1e-30), sd, 1.0)
        if self.width:
            self.usual_c.copy_(self(values).mean(0))

    def centred(self, name: str, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        r"""Inputs of a modality's encoder, shape (B, \*shape), less what the covariates alone predict of them.

        Encoders are given c as well, so that nothing is lost; but without training they take a batch and a plain shift of all its values
        for the same thing.
        """
        if name not in self._centred:
            return x
        return x - torch.tensordot((self(values) - self.usual_c).to(x), self.get_buffer(_slopes(name)).to(x), 1)

    @torch.no_grad()
    def fit_centres(self, name: str, x: Tensor, values: Mapping[str, Tensor]) -> None:
        r"""Fits what covariates predict of inputs by least squares, to training rows that have the modality, shape (N, \*shape)."""
        if name in self._centred and len(x):
            c = (self(values) - self.usual_c).double()
            # A small ridge, for the classes add up to one, and those of few rows are close to the mean.
            gram = c.T @ c + torch.eye(self.width, dtype=c.dtype, device=c.device)
            flat = x.flatten(1).double()
            slopes = torch.linalg.solve(gram, c.T @ (flat - flat.mean(0)))
            self.get_buffer(_slopes(name)).copy_(slopes.reshape(self.width, *x.shape[1:]))

    def draw(self, rows: int) -> dict[str, Tensor]:
        """Values of new rows: classes drawn by their frequencies in the training rows, and the mean of numbers, each of shape (B,)."""
        values, start = {}, 0
        for name in self.names:
            if classes := self.classes.get(name):
                shares = self.shares[start : start + len(classes)]
                start += len(classes)
                drawn = torch.bucketize(randomness.rand(rows, device=shares.device), shares.cumsum(0)).clamp(max=len(classes) - 1)
                values[name] = drawn
            else:
                values[name] = self.mean[self._numbers.index(name)].repeat(rows)
        return values

    def usual(self, rows: int) -> dict[str, Tensor]:
        """The most frequent class of the training rows, and the mean of numbers, each of shape (B,)."""
        values, start = {}, 0
        for name in self.names:
            if classes := self.classes.get(name):
                values[name] = self.shares[start : start + len(classes)].argmax().repeat(rows)
                start += len(classes)
            else:
                values[name] = self.mean[self._numbers.index(name)].repeat(rows)
        return values

    def number_of(self, name: str, text: str) -> float:
        """The value of a covariate from its text: the index of a class, or a number.

        Raises:
            DataError: if it is not a known class, or no number. The message names neither row nor column.
        """
        if classes := self.classes.get(name):
            if text not in classes:
                near = did_you_mean(text, classes)
                raise DataError(f"{clip(text)!r} is a level that no training row had.{near} Levels: {clip(listing(classes), 200)}")
            return float(classes.index(text))
        try:
            number = float(text)
        except ValueError:
            raise DataError(f"{clip(text)!r} is not a number") from None
        if not abs(number) < float("inf") or (name in self.sizes and number <= 0):
            raise DataError(f"{clip(text)!r}: expected a {'positive' if name in self.sizes else 'finite'} number")
        return number

    def fixed(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """Fixed values of some covariates, as scalars.

        Raises:
            DataError: if there is no such covariate or class.
        """
        values = {}
        for name, value in given.items():
            if name not in self.names:
                raise DataError(
                    f"no covariate {clip(name)!r} in this model.{did_you_mean(name, self.names)} Covariates: {listing(self.names)}"
                )
            text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            try:
                values[name] = self.tensor(name, [self.number_of(name, text)])[0]
            except DataError as error:
                raise DataError(f"covariate {clip(name)!r}: {error}") from error
        return values

    def tensor(self, name: str, numbers: Sequence[float]) -> Tensor:
        """Values of a covariate in the form of the model: class indices, or numbers."""
        return torch.tensor(numbers, dtype=torch.long if self.classes.get(name) else torch.float32)

    def _categorical(self) -> list[tuple[str, ...]]:
        return [one for one in self.classes.values() if one]

    def _require(self, values: Mapping[str, Tensor]) -> None:
        if missing := [name for name in self.names if name not in values]:
            raise DataError(f"covariate {missing[0]!r}: these rows have no value of it; expected one in each row")

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={len(one) or 'number'}" for name, one in self.classes.items())


def _slopes(name: str) -> str:
    return f"slopes_of_{name}"


class CovariateEncoder(Encoder):
    """An encoder whose features depend on covariates too: a layer over the features of another encoder and c.

    Its input is the modality, flattened, followed by c (`packed`), so that whatever selects rows of it selects both.

    Arguments:
        encoder: The encoder of the modality.
        shape: The shape of its input.
        width: The width W of c.
    """

    def __init__(self, encoder: Encoder, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.encoder, self.width, self.features = encoder, width, encoder.features
        self.reads_mask = encoder.reads_mask
        self.shape = (*shape[:-1], 2 * shape[-1]) if encoder.reads_mask else tuple(shape)
        self.mixing = MLP(encoder.features + width, encoder.features, activate_last=True)

    def forward(self, x: Tensor) -> Tensor:
        values, covariates = x[:, : -self.width], x[:, -self.width :]
        features = self.encoder(values.reshape(-1, *self.shape))
        return self.mixing(torch.cat([features, covariates.to(features)], 1))

    def mirror(self) -> dict[str, object]:
        return self.encoder.mirror()


def packed(x: Tensor, covariates: Tensor) -> Tensor:
    """The input of a `CovariateEncoder`, shape (B, E + W), from the values of a modality and c."""
    return torch.cat([x.flatten(1), covariates.to(x)], 1)
