"""The schema of a spec: model, data and training. Nothing is built here.

`nbridge.spec.reader` reads specs and adds positions to error messages. Every mapping is strict: an unknown key is an error, and so is a
number in quotes. A component (an encoder, a data source, ...) is given by its type alone, or as a mapping of its type and constructor
options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Ge, Len
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo, field_validator, model_validator
from pydantic_core import to_jsonable_python

from nbridge.common.messages import clip
from nbridge.spec.columns import Columns
from nbridge.spec.components import Component, Kind, check_shape
from nbridge.spec.covariates import Covariate
from nbridge.spec.mixed import MIXED_SCHEMA, with_classes, with_columns
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
from nbridge.spec.search import read_options
from nbridge.spec.strict import StrictModel, error_at, expected, invalid, validation_error
from nbridge.spec.training import TrainingSpec

SPEC_VERSION = 1
"""The newest version of the format that this version of nbridge reads."""


def _field(default: Any, description: str, **more: Any) -> Any:
    """A field whose default is given as in a spec, and validated like one."""
    return Field(default=default, description=description, **more)


def _by_objective(description: str) -> Any:
    """A field whose default depends on the objective, and so is not in the JSON schema."""
    return _field(None, description, json_schema_extra=lambda schema: schema.pop("default"))


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise expected("one line of text")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]


class DataKeys(StrictModel):
    """How the rows of any data source are split."""

    validation: Probability = Field(default=0.1, description="Share of the rows held out for validation.")
    test: Probability = Field(default=0.2, description="Share of the rows held out for testing, if the source has no test part of its own.")
    seed: Seed = Field(default=0, description="Seed of the split.")
    empty_rows: EmptyRows = Field(
        default="keep",
        description="Rows with nothing observed: `keep` them, though training learns nothing from them, `drop` them, or `refuse` them.",
    )
    group: OneLine | None = Field(
        default=None,
        description="The column (or array) with the group of each row, such as its patient or speaker, or a modality whose items repeat: "
        "the rows of a group are never split across parts.",
    )
    split: OneLine | None = Field(
        default=None,
        description="The column (or array) that assigns each row to a part: train, validation or test. `test` is then ignored, and so is "
        "`validation` if the column has validation rows.",
    )

    @field_validator("test")
    @classmethod
    def _check_shares(cls, test: float, info: ValidationInfo) -> float:
        validation = info.data.get("validation", 0.0)
        if validation + test >= 1:
            raise invalid(f"validation ({validation:g}) and test ({test:g}) leave no rows for training; their sum must be below 1")
        return test

    @field_validator("split")
    @classmethod
    def _check_split(cls, split: str | None, info: ValidationInfo) -> str | None:
        if split is not None and split == info.data.get("group"):
            raise invalid(f"column '{clip(split)}' is also data.group; expected a column of train, validation or test")
        return split


@dataclass(frozen=True)
class DataSpec:
    """The data source and the split of its rows.

    Arguments:
        source: The data source.
        validation: Share of the rows held out for validation.
        test: Share of the rows held out for testing.
        seed: Seed of the split.
        empty_rows: How rows with nothing observed are treated.
        group: The column or modality whose values define groups that are never split; None for no groups.
        split: The column that assigns rows to parts; None for a random split.
    """

    source: Component
    validation: float
    test: float
    seed: int
    empty_rows: EmptyRows
    group: str | None = None
    split: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The full spelling in a spec, as plain YAML values."""
        keys = {key: value for key in DataKeys.model_fields if (value := getattr(self, key)) is not None}
        return {**self.source.as_dict("source"), **keys}


class Objective(StrictModel):
    """Weights of the terms; an omitted term has weight 0."""

    noun = "term"

    elbo: NonNegativeFloat = Field(default=0.0, description="Equations 8 and 9 of the paper: the ELBO of the single observed modality.")
    distill: NonNegativeFloat = Field(default=0.0, description="Distillation of the joint posterior into the bridged one.")
    match: NonNegativeFloat = Field(default=0.0, description="Squared error of the hallucinated features.")
    cross: NonNegativeFloat = Field(default=0.0, description="The log-likelihood of the other modalities, discrete ones only.")


_DEFAULTS_BY_OBJECTIVE = {
    "combine": ("mean", "poe"), "subsets": ("singletons", "random"), "encoders": ("shared", "own"), "exponents": ("ones", "fitted"),
    "prior": ("normal", "auto"),
}  # fmt: skip
"""Defaults of the options of bridges: with the paper's objective, and with any other."""


