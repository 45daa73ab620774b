"""The spec: what a model is made of, what it is trained on and how. Nothing is built here.

A spec is read with `nbridge.spec.reader`, which adds to every mistake where it stands. Every mapping is strict: an unknown key is a
mistake, as is a number in quotes. Components (an encoder, a data source, ...) are spelt by their type alone, or as a mapping of the type
and the options of its constructor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Ge, Len
from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from nbridge.common.messages import clip
from nbridge.spec.components import Component, Kind, check_shape
from nbridge.spec.names import ModalityName
from nbridge.spec.objectives import DEFAULT_OBJECTIVE, Term
from nbridge.spec.option_types import (
    Combine,
    EmptyRows,
    Exponents,
    NonNegativeFloat,
    PositiveInt,
    Probability,
    ProductPrior,
    Seed,
    SourceEncoders,
    Subsets,
)
from nbridge.spec.registry import STAGES
from nbridge.spec.strict import StrictModel, expected, mistake, mistake_at, mistakes
from nbridge.spec.training import TrainingSpec

SPEC_VERSION = 1
"""The newest version of the format that this package reads."""


def _spelt(default: Any, description: str, **more: Any) -> Any:
    """A field whose default is spelt as in a spec, and read like one."""
    return Field(default=default, description=description, **more)


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise expected("one line of text")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]


class DataKeys(StrictModel):
    """How the rows of any data source are split."""

    validation: Probability = Field(default=0.1, description="Share of the rows held out for validation.")
    test: Probability = Field(
        default=0.2, description="Share of the rows held out for testing, where the source has no test part of its own."
    )
    seed: Seed = Field(default=0, description="Seed of the split.")
    empty_rows: EmptyRows = Field(
        default="keep",
        description="What becomes of rows in which nothing is observed: `keep` them, though they teach nothing, `drop` them, or `refuse`.",
    )
    group: OneLine | None = Field(
        default=None,
        description="The column (or array) that says which patient, speaker or photograph a row belongs to, or a modality whose items "
        "repeat: rows of one group never fall in two parts.",
    )
    split: OneLine | None = Field(
        default=None,
        description="The column (or array) that assigns each row to a part: train, validation or test. `test`, and `validation` where "
        "it has validation rows, then count for nothing.",
    )

    @field_validator("test")
    @classmethod
    def _leave_rows(cls, test: float, info: ValidationInfo) -> float:
        validation = info.data.get("validation", 0.0)
        if validation + test >= 1:
            raise mistake(f"validation ({validation:g}) and test ({test:g}) leave no rows for training; together they must stay below 1")
        return test

    @field_validator("split")
    @classmethod
    def _differ(cls, split: str | None, info: ValidationInfo) -> str | None:
        if split is not None and split == info.data.get("group"):
            raise mistake(f"column '{clip(split)}' is data.group as well; name the column that says train, validation or test")
        return split


@dataclass(frozen=True)
class DataSpec:
    """Where rows come from, and how they are split.

    Arguments:
        source: The data source.
        validation: Share of the rows held out for validation.
        test: Share of the rows held out for testing.
        seed: Seed of the split.
        empty_rows: What becomes of rows in which nothing is observed.
        group: The column, or the modality, whose values make groups that are never divided; None where each row stands for itself.
        split: The column that assigns rows to parts; None where they are drawn at random.
    """

    source: Component
    validation: float
    test: float
    seed: int
    empty_rows: EmptyRows
    group: str | None = None
    split: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The full form that a spec may hold."""
        shares = {"validation": self.validation, "test": self.test, "seed": self.seed, "empty_rows": self.empty_rows}
        columns = {key: column for key, column in (("group", self.group), ("split", self.split)) if column is not None}
        return {**self.source.as_dict("source"), **shares, **columns}


class Objective(StrictModel):
    """Weights of the terms; one left out has weight 0."""

    noun = "term"

    elbo: NonNegativeFloat = Field(
        default=0.0, description="Equations 8 and 9 of the paper: the ELBO of the one modality that is observed."
    )
    distill: NonNegativeFloat = Field(default=0.0, description="The joint posterior is the teacher of the bridged one.")
    match: NonNegativeFloat = Field(default=0.0, description="Squared error of the hallucinated features.")
    cross: NonNegativeFloat = Field(default=0.0, description="The log-likelihood of the other modalities, of the discrete ones only.")


_BY_OBJECTIVE = {
    "combine": ("mean", "poe"),
    "subsets": ("singletons", "random"),
    "encoders": ("shared", "own"),
    "exponents": ("ones", "fitted"),
    "prior": ("normal", "auto"),
}
"""What options of the bridges default to: with the paper's objective, and with any other."""


