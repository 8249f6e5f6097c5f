"""Training on several processes at once, each on its share of every batch (torch.distributed, data parallel).

Every process holds the same replay and the same random state. It draws what a single process would draw and works on
its rows only, so that the mean of the processes' gradients is the single process's gradient.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed


class DataParallel:
    """One process's place among those that train together; by default it is alone.

    Attributes:
        rank: number of this process, from 0; the first one writes what a run leaves behind.
        world: number of processes.
        device: of this process's networks.
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        """With ``world`` above 1 the process group must be there already; see :func:`join`."""
        self.rank, self.world = rank, world
        self.device = torch.device(device)

    def shard(self, rows: int) -> slice:
        """This process's rows of a batch of ``rows``; raises ValueError where they cannot be shared out evenly."""
        share, rest = divmod(rows, self.world)
        if rest:
            raise ValueError(f"{rows} rows cannot be shared out evenly to {self.world} processes")
        return slice(self.rank * share, (self.rank + 1) * share)

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        """This process's rows ``shape`` of what one process would draw for all rows."""
        rows, *rest = shape
        everything = sample((rows * self.world, *rest))
        return everything if self.world == 1 else everything[self.rank * rows : (self.rank + 1) * rows]

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes of a tensor that needs no gradient."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.world

    def average(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Mean of the gradients over the processes, in one exchange."""
        if self.world == 1:
            return gradients
        mean = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = mean.split([gradient.numel() for gradient in gradients])
        return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]

    def figures(self, figures: dict[str, float]) -> dict[str, float]:
        """Means of the figures over the processes."""
        if self.world == 1 or not figures:
            return figures
        values = torch.tensor(list(figures.values()), device=self.device)  # NCCL takes nothing from the CPU
        return dict(zip(figures, self.mean(values).tolist(), strict=True))


def own_device(device: torch.device | str) -> torch.device:
    """The device of this process: of ``cuda`` without a number the GPU of its place among those on this machine."""
    device, place = torch.device(device), os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(place)) if device == torch.device("cuda") and place is not None else device


def join(device: torch.device | str) -> DataParallel:
    """This process's place among those that ``torchrun`` started; alone where it was not started so.

    Processes on CPUs talk through gloo, on GPUs, one for each, through NCCL. Call it before networks are made, and make
    them on its ``device``.
    """
    device, world = own_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return DataParallel(device=device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DataParallel(distributed.get_rank(), world, device)
