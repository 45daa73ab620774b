"""Gradients of a batch that is split across processes, by torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nbridge.acceleration.distributed import World
from nbridge.acceleration.shared_memory import SharedMemory
from nbridge.data.batch import Batch
from nbridge.models.base import Features
from nbridge.models.reductions import divided_by

Loss = Callable[[Batch, Features, float], dict[str, Tensor]]


def shared_loss(loss: Loss, modules: Sequence[nn.Module], world: World, *, complete: bool) -> Loss:
    """The loss of a stage with gradients averaged over all processes.

    In a mean over some rows (`nbridge.models.reductions.masked_mean`), the divisor is their total number in all processes divided by the
    number of processes, so that the mean over processes is the mean over the rows of the whole batch. A single process gets ``loss``
    unchanged. The loss is ``complete`` if every modality is present in every row, so that all processes count equally many rows.
    """
    if world.is_single:
        return loss
    shared = DistributedDataParallel(_SharedLoss(loss, modules, world, complete), gradient_as_bucket_view=True, static_graph=True)
    if world.memory and all(parameter.device.type == "cpu" for parameter in shared.parameters()):
        # A lambda, because torch inspects a hook's annotations and does not resolve strings.
        shared.register_comm_hook(world.memory, lambda memory, bucket: _mean_in_memory(memory, bucket.buffer()))
    return shared


def _mean_in_memory(memory: SharedMemory, gradients: Tensor) -> torch.futures.Future[Tensor]:
    """The mean over all processes, as the completed future that torch expects."""
    mean: torch.futures.Future[Tensor] = torch.futures.Future()
    mean.set_result(memory.add_up(gradients).div_(memory.size))
    return mean


class _SharedLoss(nn.Module):
    def __init__(self, loss: Loss, modules: Sequence[nn.Module], world: World, complete: bool) -> None:
        super().__init__()
        self.loss, self.world, self.complete = loss, world, complete
        # Parameters only: buffers are already equal, because statistics are taken over all processes.
        self.trained = nn.ParameterList(p for module in modules for p in module.parameters() if p.requires_grad)

    def forward(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:
        with nullcontext() if self.complete else divided_by(self._share_of_rows):
            return self.loss(batch, features, kl_weight)

    @torch.no_grad()
    def _share_of_rows(self, number: Tensor) -> Tensor:
        return self.world.gather(number).sum(0).clamp(min=1) / self.world.size
