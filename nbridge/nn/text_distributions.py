r"""Distributions over texts as token numbers: each text has at least one token, ends once, and is padded after its end.

With :math:`x_l` the token at place l and n the place of the end,

.. math:: \log p(x) = \sum_{l \leq n} \log p(x_l \mid x_{<l})

where the tokens of a *parallel* text do not depend on those before them. The first place is never the end, and the last place always is,
so that the probabilities of all texts sum to 1.

Axes: K samples, B rows, L places, V tokens, W the width of the recurrent state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Size, Tensor, distributions
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from nbridge.common.vocabulary import END, PAD


class TextDistribution(Distribution):
    """A distribution over texts of at most L places."""

    tokens: int
    places: int

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {}

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.tokens - 1), 1)

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        r"""The log-probability of texts, shape :math:`(*)`, for token numbers of shape :math:`(*, L)`, broadcast to the batch."""

    @abstractmethod
    def first(self, count: int) -> TextDistribution:
        """The distribution of the first ``count`` samples, those on the first axis of the batch."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        r"""A text of high probability for each of the batch, shape :math:`(*, L)`."""


class ParallelText(TextDistribution):
    """Independent tokens at each place, up to the first end.

    Arguments:
        logits: Unnormalised log-probabilities, shape :math:`(*, L, V)`.

    Example:
        >>> text = ParallelText(torch.zeros(2, 4))
        >>> text.log_prob(torch.tensor([3, 1])).exp()
        tensor(0.5000)
    """

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = allowed(logits).log_softmax(-1)
        self.places, self.tokens = logits.shape[-2:]
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.long()
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        log_probs = self.log_probs.expand(*shape, self.places, self.tokens)
        found = log_probs.gather(-1, value.expand(*shape, self.places)[..., None])[..., 0]
        return torch.where(value == PAD, 0.0, found).sum(-1)

    def first(self, count: int) -> ParallelText:
        return _reused(self, self.log_probs[:count])

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            each = distributions.Categorical(logits=self.log_probs, validate_args=False)
            return ended(each.sample(Size(sample_shape)))

    @property
    def mode(self) -> Tensor:
        """The most probable text: the best token at every place, and the end at the best place."""
        inner = self.log_probs.clone()
        inner[..., END] = -torch.inf
        best, token = inner.max(-1)
        before = F.pad(best[..., :-1].cumsum(-1), (1, 0))
        stop = (before + self.log_probs[..., END]).argmax(-1, keepdim=True)
        place = torch.arange(self.places, device=token.device)
        return torch.where(place < stop, token, torch.where(place == stop, END, PAD))


class RecurrentText(TextDistribution):
    """Tokens that depend on those before them, by a recurrent network.

    Arguments:
        step: Maps the token before, a state and the context to log-probabilities and the next state: shapes (N,), (N, W), (N, C) to
            (N, V), (N, W).
        context: What the decoder says of the text, shape :math:`(*, C)`.
        state: The state before the first token, shape :math:`(*, W)`.
        places: The number L.
        tokens: The number V.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], context: Tensor, state: Tensor, places: int, tokens: int
    ) -> None:
        self.step, self.context, self.state, self.places, self.tokens = step, context, state, places, tokens
        super().__init__(context.shape[:-1], Size((places,)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.long().expand(*self.batch_shape, self.places).reshape(-1, self.places)
        # Fewer steps where all texts are short; a device with queues of its own would have to wait for the answer.
        most = self.places if value.is_cuda or not len(value) else max(1, int((value != PAD).sum(-1).max()))
        state, context = self.state.flatten(0, -2), self.context.flatten(0, -2)
        before, total = torch.full_like(value[:, 0], PAD), torch.zeros(len(value), dtype=context.dtype, device=context.device)
        for place in range(most):
            logits, state = self.step(before, state, context)
            now = value[:, place]
            found = _at_place(logits, place, self.places).log_softmax(-1).gather(-1, now[:, None])[:, 0]
            total = total + torch.where(now == PAD, 0.0, found)
            before = now
        return total.view(self.batch_shape)

    def first(self, count: int) -> RecurrentText:
        return RecurrentText(self.step, self.context[:count], self.state[:count], self.places, self.tokens)

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return self._written(Size(sample_shape), lambda logits: distributions.Categorical(logits=logits, validate_args=False).sample())

    @property
    def mode(self) -> Tensor:
        """The text of the most probable token at every place, given those chosen before."""
        with torch.no_grad():
            return self._written(Size(), lambda logits: logits.argmax(-1))

    def _written(self, sample_shape: Size, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Texts written token by token."""
        shape = (*sample_shape, *self.batch_shape)
        context = self.context.expand(*shape, -1).reshape(-1, self.context.shape[-1])
        state = self.state.expand(*shape, -1).reshape(-1, self.state.shape[-1])
        now = torch.full(context.shape[:1], PAD, dtype=torch.long, device=context.device)
        written, over = [], torch.zeros_like(now, dtype=torch.bool)
        for place in range(self.places):
            logits, state = self.step(now, state, context)
            now = choose(_at_place(logits, place, self.places))
            written.append(torch.where(over, PAD, now))
            over = over | (now == END)
        return torch.stack(written, -1).view(*shape, self.places)


def allowed(logits: Tensor) -> Tensor:
    r"""Logits, shape :math:`(*, L, V)`, with the tokens that a place cannot hold excluded."""
    places = logits.shape[-2]
    barred = torch.zeros(logits.shape[-2:], dtype=torch.bool, device=logits.device)
    barred[:, PAD], barred[0, END], barred[places - 1] = True, True, True
    barred[places - 1, END] = False
    return logits.masked_fill(barred, -torch.inf)


def ended(numbers: Tensor) -> Tensor:
    r"""Token numbers, shape :math:`(*, L)`, with padding after the first end; the last place is an end if there is none before.

    Example:
        >>> ended(torch.tensor([[5, 1, 6, 1], [5, 6, 7, 8], [0, 0, 0, 0]]))
        tensor([[5, 1, 0, 0],
                [5, 6, 7, 1],
                [2, 1, 0, 0]])
    """
    numbers = numbers.long()
    # Padding before the end, as of a row that is absent, counts as the end; a text has at least one token.
    over = (numbers == END) | (numbers == PAD)
    first = torch.where(over[..., :1], 2, numbers[..., :1])
    over = torch.cat([torch.zeros_like(over[..., :1]), over[..., 1:-1], torch.ones_like(over[..., -1:])], -1)
    count = over.long().cumsum(-1)
    rest = torch.where(count == 0, numbers, torch.where((count == 1) & over, END, PAD))
    return torch.cat([first, rest[..., 1:]], -1)


def _at_place(logits: Tensor, place: int, places: int) -> Tensor:
    """Logits of one place, shape (N, V), with the tokens that it cannot hold excluded."""
    barred = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    barred[PAD] = True
    if place == 0:
        barred[END] = True
    if place == places - 1:
        barred[:] = True
        barred[END] = False
    return logits.masked_fill(barred, -torch.inf)


def _reused(text: ParallelText, log_probs: Tensor) -> ParallelText:
    """The same kind of distribution over log-probabilities that are normalised already."""
    other = ParallelText.__new__(ParallelText)
    other.log_probs, other.places, other.tokens = log_probs, text.places, text.tokens
    Distribution.__init__(other, log_probs.shape[:-2], log_probs.shape[-2:-1], validate_args=False)
    return other
