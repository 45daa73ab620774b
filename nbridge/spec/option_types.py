"""Types of constructor options.

The annotations of a component's keyword-only arguments are its YAML schema, and the annotation of ``shape`` says which shapes it supports.
They use the types below, which do not need torch, so that a spec can be validated without importing the component.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt, Predicate, doc

from nbridge.common.vocabulary import LONGEST_TEXT, MOST_TOKENS, TokenKind
from nbridge.spec.columns import Columns  # noqa: F401 (a type of options)

PositiveInt = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
"""Zero or more."""
PositiveFloat = Annotated[float, Gt(0), Predicate(lambda value: value < float("inf"))]
NonNegativeFloat = Annotated[float, Ge(0), Predicate(lambda value: value < float("inf"))]
Seed = Annotated[int, Ge(-(2**63)), Lt(2**63)]
Probability = Annotated[float, Ge(0), Lt(1)]
"""A rate in [0, 1)."""
Hide = Annotated[float, Ge(0), Le(0.5)]
"""A mean share of columns that is hidden at random; twice as much is the most."""
Share = Annotated[float, Gt(0), Le(1)]
"""A fraction in (0, 1]."""

Widths = Annotated[tuple[PositiveInt, ...], Len(0, 200)]
"""Widths of hidden layers, starting at the input. Layers have a limit because each takes time to build, however small it is."""

Channels = Annotated[tuple[PositiveInt, ...], Len(1, 200)]
"""Channels of at least one convolution, starting at the input."""

Blocks = Annotated[int, Ge(1), Le(200)]
"""Number of residual blocks."""

Activation = Literal["leaky_relu", "relu", "elu", "gelu", "silu", "tanh"]
Combine = Literal["mean", "poe"]
Coupling = Literal["auto"] | NonNegativeFloat
"""Weight of a term that stage `joint` adds to equation 7; with auto it depends on the objective of the bridges."""
Components = Annotated[int, Ge(1), Le(200)]
"""Number of Gaussians in a mixture."""
Prior = Literal["normal", "mixture"]
ProductPrior = Literal["auto", "normal", "mixture"]
"""The prior in a product of posteriors; auto chooses on validation rows."""
SourceEncoders = Literal["shared", "own"]
Subsets = Literal["singletons", "random", "all"]
Exponents = Literal["fitted", "ones"]
"""Exponents of the posteriors in a product: fitted on validation rows, or all 1."""
Words = dict[str, str | tuple[str, ...]]
"""A name or several, by modality."""
Classes = dict[str, tuple[str | int | float, ...]]
"""The ordered classes, by modality."""
EmptyRows = Literal["keep", "drop", "refuse"]
MissingFiles = Literal["absent", "refuse"]
Resize = Literal["crop", "pad", "stretch"]
"""How an image is resized: crop its centre, pad it, or stretch it without keeping the aspect ratio."""
Levels = Annotated[int, Ge(2), Le(65536)]
Tokens = TokenKind
"""What a token of a text is."""
Precision = Literal["auto", "float32", "bf16"]
SizeFactor = Literal[1] | Annotated[str, Len(1)]
"""Size factor of a row of counts: 1, auto (from its own counts), or the name of the column that holds it."""
Scale = Literal["learned", "predicted"] | PositiveFloat
"""Scale of a likelihood: one learned parameter per element, predicted from z by the decoder, or fixed (in standardised units)."""

Shape = Annotated[tuple[PositiveInt, ...], Len(1), doc("shapes of one axis or more")]
"""Any shape of at least one axis."""
VectorShape = Annotated[tuple[PositiveInt, ...], Len(1, 1), doc("shapes of one axis")]
"""One axis."""
ImageShape = Annotated[tuple[PositiveInt, ...], Len(2, 4), doc("shapes of two to four axes, channels first")]
"""Channels first, then one to three spatial axes."""
ClassShape = Annotated[tuple[Annotated[int, Ge(2)], ...], Len(1, 1), doc("shapes of one axis, the number of classes (2 or more)")]
"""One axis: the number of classes, at least two."""
TextShape = Annotated[tuple[Annotated[int, Ge(2), Le(LONGEST_TEXT)], ...], Len(1, 1), doc("shapes of one axis, the most tokens of a text")]
"""One axis: the most tokens of a text, its end included."""
TextNetwork = Literal["conv", "transformer"]
"""The layers between the tokens of a text and its features."""
Pooling = Literal["attention", "mean"]
"""How the places of a text become one vector."""
TextOrder = Literal["parallel", "autoregressive"]
"""Whether the tokens of a text are independent given z, or each depends on those before it."""
LongText = Literal["refuse", "cut"]
"""What becomes of a text that has too many tokens."""
TokenCount = Annotated[int, Ge(4), Le(MOST_TOKENS)] | None
"""The number of tokens of a vocabulary, those of the end and the padding included; None for that of the likelihood."""
MostTokens = Annotated[int, Ge(1), Le(MOST_TOKENS)]
Layers = Annotated[int, Ge(1), Le(50)]
