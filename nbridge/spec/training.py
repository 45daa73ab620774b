"""How a model is trained: settings for all stages, and what single stages do otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge
from pydantic import Field, ValidationInfo, create_model, field_validator, model_serializer, model_validator

from nbridge.spec.option_types import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Precision, Seed
from nbridge.spec.strict import StrictModel, mistake


class StageSettings(StrictModel):
    """What may differ from stage to stage."""

    batch_size: Annotated[int, Ge(2)] = Field(default=128, description="Rows in a step; two at least, for batch normalisation.")
    learning_rate: PositiveFloat = Field(default=1e-3, description="Adam's learning rate, after the warm-up.")
    gradient_clip: PositiveFloat | None = Field(default=None, description="Largest norm of the gradient; null clips nothing.")
    schedule: Literal["auto", "constant", "cosine", "decay"] = Field(
        default="auto",
        description="The learning rate after the warm-up: constant; cosine, half a cosine over the budget; or decay, constant and then "
        "falling to 0 over a tenth of the budget, at its end or where patience runs out. auto is constant with epochs, else decay.",
    )
    warmup_steps: Count = Field(default=0, description="Steps over which the learning rate rises from 0.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="Decoupled weight decay.")
    kl_annealing: Count = Field(default=0, description="Epochs over which the weight of the KL term rises from 0 to 1.")
    patience: PositiveInt | Literal["auto"] | None = Field(
        default="auto",
        description="Epochs, or rounds of 2 % of the updates, without a better validation figure before a stage stops; null never stops, "
        "auto is null with epochs, else 10.",
    )
    updates: PositiveInt | None = Field(
        default=None, description="Optimiser steps; where neither updates nor epochs are given, they follow from the number of rows."
    )


class StageSpec(StageSettings):
    """One stage of training. What a spec leaves out is taken from the settings for all stages."""

    epochs: PositiveInt | None = Field(default=None, description="Passes over the training rows, in place of updates.")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.epochs is not None and self.updates is not None:
            raise mistake(f"give epochs ({self.epochs}) or updates ({self.updates}), not both; null leaves one out")
        return self

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class TrainingSpec(StageSettings):
    """Training as a whole, and by stage."""

    seed: Seed = Field(default=0, description="Seed of initial weights, order of rows and draws of z.")
    precision: Precision = Field(
        default="auto",
        description="Precision of matrix products; auto times those of wide layers on this machine and takes bf16 where it is clearly "
        "faster.",
    )
    compile: bool = Field(
        default=False, description="Whether stages are compiled by torch: ten seconds or more each, then up to 14 % faster on a CPU."
    )
    cache_features: bool = Field(default=True, description="Whether frozen features are computed once for the stage `bridges`.")
    calibrate: bool = Field(
        default=True,
        description="Whether, after training, validation rows set how widely each modality is spread about what is served, by the number "
        "of modalities given, so that intervals and probabilities are honest; with `objective: paper` false by default.",
    )
    conformal: bool = Field(
        default=False,
        description="Whether half of the validation rows are kept for split-conformal intervals, which hold at least their share of values "
        "whatever the model is worth.",
    )
    checkpoint_seconds: NonNegativeFloat = Field(default=10.0, description="Shortest time between two checkpoints.")
    stages: dict[str, StageSpec] = Field(
        default_factory=dict, validate_default=True, description="Settings by stage, of the stages that the model declares."
    )

    @field_validator("stages", mode="wrap")
    @classmethod
    def _fill(cls, value: Any, handler: Callable[[Any], dict[str, StageSpec]], info: ValidationInfo) -> dict[str, StageSpec]:
        """Gives every declared stage its settings; the names are known where a `Spec` with its model is checked.

        Stages of other models keep what a spec says of them, so that another model is one word away.
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
        """The settings of a stage, each with its value."""
        if name in self.stages:
            return self.stages[name]
        return _completed(StageSpec(), {field: getattr(self, field) for field in StageSettings.model_fields})


@functools.cache
def _stages(names: tuple[str, ...]) -> type[StrictModel]:
    """Stages by name, any of which may be left out."""
    # A field may not be called `copy`, a stage may.
    fields: dict[str, Any] = {f"stage_{name}": (StageSpec, Field(default_factory=StageSpec, alias=name)) for name in names}
    model = create_model("Stages", __base__=StrictModel, **fields)
    model.noun = "stage"
    return model


def _completed(stage: StageSpec, shared: Mapping[str, Any]) -> StageSpec:
    given = {name: getattr(stage, name) for name in sorted(stage.model_fields_set)}
    if given.get("epochs") is not None:
        # Of a budget for all stages and one for this stage, the latter counts.
        shared = {**shared, "updates": None}
    return StageSpec.model_construct(set(given), **{"epochs": None, **shared, **given})
