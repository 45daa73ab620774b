"""Training settings: for all stages, and overrides for single stages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge
from pydantic import Field, ValidationInfo, create_model, field_validator, model_serializer, model_validator

from nbridge.spec.option_types import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Precision, Seed
from nbridge.spec.strict import StrictModel, invalid


class StageSettings(StrictModel):
    """Settings that may differ between stages."""

    batch_size: Annotated[int, Ge(2)] = Field(default=128, description="Rows per step; at least two, for batch normalisation.")
    learning_rate: PositiveFloat = Field(default=1e-3, description="Adam's learning rate after the warm-up.")
    gradient_clip: PositiveFloat | None = Field(default=None, description="Largest norm of the gradient; null disables clipping.")
    schedule: Literal["auto", "constant", "cosine", "decay"] = Field(
        default="auto",
        description="The learning rate after the warm-up: constant; cosine, half a cosine over the budget; or decay, constant, then "
        "falling to 0 over a tenth of the budget, at its end or when patience runs out. auto is constant with epochs, else decay.",
    )
    warmup_steps: Count = Field(default=0, description="Steps over which the learning rate rises from 0.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="Decoupled weight decay.")
    kl_annealing: Count = Field(default=0, description="Epochs over which the weight of the KL term rises from 0 to 1.")
    patience: PositiveInt | Literal["auto"] | None = Field(
        default="auto",
        description="Epochs, or rounds of 2 % of the updates, without an improved validation loss before a stage stops; null never stops, "
        "auto is null with epochs, else 10.",
    )
    updates: PositiveInt | None = Field(
        default=None, description="Optimiser steps; derived from the number of rows if neither updates nor epochs are given."
    )


class StageSpec(StageSettings):
    """One stage of training; omitted settings are taken from those for all stages."""

    epochs: PositiveInt | None = Field(default=None, description="Passes over the training rows, instead of updates.")

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.epochs is not None and self.updates is not None:
            raise invalid(f"both epochs ({self.epochs}) and updates ({self.updates}) are given; set one of them to null")
        return self

    @model_serializer(mode="wrap")
    def _serialise_given(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class TrainingSpec(StageSettings):
    """Training settings for the whole model and by stage."""

    seed: Seed = Field(default=0, description="Seed of initial weights, order of rows and samples of z.")
    precision: Precision = Field(
        default="auto",
        description="Precision of matrix products; auto times the products of wide layers on this machine and uses bf16 if it is clearly "
        "faster.",
    )
    compile: bool = Field(
        default=False, description="Whether to compile stages with torch: ten seconds or more each, then up to 14 % faster on a CPU."
    )
    cache_features: bool = Field(default=True, description="Whether frozen features are computed once for stage `bridges`.")
    calibrate: bool = Field(
        default=True,
        description="Whether to calibrate the predictive spread of each modality on validation rows after training, by the number of "
        "modalities observed, so that intervals and probabilities are reliable; with `objective: paper` false by default.",
    )
    conformal: bool = Field(
        default=False,
        description="Whether half of the validation rows are kept for split-conformal intervals, whose coverage is guaranteed even for a "
        "poor model.",
    )
    checkpoint_seconds: NonNegativeFloat = Field(default=10.0, description="Shortest time between checkpoints, in seconds.")
    stages: dict[str, StageSpec] = Field(
        default_factory=dict, validate_default=True, description="Settings by stage, for the stages of the model."
    )

    @field_validator("stages", mode="wrap")
    @classmethod
    def _complete_stages(cls, value: Any, handler: Callable[[Any], dict[str, StageSpec]], info: ValidationInfo) -> dict[str, StageSpec]:
        """Completes the settings of every stage; the names of the model's stages come from the validation of a `Spec`.

        Settings for stages of other models are accepted and kept, so that a spec can switch models by changing one word.
        """
        if not isinstance(value, Mapping):
            return handler(value)
        context = info.context or {}
        own = context.get("stages") or tuple(name for name in value if isinstance(name, str))
        names = tuple(dict.fromkeys((*own, *context.get("other_stages", ()))))
        stages = zip(names, dict(_stages(names).model_validate(value)).values(), strict=True)
        shared = {name: info.data[name] for name in StageSettings.model_fields if name in info.data}
        return {name: _completed(stage, shared) for name, stage in stages if name in own or name in value}

    def stage(self, name: str) -> StageSpec:
        """The complete settings of a stage."""
        if name in self.stages:
            return self.stages[name]
        return _completed(StageSpec(), {field: getattr(self, field) for field in StageSettings.model_fields})


@functools.cache
def _stages(names: tuple[str, ...]) -> type[StrictModel]:
    """A model of optional stages by name."""
    # Aliases, because a stage may be called `copy` and a field may not.
    fields: dict[str, Any] = {f"stage_{name}": (StageSpec, Field(default_factory=StageSpec, alias=name)) for name in names}
    model = create_model("Stages", __base__=StrictModel, **fields)
    model.noun = "stage"
    return model


def _completed(stage: StageSpec, shared: Mapping[str, Any]) -> StageSpec:
    given = {name: getattr(stage, name) for name in sorted(stage.model_fields_set)}
    if given.get("epochs") is not None:
        # A budget for this stage takes precedence over one for all stages.
        shared = {**shared, "updates": None}
    return StageSpec.model_construct(set(given), **{"epochs": None, **shared, **given})
