"""Examples per second of supervised fine-tuning, against transformers' ``Trainer`` and TRL's ``SFTTrainer``.

    python benchmarks/data_speed.py [--task e2e_nlg] [--examples 64] [--rounds 5] [--sides "harness, packed" …]

All sides train LoRA on the same examples of the task with the same batch size in one process, turn by turn, so that
whatever else the machine does meets each alike. The others keep their defaults: batches drawn at random, logits of
every token. Two defaults of TRL are off, because they would slow it down on a CPU: bfloat16 and checkpointing of
activations. The harness trains in its three ways: padded, packed, and packed with what the prompts begin with read once
(``execution.shared_prompts``). A bare loop over packed rows shows what no trainer around the network can beat there;
the losses of all these are the same. Ratios are medians over the rounds, with the lowest and the highest, by the clock
and by processor time, since the clock of a busy machine says little. The first step of a run and the first round do not
count. At the end the ``Trainer`` gets the harness's own batches and rates, and the losses are compared.

Aims: 1.7 times the ``Trainer``, 2.0 times the ``SFTTrainer``, and packing no slower than padding. What batches can give
has a bound, which is printed: the products that the ``Trainer``'s batches need over those of the tokens alone, with
logits where something is learnt. Behind it stands the bound where a batch also reads once what its examples all begin
with, such as a chat's system message and the instruction.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
import trl
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from harness import methods, objectives
from harness.execution import Execution
from harness.models.load import Base, load
from harness.objectives.sft import CompletionCollator, training_example
from harness.tasks import data as tasks
from harness.tasks.data import TaskData
from harness.tasks.encode import encode_examples, prompt_text
from harness.tasks.logprobs import IGNORED
from harness.training.batches import SimilarLengths
from harness.training.packing import PackingCollator, by_example, common_beginning, packed_loss
from harness.training.schedule import Scheduled
from harness.training.trainer import History, Settings
from harness.trial import Budget

RATE = 1e-3
PADDED = Execution()
PACKING = Execution(packing=True)
SHARING = Execution(packing=True, shared_prompts=True)
#: Orders of the examples whose random batches are averaged.
ORDERS = 100

#: Seconds by the clock and of the processors, when a step ended.
Moment = tuple[float, float]


def now() -> Moment:
    """This moment."""
    return time.perf_counter(), time.process_time()


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


def harness(work: Work, how: Execution = PADDED, on_step: Callable[..., None] | None = None) -> History:
    """The harness's own training."""
    tuned = methods.apply("lora", work.base, r=8)
    return objectives.fit("sft", tuned, work.data, Settings(work.budget, RATE, work.seed, how, on_step))


def harness_moments(work: Work, how: Execution = PADDED) -> list[Moment]:
    """Ends of the steps of the harness's training."""
    ends: list[Moment] = []
    harness(work, how, lambda *_: ends.append(now()))
    return ends


def bare_loop(work: Work) -> list[Moment]:
    """Ends of the steps of a plain loop over the harness's batches, packed: no trainer, nothing counted or reported."""
    tuned, rows, size = methods.apply("lora", work.base, r=8), work.rows, work.budget.batch_size
    order = list(SimilarLengths([len(row["input_ids"]) for row in rows], size, work.seed))
    weights = list(tuned.trainable.values())
    optimizer, ends = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True), []
    tuned.model.train()
    with by_example(tuned, work.budget.max_length):
        for start in range(0, len(order), size):
            batch = PackingCollator()([rows[place] for place in order[start : start + size]])
            packed_loss(tuned.model, {name: value.to(work.base.device) for name, value in batch.items()})[0].backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ends.append(now())
    return ends


class _Ends(TrainerCallback):
    """Ends of the steps of a ``Trainer``: it reads each loss, so that an accelerator is done when it logs."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.moments.append(now())


def moments_of(trainer: Trainer) -> list[Moment]:
    """Ends of the steps of ``trainer``."""
    ends = _Ends()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ends)
    trainer.train()
    return ends.moments


def transformers_trainer(work: Work) -> list[Moment]:
    """Ends of the steps of transformers' trainer."""
    return moments_of(
        Trainer(
            model=work.network,
            args=TrainingArguments(**work.arguments(remove_unused_columns=False)),
            train_dataset=work.rows,
            data_collator=CompletionCollator(work.base.tokenizer.pad_token_id),
        )
    )


