"""Training speed: the optimiser steps alone, each timed, with the tokens that it trained on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.measure.environment import synchronize
from harness.measure.flops import FlopCounter
from harness.measure.memory import gradients_bytes, optimizer_bytes

#: Steps that pay for allocation and caches and are left out of every speed (protocol, rule 6).
WARMUP_STEPS = 2


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    step: int
    """From 1."""
    seconds: float
    tokens: int
    """Tokens of the batch's examples, padding left out."""
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    slots: int | None = None
    """Tokens and padding: what the network computes on. Fewer than ``tokens`` where a row holds once what its examples
    begin with."""


@dataclass(frozen=True)
class Speed:
    """Speed of the steps after the warm-up."""

    step_s_median: float
    step_s_p95: float
    tokens_per_s: float


def speed(steps: list[Step], warmup: int = WARMUP_STEPS) -> Speed | None:
    """Median, 95th percentile and tokens per second of the steps after ``warmup``; None if none is left."""
    timed = steps[warmup:]
    if not timed:
        return None
    seconds = np.array([s.seconds for s in timed])
    return Speed(
        step_s_median=float(np.median(seconds)),
        step_s_p95=float(np.percentile(seconds, 95)),
        tokens_per_s=float(sum(s.tokens for s in timed) / seconds.sum()),
    )


def utilisation(steps: list[Step], flops_per_slot: float, peak: float, warmup: int = WARMUP_STEPS) -> float | None:
    """Model FLOPs utilisation of the steps after ``warmup``: their FLOPs per second over ``peak``.

    Chowdhery et al. 2022, arXiv:2204.02311, appendix B; the peak is this machine's measured one. None if
    no step is left.
    """
    timed = steps[warmup:]
    if not timed or any(step.slots is None for step in timed):
        return None
    slots = sum(step.slots or 0 for step in timed)
    return slots * flops_per_slot / sum(step.seconds for step in timed) / peak


class StepTimer(TrainerCallback):
    """Times every optimiser step of a Hugging Face ``Trainer``: forward, backward, clipping, update.

    Fetching the batch, logging and everything else between steps is left out. Gradients, optimiser states and FLOPs are
    counted in the first step, which no speed includes.
    """

    def __init__(self, device: torch.device, on_step: Callable[[int, int, float | None], None] | None = None) -> None:
        self._device = device
        self._on_step = on_step
        self._started = 0.0
        self._pause = 0.0
        self.seconds: list[float] = []
        self.gradients_bytes: int | None = None
        self.optimizer_bytes: int | None = None
        self.first_step: FlopCounter | None = None
        """What was counted in the first step; None before its end."""
        self._counting: FlopCounter | None = None

    @property
    def flops(self) -> int | None:
        """Of the first step; None before its end."""
        return None if self.first_step is None else self.first_step.flops

    def close(self) -> None:
        """Stop counting, also after a first step that failed."""
        if self._counting is not None:
            self._counting.__exit__(None, None, None)
            self._counting = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.first_step is None:
            self._counting = FlopCounter().__enter__()
        synchronize(self._device)
        self._pause = 0.0
        self._started = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.gradients_bytes is None:
            paused = time.perf_counter()
            self.gradients_bytes = gradients_bytes(kwargs["model"])
            self._pause = time.perf_counter() - paused

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        synchronize(self._device)
        self.seconds.append(time.perf_counter() - self._started - self._pause)
        if self._counting is not None:
            self.first_step = self._counting
            self.close()
        if self.optimizer_bytes is None:
            optimizer = kwargs["optimizer"]
            self.optimizer_bytes = optimizer_bytes(getattr(optimizer, "optimizer", optimizer))
