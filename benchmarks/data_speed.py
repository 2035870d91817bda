"""Examples per second of supervised fine-tuning, against transformers' ``Trainer`` and TRL's ``SFTTrainer``.

    python benchmarks/data_speed.py [--task e2e_nlg] [--examples 64] [--rounds 5]

All sides train LoRA on the same examples of the task with the same batch size in one process, turn by turn, so that
whatever else the machine does meets each alike. The others keep their defaults: batches drawn at random, logits of
every token. Two defaults of TRL are off, because they would slow it down on a CPU: bfloat16 and checkpointing of
activations. Ratios are medians over the rounds, with the lowest and the highest; the first step of a run and the first
round do not count. At the end the ``Trainer`` gets the harness's own batches and rates, and the losses are compared.
Aims: 1.7 times the ``Trainer``, 2.0 times the ``SFTTrainer``, and packing no slower than padding.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import datasets
import trl
from transformers import PrinterCallback, Trainer, TrainingArguments

from harness import methods, objectives
from harness.measure.training import StepTimer
from harness.models.load import Base, load
from harness.objectives.sft import CompletionCollator, training_example
from harness.tasks import data as tasks
from harness.tasks.data import TaskData
from harness.tasks.encode import encode_examples, prompt_text
from harness.training.batches import SimilarLengths
from harness.training.schedule import Scheduled
from harness.training.trainer import History, Settings
from harness.trial import Budget

RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Work:
    """What every side trains on."""

    base: Base
    data: TaskData
    budget: Budget
    seed: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The examples as the harness encodes them."""
        encoded = encode_examples(
            self.base.tokenizer, self.data.train, self.budget.max_length, self.data.spec.max_new_tokens
        )
        return [training_example(one) for one in encoded]

    @property
    def network(self) -> Any:
        """A fresh network with LoRA on every linear layer."""
        return methods.apply("lora", self.base, r=8).model

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Arguments of the other trainers: their defaults, and no files, reports or bars."""
        return {
            "output_dir": tempfile.gettempdir(),
            "per_device_train_batch_size": self.budget.batch_size,
            "num_train_epochs": 1,
            "learning_rate": RATE,
            "seed": self.seed,
            "use_cpu": self.base.device.type == "cpu",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "logging_steps": 1,
            **more,
        }


def harness(work: Work, packing: bool = False) -> History:
    """The harness's own training."""
    tuned = methods.apply("lora", work.base, r=8)
    return objectives.fit("sft", tuned, work.data, Settings(work.budget, RATE, work.seed), packing=packing)


def seconds_of(trainer: Trainer, timer: StepTimer) -> list[float]:
    """Seconds of each step of ``trainer``."""
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        timer.close()
    return timer.seconds


def transformers_trainer(work: Work) -> list[float]:
    """Seconds of each step of transformers' trainer."""
    timer = StepTimer(work.base.device)
    trainer = Trainer(
        model=work.network,
        args=TrainingArguments(**work.arguments(remove_unused_columns=False)),
        train_dataset=work.rows,
        data_collator=CompletionCollator(work.base.tokenizer.pad_token_id),
        callbacks=[timer],
    )
    return seconds_of(trainer, timer)


def trl_trainer(work: Work) -> list[float]:
    """Seconds of each step of TRL's trainer, which tokenises by itself before it starts."""
    tokenizer, timer = work.base.tokenizer, StepTimer(work.base.device)
    texts = [{"prompt": prompt_text(tokenizer, e.prompt), "completion": e.completion} for e in work.data.train]
    trainer = trl.SFTTrainer(
        model=work.network,
        args=trl.SFTConfig(
            **work.arguments(bf16=False, gradient_checkpointing=False, max_length=work.budget.max_length)
        ),
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=tokenizer,
        callbacks=[timer],
    )
    return seconds_of(trainer, timer)


class _SameRates(Scheduled, Trainer):
    """transformers' trainer with the harness's learning rates."""


def loss_difference(work: Work) -> float:
    """The largest difference of a step's loss between the harness and transformers' trainer on the same batches."""
    rows = work.rows
    order = SimilarLengths([len(row["input_ids"]) for row in rows], work.budget.batch_size, work.seed)
    trainer = _SameRates(
        model=work.network,
        args=TrainingArguments(**work.arguments(remove_unused_columns=False, train_sampling_strategy="sequential")),
        train_dataset=[rows[place] for place in order],
        data_collator=CompletionCollator(work.base.tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return max(abs(float(a) - float(b)) for a, b in zip(harness(work).losses, theirs, strict=True))


Side = Callable[[Work], list[float]]
OURS, PACKED, TRAINER, SFT_TRAINER = "harness", "harness, packed", "transformers Trainer", "TRL SFTTrainer"
SIDES: dict[str, Side] = {
    OURS: lambda work: [step.seconds for step in harness(work).steps],
    PACKED: lambda work: [step.seconds for step in harness(work, packing=True).steps],
    TRAINER: transformers_trainer,
    SFT_TRAINER: trl_trainer,
}


def measured(work: Work, rounds: int) -> dict[str, list[float]]:
    """Examples per second of every side in each round; every round has an order of its own."""
    speeds: dict[str, list[float]] = {name: [] for name in SIDES}
    for number in range(rounds + 1):
        for name, side in SIDES.items():
            seconds = side(dataclasses.replace(work, seed=number))
            if number:
                speeds[name].append(work.budget.batch_size * len(seconds[1:]) / sum(seconds[1:]))
    return speeds


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Print examples per second, the ratios, padding, and the difference of the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="e2e_nlg")
    parser.add_argument("--examples", type=int, default=64, help="a multiple of the batch size")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.examples % options.batch_size or options.examples < 2 * options.batch_size:
        parser.error(f"--examples: {options.examples} is no multiple of the batch size with two steps or more")
    budget = Budget(
        train_examples=options.examples, batch_size=options.batch_size, max_length=options.max_length, eval_examples=4
    )
    base = load(options.model, dtype="float32", device="auto", seed=0)
    work = Work(base, tasks.load(options.task, budget, 0), budget, 0)
    speeds = measured(work, options.rounds)
    print(f"{len(work.data.train)} examples of {options.task}, {options.model}, batches of {options.batch_size}")
    for name, values in speeds.items():
        print(f"{name:22} {spread(values)} examples/s")
    for ours, theirs in ((OURS, TRAINER), (OURS, SFT_TRAINER), (PACKED, OURS)):
        ratios = [a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True)]
        print(f"{ours} / {theirs}: {spread(ratios)}")
    history = harness(work)
    print(f"padding of the harness's batches: {history.padding_share or 0:.1%}")
    print(f"largest difference of a loss on the same batches: {loss_difference(work):.1e}")


if __name__ == "__main__":
    main()