class BridgesKeys(StrictModel):
    """How bridges are trained and how several of them meet."""

    objective: Literal["paper"] | Objective = _spelt(
        dict(DEFAULT_OBJECTIVE), "What stage `bridges` minimises: `paper`, or weights of the terms elbo, distill, match and cross."
    )
    combine: Combine = _spelt(
        None,
        "How several observed modalities meet: the mean of features, or the product of posteriors; by default poe, with `paper` mean.",
        json_schema_extra=lambda schema: schema.pop("default"),
    )
    subsets: Subsets = _spelt(
        None,
        "Which sets of sources bridges are trained for: singletons, one larger set at random of each row besides, or all; by default "
        "random, with `paper` singletons.",
        json_schema_extra=lambda schema: schema.pop("default"),
    )

    encoders: SourceEncoders = _spelt(
        None,
        "What bridges read: features of the frozen joint encoders, or of encoders of their own, which learn with them; by default own, "
        "with `paper` shared.",
        json_schema_extra=lambda schema: schema.pop("default"),
    )
    exponents: Exponents = _spelt(
        None,
        "How far the product of posteriors (poe) trusts each observed modality: fitted on validation rows, or ones; by default fitted, "
        "with `paper` ones.",
        json_schema_extra=lambda schema: schema.pop("default"),
    )

    prior: ProductPrior = _spelt(
        None,
        "The prior in the product of posteriors (poe): normal, N(0, I); mixture, Gaussians fitted to the codes of the training rows; or "
        "auto, the one that predicts hidden modalities of validation rows better; by default auto, with `paper` normal.",
        json_schema_extra=lambda schema: schema.pop("default"),
    )

    @field_validator("objective", mode="wrap")
    @classmethod
    def _positive(cls, value: Any, _: Callable[[Any], Any]) -> Any:
        terms = get_args(Term)
        if isinstance(value, Mapping):
            weights = Objective.model_validate(value)
            positive = {term: weight for term in terms if (weight := getattr(weights, term))}
            if not positive:
                raise mistake(f"at least one of {', '.join(terms)} must have a positive weight")
            return positive
        if value == "paper":
            return value
        raise expected(f"'paper' or a mapping of weights over {', '.join(terms)}")

    @field_validator("combine", "subsets", "encoders", "exponents", "prior", mode="before")
    @classmethod
    def _settle(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        paper, default = _BY_OBJECTIVE[str(info.field_name)]
        return paper if info.data.get("objective") == "paper" else default


STOCHASTIC = frozenset({"flow"})
"""Bridges that draw: they have one way to learn, and take all observed modalities at once."""


@dataclass(frozen=True)
class BridgesSpec:
    """The bridges, their objective and how several of them meet.

    Arguments:
        bank: The bridges.
        objective: ``paper``, or the positive weights by term.
        combine: ``mean`` or ``poe``.
        subsets: ``singletons``, ``random`` or ``all``.
        encoders: ``shared`` or ``own``.
        exponents: ``fitted`` or ``ones``.
        prior: ``auto``, ``normal`` or ``mixture``.
    """

    bank: Component
    objective: Literal["paper"] | Mapping[Term, float]
    combine: Combine
    subsets: Subsets = "random"
    encoders: SourceEncoders = "own"
    exponents: Exponents = "fitted"
    prior: ProductPrior = "auto"

    def as_dict(self) -> dict[str, Any]:
        """The full form that a spec may hold."""
        if self.bank.type in STOCHASTIC:
            return {**self.bank.as_dict(), "encoders": self.encoders}
        objective = self.objective if self.objective == "paper" else dict(self.objective)
        keys = {"objective": objective, "combine": self.combine, "subsets": self.subsets, "encoders": self.encoders}
        keys |= {"exponents": self.exponents, "prior": self.prior}
        return {**self.bank.as_dict(), **keys}


ENCODER = Kind("encoders")
DECODER = Kind("decoders", words=("mirror",))
LIKELIHOOD = Kind("likelihoods")
FUSION = Kind("fusions", default="mlp")
BRIDGES = Kind("bridges", default="mlp", house=BridgesKeys, build=BridgesSpec)
PRIOR = Kind("priors", default="normal", words=("normal",))
MODEL = Kind("models", default="bridged", given=("objective", "combine", "subsets", "exponents", "prior"))
DATA = Kind("datasets", tag="source", default="memory", house=DataKeys, build=DataSpec)


def _one_size_is_a_shape(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, list | tuple):
        return value
    raise expected("a size or a list of sizes")


Sizes = Annotated[tuple[PositiveInt, ...], Len(1, 8), Strict(False)]
SpecShape = Annotated[Sizes, BeforeValidator(_one_size_is_a_shape, json_schema_input_type=PositiveInt | Sizes)]
"""A shape of one to eight axes; a single number is a shape of one axis."""


class ModalitySpec(StrictModel):
    """One modality of the model."""

    shape: SpecShape = Field(description="Shape of one row; for classes, their number. A single number is a shape of one axis.")
    encoder: Annotated[Component, ENCODER] = Field(description="Maps the modality to features.")
    decoder: Annotated[Component, DECODER] = _spelt("mirror", "Maps z to the likelihood's parameters; `mirror` is the encoder in reverse.")
    likelihood: Annotated[Component, LIKELIHOOD] = Field(description="What the values mean: the distribution p(x|z).")
    features: PositiveInt = Field(default=128, description="Width of the encoder's output.")
    weight: Literal["auto"] | NonNegativeFloat = Field(
        default="auto",
        description="Weight of the modality's log-likelihood in training; auto follows from the nats of all modalities in training rows.",
    )

    @field_validator("encoder", "decoder", "likelihood")
    @classmethod
    def _serves_the_shape(cls, component: Component, info: ValidationInfo) -> Component:
        kind = {"encoder": ENCODER, "decoder": DECODER, "likelihood": LIKELIHOOD}[info.field_name or ""]
        if "shape" in info.data:
            check_shape(kind, component.type, info.data["shape"])
        return component


class Spec(StrictModel):
    """A whole experiment: parts over named modalities, data and training."""

    spec_version: Annotated[int, Ge(1)] = Field(default=SPEC_VERSION, description="Version of this format.")
    name: OneLine | None = Field(default=None, description="What the experiment is called.")
    model: Annotated[Component, MODEL] = _spelt("bridged", "The model.")
    latent_dim: PositiveInt = Field(default=32, description="Number of dimensions of z.")
    data: Annotated[DataSpec, DATA] = _spelt("memory", "Where rows come from; `memory` where they are passed from Python.")
    modalities: Annotated[dict[ModalityName, ModalitySpec], Len(1, 20)] = Field(description="The modalities by name, 1 to 20 of them.")
    fusion: Annotated[Component, FUSION] = _spelt("mlp", "Maps the features of all modalities to q(z|x).")
    bridges: Annotated[BridgesSpec, BRIDGES] = _spelt("mlp", "Maps the features of one modality to those of another.")
    prior: Annotated[Component, PRIOR] = _spelt(
        "normal", "Where rows that are generated from nothing begin: N(0, I), or a mixture fitted to the training rows' codes."
    )
    training: TrainingSpec = _spelt({}, "How the model is trained.")

    @model_validator(mode="before")
    @classmethod
    def _read_this_version(cls, value: Any) -> Any:
        version = value.get("spec_version") if isinstance(value, Mapping) else None
        if isinstance(version, int) and version > SPEC_VERSION:
            text = f"spec_version {version} is newer than this nbridge understands ({SPEC_VERSION}); upgrade nbridge"
            raise mistakes(mistake_at(("spec_version",), text))
        return value

    @field_validator("bridges", mode="before")
    @classmethod
    def _leave_flows_alone(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and (kind := value.get("type")) in STOCHASTIC:
            for key in BridgesKeys.model_fields:
                if key in value and key != "encoders":
                    text = f"a {kind} has one objective and takes all observed modalities at once; leave '{key}' out"
                    raise mistakes(mistake_at((key,), text))
        return value

    @field_validator("training", mode="wrap")
    @classmethod
    def _know_the_stages(cls, value: Any, _: Callable[[Any], Any], info: ValidationInfo) -> TrainingSpec:
        model = info.data.get("model")
        raw = value.model_dump() if isinstance(value, TrainingSpec) else value
        if isinstance(raw, Mapping) and "bridges" in info.data and info.data["bridges"].objective == "paper":
            # The paper's models are served as the paper has them.
            raw = {"calibrate": False, **raw}
        own = STAGES.get(model.type) if model else None
        others = [stage for stages in STAGES.values() for stage in stages] if own else ()
        return TrainingSpec.model_validate(raw, context={"stages": own, "other_stages": others})

    @model_validator(mode="after")
    def _validate_where_patience_needs_it(self) -> Self:
        patient = [name for name, stage in self.training.stages.items() if isinstance(stage.patience, int)]
        if patient and not self.data.validation and self.data.split is None:
            raise mistake(f"training: stage '{patient[0]}' has patience, which data.validation 0 leaves nothing to wait for")
        if self.training.conformal and not self.data.validation and self.data.split is None:
            raise mistake("training: conformal needs validation rows, and data.validation is 0")
        return self

    def as_dict(self) -> dict[str, Any]:
        """The spec with every default written out, as plain YAML values; reading it gives an equal spec."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value is not None}
