"""Shared by the objectives: one set of training arguments, one trainer, one history."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.execution import Execution
from harness.measure.energy import energy
from harness.measure.memory import peak_memory, saved_activations, weights_bytes
from harness.measure.processors import processors
from harness.measure.training import Step, StepTimer
from harness.networks.tuned import Tuned
from harness.tasks.logprobs import Batch
from harness.training import optimizers
from harness.training.accumulation import InParts, Weigh, learnt
from harness.training.cacheless import cacheless
from harness.training.checkpointing import checkpointing
from harness.training.compiling import Compilation, compiled
from harness.training.drawing import loss_curve, loss_finding
from harness.training.loss_scale import Diverged as Diverged
from harness.training.loss_scale import LossScale, Scaling, finite
from harness.training.loss_trainer import Counting as Counting
from harness.training.loss_trainer import Loss as Loss
from harness.training.loss_trainer import LossTrainer
from harness.training.proof import Proof, first_step, require
from harness.training.sharding import world_size
from harness.trial import Budget

#: Entries of a trainer's log that :class:`harness.measure.training.Step` holds, or that say nothing.
_COLUMNS_OF_STEPS = frozenset(
    {"loss", "grad_norm", "learning_rate", "step", "epoch", "num_tokens", "num_input_tokens_seen"}
)


@dataclass(frozen=True)
class Settings:
    """How to train: the budget, the same for every method, and the learning rate of the method."""

    budget: Budget
    learning_rate: float
    seed: int = 0
    execution: Execution = field(default_factory=Execution)
    on_step: Callable[[int, int, float | None], None] | None = field(default=None, compare=False)
    """Called with (step, steps, loss) after each step: live progress."""


@dataclass(frozen=True)
class Point:
    """One value of a training curve that belongs to the objective, such as a reward margin."""

    step: int
    """From 1."""
    metric: str
    value: float
    split: str = "train"


@dataclass(frozen=True)
class History:
    """The course of a training run: its steps, memory, time and energy."""

    steps: tuple[Step, ...]
    train_s: float
    """Wall time of the whole call with its preparation; never used for speeds."""
    peak_train_bytes: int | None
    weights_bytes: int
    gradients_bytes: int | None
    optimizer_bytes: int | None
    activations_bytes: int | None
    first_step_flops: int | None = None
    energy_j: float | None = None
    energy_reason: str | None = None
    """Why ``energy_j`` is missing."""
    peak_reserved_bytes: int | None = None
    process_bytes: int | None = None
    """The memory that the GPU driver counts for this process at the end; None on CPU."""
    processor_share: float | None = None
    """:attr:`harness.measure.processors.Processors.share` of the training."""
    curves: tuple[Point, ...] = ()
    """The curves of the objective beside the loss."""
    cut_share: float | None = None
    """Share of the training examples that lost tokens to ``max_length``; None: not known."""
    first_step_repeated_flops: int | None = None
    """Those of ``first_step_flops`` that the backward pass computed again, because they were not kept."""
    compile_s: float | None = None
    """Seconds of compilation, before the first step; None without it."""
    proof: Proof | None = None
    """How the first step ran; None where the objective has a trainer of its own."""
    scaling: Scaling | None = None
    """How the loss was scaled; None in other formats than float16."""

    def __repr__(self) -> str:
        """Where the loss began and ended, and how long it took."""
        return f"{loss_finding(self.losses)}, {self.train_s:.1f} s" if self.steps else "nothing was trained"

    def _repr_png_(self) -> bytes | None:
        """The loss curve for Jupyter."""
        return loss_curve(self.losses) if self.steps else None

    @property
    def losses(self) -> list[float]:
        """Training loss after each step."""
        return [s.loss for s in self.steps]

    @property
    def padding_share(self) -> float | None:
        """Share of padding among all that the network read in training; None where its batches were not counted."""
        slots = [step.slots for step in self.steps if step.slots is not None]
        if not slots or len(slots) < len(self.steps):
            return None
        # A packed row has no padding, and may have fewer tokens than its examples have together.
        return max(0.0, 1 - sum(step.tokens for step in self.steps) / sum(slots))

    @property
    def repeated_share(self) -> float | None:
        """Share of a step's FLOPs that only repeat earlier ones."""
        if not self.first_step_flops or self.first_step_repeated_flops is None:
            return None
        return self.first_step_repeated_flops / self.first_step_flops

    @property
    def flops_per_slot(self) -> float | None:
        """FLOPs for each token or padding of a batch, from the first step's count."""
        if not self.steps or self.first_step_flops is None or not self.steps[0].slots:
            return None
        return self.first_step_flops / self.steps[0].slots

    def curve(self, metric: str, split: str = "train") -> list[float]:
        """The values of one metric of :attr:`curves`, in step order."""
        return [point.value for point in self.curves if (point.metric, point.split) == (metric, split)]