class BridgesKeys(StrictModel):
    """How bridges are trained and combined."""

    objective: Literal["paper"] | Objective = _field(
        dict(DEFAULT_OBJECTIVE), "The loss of stage `bridges`: `paper`, or weights of the terms elbo, distill, match and cross."
    )
    combine: Combine = _by_objective(
        "How several observed modalities are combined: mean of features, or product of posteriors (poe); default poe, with `paper` mean."
    )
    subsets: Subsets = _by_objective(
        "The sets of sources that bridges are trained for: singletons; random, singletons and one larger random set per row; or all. "
        "Default random, with `paper` singletons."
    )
    encoders: SourceEncoders = _by_objective(
        "The encoders that bridges read: shared, the frozen joint encoders; or own, encoders trained with the bridges. Default own, with "
        "`paper` shared."
    )
    exponents: Exponents = _by_objective(
        "The exponent of each posterior in the product (poe): fitted on validation rows, or ones. Default fitted, with `paper` ones."
    )
    prior: ProductPrior = _by_objective(
        "The prior in the product of posteriors (poe): normal, N(0, I); mixture, Gaussians fitted to the codes of the training rows; or "
        "auto, the one that better predicts hidden modalities of validation rows. Default auto, with `paper` normal."
    )

    @field_validator("objective", mode="wrap")
    @classmethod
    def _check_objective(cls, value: Any, _: Callable[[Any], Any]) -> Any:
        terms = get_args(Term)
        if value == "paper":
            return value
        if not isinstance(value, Mapping):
            raise expected(f"'paper' or a mapping of weights over {', '.join(terms)}")
        positive = {term: weight for term, weight in Objective.model_validate(value) if weight}
        if not positive:
            raise invalid(f"at least one of {', '.join(terms)} must have a positive weight")
        return positive

    @field_validator("combine", "subsets", "encoders", "exponents", "prior", mode="before")
    @classmethod
    def _fill_default(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        paper, default = _DEFAULTS_BY_OBJECTIVE[str(info.field_name)]
        return paper if info.data.get("objective") == "paper" else default


STOCHASTIC = frozenset({"flow"})
"""Bridges that sample: they have a single objective and condition on all observed modalities at once."""


@dataclass(frozen=True)
class BridgesSpec:
    """The bridges, their objective and how several of them are combined.

    Arguments:
        bank: The bridges.
        objective: ``paper``, or positive weights by term.
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
        """The full spelling in a spec, as plain YAML values."""
        keys = ("encoders",) if self.bank.type in STOCHASTIC else tuple(BridgesKeys.model_fields)
        return {**self.bank.as_dict(), **{key: to_jsonable_python(getattr(self, key)) for key in keys}}


ENCODER = Kind("encoders")
DECODER = Kind("decoders", keywords=("mirror",))
LIKELIHOOD = Kind("likelihoods")
FUSION = Kind("fusions", default="mlp")
BRIDGES = Kind("bridges", default="mlp", base_model=BridgesKeys, build=BridgesSpec)
PRIOR = Kind("priors", default="normal", keywords=("normal",))
MODEL = Kind("models", default="bridged", excluded=("objective", "combine", "subsets", "exponents", "prior"))
DATA = Kind("datasets", tag="source", default="memory", base_model=DataKeys, build=DataSpec)


def _to_sizes(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, list | tuple):
        return value
    raise expected("a size or a list of sizes")


Sizes = Annotated[tuple[PositiveInt, ...], Len(1, 8), Strict(False)]
SpecShape = Annotated[Sizes, BeforeValidator(_to_sizes, json_schema_input_type=PositiveInt | Sizes)]
"""A shape of one to eight axes; a single number means one axis."""


class ModalitySpec(StrictModel):
    """One modality of the model."""

    model_config = ConfigDict(json_schema_extra=MIXED_SCHEMA)

    columns: Columns | None = Field(
        default=None,
        exclude=True,
        description="Short for `likelihood: {type: mixed, columns: ...}`, with the encoder table and their shape.",
    )
    shape: SpecShape = Field(description="Shape of one row; for classes, their number. A single number means one axis.")
    encoder: Annotated[Component, ENCODER] = Field(description="Maps the modality to features.")
    decoder: Annotated[Component, DECODER] = _field("mirror", "Maps z to the likelihood's parameters; `mirror` reverses the encoder.")
    likelihood: Annotated[Component, LIKELIHOOD] = Field(description="The distribution p(x|z) of the values.")
    features: PositiveInt = Field(default=128, description="Width of the encoder's output.")
    weight: Literal["auto"] | NonNegativeFloat = Field(
        default="auto",
        description="Weight of the modality's log-likelihood in training; auto balances the nats of all modalities in training rows.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        return with_columns(value)

    @field_validator("encoder", "decoder", "likelihood")
    @classmethod
    def _check_shape(cls, component: Component, info: ValidationInfo) -> Component:
        kind = {"encoder": ENCODER, "decoder": DECODER, "likelihood": LIKELIHOOD}[info.field_name or ""]
        if "shape" in info.data:
            check_shape(kind, component.type, info.data["shape"])
        return component


class Spec(StrictModel):
    """An experiment: components over named modalities, data and training."""

    spec_version: Annotated[int, Ge(1)] = Field(default=SPEC_VERSION, description="Version of this format.")
    name: OneLine | None = Field(default=None, description="Name of the experiment.")
    model: Annotated[Component, MODEL] = _field("bridged", "The model.")
    latent_dim: PositiveInt = Field(default=32, description="Number of dimensions of z.")
    data: Annotated[DataSpec, DATA] = _field("memory", "Where rows come from; `memory` if they are passed from Python.")
    modalities: Annotated[dict[ModalityName, ModalitySpec], Len(1, 20)] = Field(description="The modalities by name, 1 to 20.")
    covariates: dict[OneLine, Covariate] = _field(
        {},
        "Columns that every row has and that encoders and decoders are given, such as a batch or an age, so that z need not hold them; by "
        "column, their kind: categorical or normal.",
    )
    fusion: Annotated[Component, FUSION] = _field("mlp", "Maps the features of all modalities to q(z|x).")
    bridges: Annotated[BridgesSpec, BRIDGES] = _field("mlp", "Maps the features of one modality to those of another.")
    prior: Annotated[Component, PRIOR] = _field(
        "normal", "The prior for unconditional generation: N(0, I), or a mixture fitted to the codes of the training rows."
    )
    training: TrainingSpec = _field({}, "How the model is trained.")
    tune: dict[OneLine, Annotated[list[Any], Field(json_schema_extra={"minItems": 2})]] = Field(
        default_factory=dict,
        exclude=True,
        description="What `nbridge tune` searches, by path of the option, such as `training.learning_rate: [1e-4, 1e-2]`: two numbers are "
        "the ends of a range, any other list is a choice; `modalities.*.features` is that of every modality. Not read in training.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_tune(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        spec = handler(value)
        if isinstance(value, Mapping) and spec.tune:
            read_options(spec.tune, value, cls.model_validate)
        return spec

    @model_validator(mode="before")
    @classmethod
    def _check_version(cls, value: Any) -> Any:
        version = value.get("spec_version") if isinstance(value, Mapping) else None
        if isinstance(version, int) and version > SPEC_VERSION:
            text = f"spec_version {version} is newer than the newest supported ({SPEC_VERSION}); upgrade nbridge"
            raise validation_error(error_at(("spec_version",), text))
        return with_classes(value)

    @field_validator("bridges", mode="before")
    @classmethod
    def _check_flow_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and (kind := value.get("type")) in STOCHASTIC:
            for key in BridgesKeys.model_fields:
                if key in value and key != "encoders":
                    text = f"'{key}' does not apply to bridges of type {kind}; remove it"
                    raise validation_error(error_at((key,), text))
        return value

    @field_validator("training", mode="wrap")
    @classmethod
    def _validate_training(cls, value: Any, _: Callable[[Any], Any], info: ValidationInfo) -> TrainingSpec:
        model = info.data.get("model")
        raw = value.model_dump() if isinstance(value, TrainingSpec) else value
        if isinstance(raw, Mapping) and "bridges" in info.data and info.data["bridges"].objective == "paper":
            # Models with the paper's objective are served as in the paper.
            raw = {"calibrate": False, **raw}
        own = STAGES.get(model.type) if model else None
        others = [stage for stages in STAGES.values() for stage in stages] if own else ()
        return TrainingSpec.model_validate(raw, context={"stages": own, "other_stages": others})

    @model_validator(mode="after")
    def _check_covariates(self) -> Self:
        for name in self.covariates:
            if name in self.modalities:
                raise invalid(f"covariates: '{clip(name)}' is a modality too; a column is one of them")
        return self

    @property
    def size_columns(self) -> dict[str, str]:
        """The column of the size factors of each modality that names one."""
        named = {name: one.likelihood.kwargs.get("size_factor", 1) for name, one in self.modalities.items()}
        return {name: str(column) for name, column in named.items() if column not in (1, "auto")}

    @model_validator(mode="after")
    def _check_validation_rows(self) -> Self:
        patient = [name for name, stage in self.training.stages.items() if isinstance(stage.patience, int)]
        if patient and not self.data.validation and self.data.split is None:
            raise invalid(f"training: patience of stage '{patient[0]}' needs validation rows, and data.validation is 0")
        if self.training.conformal and not self.data.validation and self.data.split is None:
            raise invalid("training: conformal needs validation rows, and data.validation is 0")
        return self

    def as_dict(self) -> dict[str, Any]:
        """The spec with all defaults written out, as plain YAML values, without `tune`; reading it gives a spec that trains equally."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value is not None and (value or key != "covariates")}
