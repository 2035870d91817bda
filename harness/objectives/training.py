"""What the objectives share: one set of training arguments, one trainer, one history."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.measure.memory import peak_memory, saved_activations, weights_bytes
from harness.measure.training import Step, StepTimer
from harness.methods.tuned import Tuned
from harness.trial import Budget

Batch = Mapping[str, torch.Tensor]


class Diverged(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Settings:
    """How to train: the budget, which is the same for every method, and the learning rate, which is the method's."""

    budget: Budget
    learning_rate: float
    seed: int = 0
    on_step: Callable[[int, int, float | None], None] | None = field(default=None, compare=False)
    """Called with (step, steps, loss) after each step: live progress."""


@dataclass(frozen=True)
class History:
    """What a training run was like."""

    steps: tuple[Step, ...]
    train_s: float
    """Wall time of the whole call, preparation included; never used for speeds."""
    peak_train_bytes: int | None
    weights_bytes: int
    gradients_bytes: int | None
    optimizer_bytes: int | None
    activations_bytes: int | None

    @property
    def losses(self) -> list[float]:
        """Training loss after each step."""
        return [s.loss for s in self.steps]


def training_arguments(tuned: Tuned, settings: Settings, **overrides: Any) -> dict[str, Any]:
    """Every setting that matters, written out: library defaults differ and change.

    AdamW without weight decay, linear decay after a warm-up of 6 % of the steps, gradients clipped at norm 1, no mixed
    precision (the arithmetic is the weights' own), no checkpointing of activations.
    """
    budget = settings.budget
    return {
        "output_dir": tempfile.gettempdir(),
        "per_device_train_batch_size": budget.batch_size,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": budget.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": math.ceil(0.06 * budget.train_steps),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": tuned.base.device.type == "cpu",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": tuned.base.device.type != "cpu",
        "remove_unused_columns": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **overrides,
    }


class _Watch(TrainerCallback):
    """Tells the progress, and stops a run whose loss is no longer finite."""

    def __init__(self, on_step: Callable[[int, int, float | None], None] | None) -> None:
        self._on_step = on_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {state.global_step} of {state.max_steps}")
        if self._on_step is not None:
            self._on_step(state.global_step, state.max_steps, loss)


class _TimedTrainer(Trainer):
    """A ``Trainer`` that counts the real tokens of each batch and leaves the printing to the notebook."""

    batch_tokens: list[torch.Tensor]
    control: TrainerControl

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Kept as a tensor: reading it here would make an accelerator wait.
        self.batch_tokens.append(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)


def _activations_bytes(tuned: Tuned, batch: Batch) -> int:
    """Probe of one forward pass, before training and apart from every timed step; its random numbers are given back."""
    devices = [tuned.base.device] if tuned.base.device.type == "cuda" else []
    tuned.model.train()
    with torch.random.fork_rng(devices=devices), saved_activations(tuned.model) as saved:
        loss = tuned.model(**{name: value.to(tuned.base.device) for name, value in batch.items()}).loss
    kept = saved.bytes
    del loss
    return kept


def train(
    tuned: Tuned,
    examples: Sequence[Mapping[str, Any]],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    settings: Settings,
) -> History:
    """Train ``tuned`` in place with its model's own loss on ``examples``; leaves it in evaluation mode.

    Raises :class:`Diverged` when the loss is not finite.
    """
    start = time.perf_counter()
    device = tuned.base.device
    weights = weights_bytes(tuned.model)
    activations = _activations_bytes(tuned, collate(list(examples[: settings.budget.batch_size])))
    timer = StepTimer(device)
    trainer = _TimedTrainer(
        model=tuned.model,
        args=TrainingArguments(**training_arguments(tuned, settings)),
        train_dataset=list(examples),
        data_collator=collate,
        callbacks=[timer, _Watch(settings.on_step)],
    )
    for unwanted in ("PrinterCallback", "ProgressCallback", "NotebookProgressCallback"):
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ == unwanted:
                trainer.remove_callback(callback)
    trainer.batch_tokens = []
    with peak_memory(device) as peak:
        trainer.train()
    tuned.model.eval()
    tuned.model.zero_grad(set_to_none=True)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return History(
        steps=tuple(
            Step(
                step=number,
                seconds=seconds,
                tokens=int(tokens),
                loss=log["loss"],
                learning_rate=log.get("learning_rate"),
                grad_norm=log.get("grad_norm"),
            )
            for number, (seconds, tokens, log) in enumerate(
                zip(timer.seconds, trainer.batch_tokens, logs, strict=True), start=1
            )
        ),
        train_s=time.perf_counter() - start,
        peak_train_bytes=peak.bytes,
        weights_bytes=weights,
        gradients_bytes=timer.gradients_bytes,
        optimizer_bytes=timer.optimizer_bytes,
        activations_bytes=activations,
    )
