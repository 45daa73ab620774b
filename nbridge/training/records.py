"""The metrics of training: one record for each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class EpochRecord:
    """The metrics of one round (an epoch, or 2 % of a budget in updates): a line of ``metrics.jsonl``.

    Arguments:
        stage: Name of the stage.
        epoch: Completed passes over the rows of the stage; an integer if rounds are epochs.
        update: Completed updates of the stage.
        loss: Mean loss over the training batches of the round; the sum of ``terms``.
        terms: Its named terms.
        validation_loss: Loss over the validation rows, in eval mode with full KL weight; None without validation rows.
        validation_terms: Its named terms.
        learning_rate: Learning rate at the end of the round.
        best: Whether these are the best weights of the stage so far.
        seconds: Duration of the round.
        compile_seconds: The part of it spent on compilation; None if nothing was compiled.
        hidden: Predictive log-likelihood, in nats, of randomly hidden modalities of validation rows relative to the free baseline
            (`nbridge.inference.hidden`), as a weighted mean over modalities; None if not computed.
        hidden_terms: The same by modality.
    """

    stage: str
    epoch: float
    update: int
    loss: float
    terms: Mapping[str, float]
    validation_loss: float | None
    validation_terms: Mapping[str, float]
    learning_rate: float
    best: bool
    seconds: float
    compile_seconds: float | None = None
    hidden: float | None = None
    hidden_terms: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The record as JSON values, without entries that were not computed."""
        left_out = [name for name in ("compile_seconds", "hidden") if getattr(self, name) is None]
        left_out += [] if self.hidden_terms else ["hidden_terms"]
        return {name: value for name, value in asdict(self).items() if name not in left_out}