def trl_trainer(work: Work) -> list[Moment]:
    """Ends of the steps of TRL's trainer, which tokenises by itself before it starts.

    Raises :class:`ValueError` if it has other tokens than the harness.
    """
    tokenizer = work.base.tokenizer
    texts = [{"prompt": prompt_text(tokenizer, e.prompt), "completion": e.completion} for e in work.data.train]
    trainer = trl.SFTTrainer(
        model=work.network,
        args=trl.SFTConfig(
            **work.arguments(bf16=False, gradient_checkpointing=False, max_length=work.budget.max_length)
        ),
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    theirs, ours = (sum(len(row["input_ids"]) for row in rows) for rows in (trainer.train_dataset, work.rows))
    if theirs != ours:
        raise ValueError(f"TRL reads {theirs} tokens of the same examples, the harness {ours}")
    return moments_of(trainer)


class _SameRates(Scheduled, Trainer):
    """transformers' trainer with the harness's learning rates."""


def loss_difference(work: Work) -> float:
    """The largest difference of a step's loss between transformers' trainer and any way of the harness.

    Batches are the same.
    """
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
    every = [harness(work, how).losses for how in (PADDED, PACKING, SHARING)]
    return max(abs(float(a) - float(b)) for losses in every for a, b in zip(losses, theirs, strict=True))


Side = Callable[[Work], list[Moment]]
OURS, PACKED, SHARED, BARE = "harness", "harness, packed", "harness, shared prompts", "bare loop, packed"
TRAINER, SFT_TRAINER = "transformers Trainer", "TRL SFTTrainer"
SIDES: dict[str, Side] = {
    OURS: harness_moments,
    PACKED: lambda work: harness_moments(work, PACKING),
    SHARED: lambda work: harness_moments(work, SHARING),
    BARE: bare_loop,
    TRAINER: transformers_trainer,
    SFT_TRAINER: trl_trainer,
}
COMPARED = (
    (OURS, TRAINER), (OURS, SFT_TRAINER), (PACKED, TRAINER), (PACKED, SFT_TRAINER), (SHARED, TRAINER),
    (SHARED, SFT_TRAINER), (PACKED, OURS), (SHARED, PACKED), (BARE, TRAINER)
)  # fmt: skip


def measured(work: Work, rounds: int, sides: Sequence[str]) -> dict[str, list[Moment]]:
    """Examples per second of the clock, and of the processors, of each side in each round with an order of its own."""
    speeds: dict[str, list[Moment]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sides:
            ends = SIDES[name](dataclasses.replace(work, seed=number))
            if number:
                examples = work.budget.batch_size * (len(ends) - 1)
                wall_s, processor_s = (last - first for first, last in zip(ends[0], ends[-1], strict=True))
                speeds[name].append((examples / wall_s, examples / processor_s))
    return speeds


def bounds(work: Work) -> tuple[float, float]:
    """How many times the products of the ``Trainer``'s batches are those of the tokens alone, with logits where needed.

    The second is that of the same batches if what all examples of one begin with were read once. Attention, a
    hundredth, is left out.
    """
    rows, size, model = work.rows, work.budget.batch_size, work.base.skeleton()
    lengths = [len(row["input_ids"]) for row in rows]
    learnt = sum(label != IGNORED for row in rows for label in row["labels"])
    head = model.get_output_embeddings().weight.numel()
    embedded = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    body = sum(p.numel() for p in model.parameters() if id(p) not in embedded)

    def batches(order: Sequence[int]) -> list[list[int]]:
        return [list(order[start : start + size]) for start in range(0, len(order), size)]

    def repeated(batch: list[int]) -> int:
        return (len(batch) - 1) * common_beginning([rows[place] for place in batch])

    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(rows), generator=generator).tolist() for _ in range(ORDERS)]
    drawn = [batch for order in orders for batch in batches(order)]
    slots = sum(len(batch) * max(lengths[place] for place in batch) for batch in drawn) / ORDERS
    theirs = slots * (body + head)
    once = sum(lengths) - sum(map(repeated, batches(list(SimilarLengths(lengths, size, work.seed)))))
    return theirs / (sum(lengths) * body + learnt * head), theirs / (once * body + learnt * head)


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Print examples per second, the ratios and their bounds, padding, and the difference of the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="e2e_nlg")
    parser.add_argument("--examples", type=int, default=64, help="a multiple of the batch size")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="what takes part; default: all")
    options = parser.parse_args()
    if options.examples % options.batch_size or options.examples < 2 * options.batch_size:
        parser.error(f"--examples: {options.examples} is no multiple of the batch size with two steps or more")
    budget = Budget(
        train_examples=options.examples, batch_size=options.batch_size, max_length=options.max_length, eval_examples=4
    )
    base = load(options.model, dtype="float32", device="auto", seed=0)
    work = Work(base, tasks.load(options.task, budget, 0), budget, 0)
    speeds = measured(work, options.rounds, options.sides)
    print(f"{len(work.data.train)} examples of {options.task}, {options.model}, batches of {options.batch_size}")
    for name, values in speeds.items():
        by_clock, by_processors = zip(*values, strict=True)
        print(f"{name:23} {spread(by_clock)} examples/s, {spread(by_processors)} for each second of a processor")
    for ours, theirs in (pair for pair in COMPARED if {*pair} <= {*options.sides}):
        pairs = zip(speeds[ours], speeds[theirs], strict=True)
        by_clock, by_processors = zip(*((a[0] / b[0], a[1] / b[1]) for a, b in pairs), strict=True)
        print(f"{ours} / {theirs}: {spread(by_clock)}, by processor time {spread(by_processors)}")
    tokens_alone, read_once = bounds(work)
    print(f"products of {TRAINER} / those of tokens and learnt logits alone: {tokens_alone:.2f}, the bound of batching")
    print(f"the same if what all examples of a batch begin with is read once: {read_once:.2f}")
    history = harness(work)
    print(f"padding of the harness's batches: {history.padding_share or 0:.1%}")
    print(f"largest difference of a loss on the same batches: {loss_difference(work):.1e}")


if __name__ == "__main__":
    main()