def training_arguments(tuned: Tuned, settings: Settings, **overrides: Any) -> dict[str, Any]:
    """Every setting that matters, written out: library defaults differ and change.

    AdamW without weight decay, gradients clipped at norm 1, no mixed precision of the trainer's own
    (:mod:`harness.networks.precision` sees to it, for every method alike); checkpointing of activations and parts of a
    batch are not its matter either. The rates of the steps are :mod:`harness.training.schedule`'s. Processes that train
    together share each batch.
    """
    budget = settings.budget
    return {
        "output_dir": tempfile.gettempdir(),
        "per_device_train_batch_size": budget.batch_size // world_size(),
        "gradient_accumulation_steps": 1,
        "num_train_epochs": budget.epochs,
        "learning_rate": settings.learning_rate,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": optimizers.choose(tuned, settings.execution),
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


class _LossWatch(TrainerCallback):
    """Reports the loss as progress, and stops a run whose loss is no longer finite."""

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


class _Prove(TrainerCallback):
    """Looks at how the first step ran, and stops a run that is not the one that was asked for."""

    def __init__(self, look: Callable[[Any], Proof], execution: Execution, number_format: str) -> None:
        self._look = look
        self._execution = execution
        self._number_format = number_format
        self.proof: Proof | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.proof is None:
            self.proof = self._look(kwargs["optimizer"])
            require(self._execution, self._number_format, self.proof)


class _AfterStep(TrainerCallback):
    """Lets the method act between an optimiser step and the clearing of the gradients; not where none was taken."""

    def __init__(self, act: Callable[[int], None], scale: LossScale) -> None:
        self._act = act
        self._scale = scale

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self._scale.just_skipped:
            self._act(state.global_step + 1)


def network_loss(model: Any, batch: Batch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """The loss that the network itself computes from ``labels``."""
    return model(**batch).loss, {}


def loss_of(tuned: Tuned, loss: Loss) -> Loss:
    """The loss for ``tuned``: the method's own if it has one, else ``loss`` plus the method's term."""
    own, term = tuned.own_loss, tuned.loss_term
    if own is not None:
        return lambda model, batch: (own(model, batch), {})
    if term is None or loss is network_loss:
        return loss

    def both(model: Any, batch: Batch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        value, seen = loss(model, batch)
        return value + term(), seen

    return both


def activations_bytes(tuned: Tuned, batch: Batch, loss: Loss = network_loss) -> int:
    """Bytes that one forward pass keeps for backward: a probe before training, apart from every timed step.

    The state of the random numbers is restored.
    """
    devices = [tuned.base.device] if tuned.base.device.type == "cuda" else []
    tuned.model.train()
    with torch.random.fork_rng(devices=devices), saved_activations(tuned.model) as saved:
        value = loss(tuned.model, {name: tensor.to(tuned.base.device) for name, tensor in batch.items()})
    saved_bytes = saved.bytes
    del value
    return saved_bytes


def train(
    tuned: Tuned,
    examples: Sequence[Mapping[str, Any]],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    settings: Settings,
    loss: Loss = network_loss,
    ordered: bool = False,
    lengths: Sequence[int] | None = None,
    cut: Sequence[bool] | None = None,
    weigh: Weigh = learnt,
    token_loss: str | None = None,
) -> History:
    """Train ``tuned`` in place on ``examples``; leaves it in evaluation mode.

    ``ordered`` keeps the order of the examples instead of shuffling them; ``lengths``, the tokens of each, let batches
    have examples of similar length (:class:`harness.training.batches.SimilarLengths`). ``cut`` says of each whether it
    lost tokens, ``weigh`` how much of what a batch learns is in a part of it; ``token_loss`` names the way in which
    ``loss`` computes the cross-entropy of tokens. Raises :class:`Diverged` if the loss is not finite, and
    :class:`harness.execution.NotActive` if the run is not the one that the settings ask for.
    """
    loss = loss_of(tuned, loss)
    parts = settings.execution.accumulation
    # What fits into memory is a part of a batch: the probe must not need more than a step.
    probe = collate(list(examples[: max(1, settings.budget.batch_size // parts)]))

    def make(callbacks: list[TrainerCallback]) -> LossTrainer:
        trainer = LossTrainer(
            model=tuned.model,
            args=TrainingArguments(**training_arguments(tuned, settings)),
            train_dataset=list(examples),
            data_collator=collate if parts == 1 else InParts(collate, parts),
            callbacks=callbacks,
        )
        trainer.objective_loss, trainer.weigh, trainer.ordered, trainer.lengths = loss, weigh, ordered, lengths
        trainer._seen = {}
        return trainer

    with cacheless(tuned), checkpointing(tuned, settings.execution.gradient_checkpointing):
        activations = activations_bytes(tuned, probe, loss)
        placed = {name: tensor.to(tuned.base.device) for name, tensor in probe.items()}
        with compiled(tuned, settings.execution.compile, lambda: loss(tuned.model, placed)[0]) as compilation:
            named = None if tuned.own_loss else token_loss
            return run(tuned, make, settings, activations, cut, named, compilation)


def run(
    tuned: Tuned,
    make: Callable[[list[TrainerCallback]], Any],
    settings: Settings,
    activations: int | None,
    cut: Sequence[bool] | None = None,
    token_loss: str | None = None,
    compilation: Compilation | None = None,
) -> History:
    """Run the trainer that ``make`` builds around the given callbacks; time and measure it.

    The trainer is :class:`Counting` and :class:`harness.training.schedule.Scheduled`. Raises as :func:`train` does.
    """
    start = time.perf_counter()
    device = tuned.base.device
    weights = weights_bytes(tuned.model)
    timer = StepTimer(device)
    scale = LossScale(tuned)
    method_acts = [] if tuned.after_step is None else [_AfterStep(tuned.after_step, scale)]

    def look(optimizer: Any) -> Proof:
        assert timer.first_step is not None  # noqa: S101  (the timer's end of the step comes first)
        return first_step(tuned, timer.first_step, optimizer, trainer.first_batch, token_loss, compilation)

    prove = _Prove(look, settings.execution, tuned.base.number_format)
    # What a method does after a step depends on whether there was one, so the scale looks first.
    trainer = make([timer, prove, _LossWatch(settings.on_step), *scale.watch, *method_acts])
    scale.join(trainer)
    for unwanted in ("PrinterCallback", "ProgressCallback", "NotebookProgressCallback"):
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ == unwanted:
                trainer.remove_callback(callback)
    trainer.batch_tokens, trainer.batch_slots = [], []
    try:
        with peak_memory(device) as peak, energy(device) as used, processors() as got:
            trainer.train()
    finally:
        timer.close()
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
                grad_norm=finite(log.get("grad_norm")),
                slots=slots or None,
            )
            for number, (seconds, tokens, slots, log) in enumerate(
                zip(timer.seconds, trainer.batch_tokens, trainer.batch_slots, logs, strict=True), start=1
            )
        ),
        train_s=time.perf_counter() - start,
        peak_train_bytes=peak.bytes,
        weights_bytes=weights,
        gradients_bytes=timer.gradients_bytes,
        optimizer_bytes=timer.optimizer_bytes,
        activations_bytes=activations,
        first_step_flops=timer.flops,
        first_step_repeated_flops=None if timer.first_step is None else timer.first_step.repeated_flops,
        compile_s=None if compilation is None else compilation.seconds,
        proof=prove.proof,
        scaling=scale.outcome(),
        energy_j=used.joules,
        energy_reason=used.reason,
        peak_reserved_bytes=peak.reserved_bytes,
        process_bytes=peak.process_bytes,
        processor_share=got.share,
        curves=tuple(
            Point(log["step"], name, float(value))
            for log in logs
            for name, value in log.items()
            if name not in _COLUMNS_OF_STEPS and isinstance(value, (int, float))
        ),
        cut_share=share(cut),
    )


def share(flags: Sequence[bool] | None) -> float | None:
    """Share of true ``flags``; None without any."""
    return sum(flags) / len(flags) if flags else None
