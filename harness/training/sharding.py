"""Adapt a ``Trainer`` for several processes that train together."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed, nn

from harness.tasks.logprobs import Batch
from harness.training.accumulation import learnt


def world_size() -> int:
    """How many processes train together, as ``torch.distributed.run`` tells each of them; 1 without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


class Sharding:
    """Mixin of a ``Trainer``: with several processes, every layer is sharded among them (FSDP2)."""

    model: nn.Module
    accelerator: Any

    def create_accelerator_and_postprocess(self) -> None:
        """Do as the ``Trainer`` does, then set up FSDP on any device.

        accelerate knows no FSDP on CPUs, but torch has it. The notes that accelerate makes for GPUs are made here for
        both.
        """
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if world_size() > 1:
            state = self.accelerator.state
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2,
                auto_wrap_policy="transformer_based_wrap",
                transformer_cls_names_to_wrap=layer_classes(self.model),
            )
            self.is_fsdp_enabled = True


def weight_of_this_part(batch: Batch) -> torch.Tensor:
    """The factor for the mean loss of this process's part of a batch.

    With it, the mean over the processes is the mean over all that the whole batch learns.
    """
    here = learnt(batch)
    everywhere = here.clone()
    distributed.all_reduce(everywhere)
    return here * world_size() / everywhere


def layer_classes(model: nn.Module) -> list[str]:
    """Names of the classes of the layers that repeat."""
    whole = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    count = Counter(type(module).__name__ for module in model.modules())
    return sorted(name for name in whole if count[name] > 1)
