r"""The likelihood of texts: sequences of token numbers (`nbridge.common.vocabulary`), padded to one length.

Values are token numbers, shape (B, L): the tokens of a text, its end, then padding. Strings become numbers, and numbers strings, where
rows are read and written (`nbridge.data.text_values`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from nbridge.common.vocabulary import END, PAD, UNKNOWN, make_vocabulary
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.text_distributions import ParallelText, RecurrentText, TextDistribution, ended
from nbridge.spec.option_types import LongText, MostTokens, PositiveInt, TextOrder, TextShape, Tokens

CANDIDATES = 8
"""Number of samples of z whose texts are candidates for the point estimate."""


class Text(Likelihood):
    r"""A text of at most L tokens, its end included: :math:`\log p(x \mid z) = \sum_{l \leq n} \log p(x_l \mid x_{<l}, z)`.

    The vocabulary is made from the data when a model is trained, and stored with it. The point estimate is the text, of those that single
    samples of z make most probable, with the highest probability on average over samples.

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349

    Arguments:
        shape: The most tokens of a text, its end included.
        tokens: What a token is: characters, words (and signs between them), or bytes of UTF-8.
        vocabulary: The tokens, in order; by default the most frequent ones of the data.
        most_tokens: The most tokens that are taken from the data.
        tokenizer: The path of a tokenizer.json of the package tokenizers, used instead; its content is stored with the model.
        order: parallel predicts all tokens at once from z; autoregressive predicts each from z and those before it, by a recurrent network.
        width: Width of the recurrent network; for autoregressive texts only.
        longer: What becomes of a text with more tokens: refuse, which names its row, or cut.
    """

    elementwise = False
    discrete = True
    averaged = False

    def __init__(
        self, shape: TextShape,
        *, tokens: Tokens = "characters", vocabulary: tuple[str, ...] | None = None, most_tokens: MostTokens = 2000,
        tokenizer: str | None = None, order: TextOrder = "autoregressive", width: PositiveInt = 128, longer: LongText = "refuse",
    ) -> None:  # fmt: skip
        super().__init__(shape)
        del most_tokens, longer  # options of the data, which decide what the vocabulary is and which texts are read
        self.vocabulary = make_vocabulary(tokens, vocabulary, tokenizer)
        self.tokens, self.order, self.width = len(self.vocabulary), order, width
        self.support = constraints.integer_interval(0, self.tokens - 1)
        if order == "autoregressive":
            # The gates of a GRU whose input is a token: one vector for each token instead of a product with its embedding.
            self.gates, self.recurrent = nn.Embedding(self.tokens, 3 * width), nn.Linear(width, 3 * width)
            self.head = nn.Linear(width, self.tokens)
        else:
            self.spread = torch.ones(1)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.tokens) if self.order == "parallel" else (4 * self.width,)

    @property
    def numbers(self) -> int:
        return self.shape[0] * self.tokens

    def forward(self, raw: Tensor, factor: Tensor | None = None) -> TextDistribution:
        if self.order == "parallel":
            # A factor is one for all, or a column.
            return ParallelText(raw if factor is None else raw / (factor[..., None] if factor.ndim else factor))
        context, state = raw.split([3 * self.width, self.width], -1)
        return RecurrentText(self._step, context, state.tanh(), self.shape[0], self.tokens)

    def canonical(self, x: Tensor) -> Tensor:
        return ended(x)

    def blank(self, rows: int) -> Tensor:
        row = torch.full((self.shape[0],), PAD)
        row[0], row[1] = UNKNOWN, END
        return row.repeat(rows, 1)

    def standardize(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def expectation(self, distribution: Distribution) -> Tensor:
        """The most probable text of each sample, one-hot, shape (*, L, V): an average of them counts votes at each place."""
        assert isinstance(distribution, TextDistribution)
        return nn.functional.one_hot(distribution.mode, self.tokens).to(self.dtype)

    def point(self, expectation: Tensor) -> Tensor:
        return ended(expectation.argmax(-1))

    def estimate(self, distribution: Distribution) -> Tensor:
        r"""The candidate c of the highest :math:`\log \frac{1}{K} \sum_k p(c \mid z_k)`; candidates are the modes of the first samples."""
        assert isinstance(distribution, TextDistribution)
        few = distribution.first(CANDIDATES)
        candidates = few.mode
        scores = torch.stack([few.log_prob(one).logsumexp(0) for one in candidates])
        best = scores.argmax(0)
        return candidates.gather(0, best[None, :, None].expand(1, *candidates.shape[1:]))[0]

    def matches(self, estimate: Tensor, x: Tensor) -> Tensor:
        """Whether texts are the same but for blanks before and after them."""
        return (self.stripped(estimate) == self.stripped(x)).all(-1)

    def right_tokens(self, estimate: Tensor, x: Tensor) -> Tensor:
        """The share of places with the true token, from the first to the later end of the two texts, blanks around them left out."""
        one, other = self.stripped(estimate), self.stripped(x)
        # The end counts as well, so a text of another length has a wrong token.
        length = torch.maximum((one != PAD).sum(-1), (other != PAD).sum(-1)) + 1
        wrong = (one != other).sum(-1)
        return 1 - wrong / length

    def stripped(self, x: Tensor) -> Tensor:
        r"""Token numbers, shape :math:`(*, L)`, without blanks at the beginning and at the end; padding instead of the end."""
        blank = self.vocabulary.blank
        x = torch.where(x == END, PAD, x)
        if blank is None:
            return x
        inner = (x != blank) & (x != PAD)
        places = torch.arange(x.shape[-1], device=x.device)
        start = inner.long().argmax(-1, keepdim=True)
        stop = torch.where(inner, places, -1).amax(-1, keepdim=True)
        moved = places + start
        kept = x.gather(-1, moved.clamp(max=x.shape[-1] - 1))
        return torch.where(moved <= stop, kept, PAD)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.tokens} {self.vocabulary.unit}, {self.order}"

    def _step(self, before: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the recurrent network (`nbridge.nn.text_distributions.RecurrentText`)."""
        reset_x, update_x, new_x = (self.gates(before) + context).chunk(3, -1)
        reset_h, update_h, new_h = self.recurrent(state).chunk(3, -1)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        state = torch.lerp(new, state, torch.sigmoid(update_x + update_h))
        return self.head(state), state
