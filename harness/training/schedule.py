"""The learning rate of every step, the same for each trainer: a linear warm-up, then a linear decay.

Steps count from 1, so that none is wasted at a rate of 0: step k of a warm-up of w steps has k/w of the peak, and the
last of n steps has 1/(n + 1 - w) of it; 0 would be the rate of the step behind the last one.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

#: Share of the steps that warm up, rounded up to whole ones.
WARMUP = 0.06


def share_of_peak(step: int, steps: int) -> float:
    """The rate of ``step``, from 1 to ``steps``, as a share of the peak; 0 behind the last one."""
    warmup = math.ceil(WARMUP * steps)
    if step <= warmup:
        return step / warmup
    return max(0.0, (steps + 1 - step) / (steps + 1 - warmup))


def schedule(optimizer: Optimizer, steps: int) -> LambdaLR:
    """The schedule of ``steps`` optimiser steps, whose peak is the rate that ``optimizer`` has."""
    return LambdaLR(optimizer, lambda done: share_of_peak(done + 1, steps))


class Scheduled:
    """Mixin of a ``Trainer``: trains with :func:`schedule` in place of the library's own."""

    optimizer: Any
    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Called once by the ``Trainer``, after it has counted its steps."""
        if self.lr_scheduler is None:
            self.lr_scheduler = schedule(optimizer or self.optimizer, num_training_steps)
        return self.lr_scheduler
