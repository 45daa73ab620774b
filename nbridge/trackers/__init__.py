"""Trackers of experiments: callbacks that write what training reports to TensorBoard, MLflow or Weights & Biases.

Each imports its package when it is first used.
"""

from nbridge.trackers.mlflow import MLflow
from nbridge.trackers.tensorboard import TensorBoard
from nbridge.trackers.tracker import Tracker
from nbridge.trackers.wandb import WandB

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WandB"]

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""The trackers by the name of ``--log``."""
