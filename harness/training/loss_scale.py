"""The scale of a float16 loss: small gradients would vanish in that format (Micikevicius et al. 2018, section 3.2).

The loss is multiplied before the backward pass, and the gradients are divided before they are clipped. Where one is not
finite, the update is left out and the scale halved. :class:`torch.amp.GradScaler` does that; here it is joined to the
trainers, and what it leaves out is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.execution import NotActive
from harness.networks.tuned import Tuned
from harness.training.sharding import world_size

#: The scale of the first loss. PyTorch's own is 16 times that, and comes down by leaving updates out, which a short
#: training cannot spare.
FIRST = 2.0**12


class Diverged(ArithmeticError):
    """The loss is no longer a finite number, or no update could be made."""


@dataclass(frozen=True)
class Scaling:
    """How a float16 loss was scaled."""

    first: float
    last: float
    updates: int
    skipped: int
    """Updates that were left out, because a gradient was not finite."""

    @property
    def evidence(self) -> str:
        """The same in words."""
        end = "" if self.first == self.last else f", {self.last:g} at the end"
        return f"loss scale {self.first:g}{end}, {self.skipped} of {self.updates} updates left out"

    @property
    def remark(self) -> str | None:
        """What a reader of the row must know; None where every update was made."""
        return f"{self.skipped} of {self.updates} updates left out: overflow of float16" if self.skipped else None


class LossScale:
    """Scales the losses of a float16 network, and does nothing for any other."""

    def __init__(self, tuned: Tuned) -> None:
        self.is_used = tuned.base.dtype is torch.float16
        if self.is_used and world_size() > 1:
            raise NotActive("dtype: the loss of float16 is scaled in one process alone")
        self._scaler = torch.amp.GradScaler(tuned.base.device.type, init_scale=FIRST, enabled=self.is_used)
        self._scales = [self._scaler.get_scale()]  # before the first update, and after each
        self._skipped = 0
        self.just_skipped = False
        """Whether the last update was left out."""

    def backward(self, loss: torch.Tensor) -> None:
        """The backward pass of ``loss``, a scalar."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients; once before each :meth:`step`."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update, unless a gradient is not finite."""
        self._scaler.step(optimizer)
        self._scaler.update()
        self.note()

    def note(self) -> None:
        """Look whether the last update was left out: then the scale is lower than before."""
        self._scales.append(self._scaler.get_scale())
        self.just_skipped = self._scales[-1] < self._scales[-2]
        self._skipped += self.just_skipped

    @property
    def watch(self) -> list[TrainerCallback]:
        """The callback of a ``Trainer`` that calls :meth:`note`; none where the scale is not used."""
        return [_Note(self)] if self.is_used else []

    def join(self, trainer: Any) -> None:
        """Let a ``Trainer`` scale its losses; its own way needs a GPU, and would convert what the network returns."""
        if not self.is_used:
            return
        accelerator = trainer.accelerator
        accelerator.scaler = self._scaler  # scales each loss, and takes the steps of the optimiser
        accelerator.unscale_gradients = lambda *_: self.unscale(trainer.optimizer.optimizer)  # before it clips

    def outcome(self) -> Scaling | None:
        """How the losses were scaled; None where they were not. Raises :class:`Diverged` if no update was made."""
        if not self.is_used:
            return None
        scaling = Scaling(self._scales[0], self._scales[-1], len(self._scales) - 1, self._skipped)
        if scaling.skipped == scaling.updates:
            raise Diverged(f"the gradients overflow float16 in every step: {scaling.evidence}")
        return scaling


def finite(norm: float | None) -> float | None:
    """A norm of gradients; None where it is no finite number, as before an update that is left out."""
    return norm if norm is not None and math.isfinite(norm) else None


class _Note(TrainerCallback):
    """Counts the updates that a ``Trainer`` left out."""

    def __init__(self, scale: LossScale) -> None:
        self._scale = scale

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._scale.note()
        # The rate of a step follows from its number, whatever the optimiser: fused ones never tell that they skipped.
        kwargs["optimizer"]._is_overflow = False
