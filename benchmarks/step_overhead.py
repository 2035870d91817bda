"""What the harness adds to a training step: its trainer against a bare PyTorch loop, interleaved, ratios printed.

    python benchmarks/step_overhead.py [--model smollm2-135m] [--method full] [--steps 6] [--rounds 3]

Both sides run the same model, method, batches, loss, clipping, optimiser and schedule in one process, turn by turn, so
that whatever else the machine does meets both alike. A step is the time from one step's end to the next one's: batch,
forward, backward, clipping, update, logging. The aim is a ratio of at most 1.03. The last line is what a loop pays that
computes logits for prompts too.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from harness import methods
from harness.measure.environment import synchronize
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.objectives.sft import CompletionCollator
from harness.tasks.logprobs import IGNORED
from harness.training.token_loss import token_loss
from harness.training.trainer import Loss, Settings, network_loss, train
from harness.trial import Budget

Example = dict[str, list[int]]
#: Steps at the start of each turn that pay for allocation, for the harness's counting of FLOPs and bytes.
WARMUP = 2


def examples(count: int, length: int, vocabulary: int) -> list[Example]:
    """Random token ids, the first half of each a prompt."""
    ids = torch.randint(10, vocabulary, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    return [{"input_ids": row, "labels": [IGNORED] * (length // 2) + row[length // 2 :]} for row in ids]


def batches(data: list[Example], size: int, collate: Callable[[list[Any]], Any]) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(data), size):
        yield collate(data[start : start + size])


def bare(tuned: Tuned, data: list[Example], collate: Callable[[list[Any]], Any], size: int, loss: Loss) -> list[float]:
    """Seconds of each step of a loop as one writes it by hand."""
    parameters = list(tuned.trainable.values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=len(data) // size)
    tuned.model.train()
    seconds, last = [], time.perf_counter()
    for batch in batches(data, size, collate):
        value = loss(tuned.model, {name: tensor.to(tuned.base.device) for name, tensor in batch.items()})[0]
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        value.item()
        synchronize(tuned.base.device)
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return seconds


def harness(tuned: Tuned, data: list[Example], collate: Callable[[list[Any]], Any], size: int) -> list[float]:
    """Seconds of each step of the harness, between the moments at which it tells of its progress."""
    ticks: list[float] = []
    budget = Budget(train_examples=len(data), batch_size=size)
    settings = Settings(budget, 1e-5, on_step=lambda *_: ticks.append(time.perf_counter()))
    train(tuned, data, collate, settings, loss=token_loss)
    return [later - earlier for earlier, later in itertools.pairwise(ticks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="full")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    tuned = methods.apply(given.method, load(given.model, dtype=given.dtype))
    data = examples((given.steps + WARMUP) * given.batch, given.length, tuned.base.tokenizer.vocab_size)
    collate = CompletionCollator(tuned.base.tokenizer.pad_token_id)
    ratios, gains = [], []
    for number in range(given.rounds):
        sides = {
            "bare": lambda: bare(tuned, data, collate, given.batch, token_loss),
            "harness": lambda: harness(tuned, data, collate, given.batch),
            "bare, all logits": lambda: bare(tuned, data, collate, given.batch, network_loss),
        }
        # Turned round each time: the machine's speed drifts.
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        times = {name: statistics.median(sides[name]()[WARMUP:]) for name in order}
        ratios.append(times["harness"] / times["bare"])
        gains.append(times["bare, all logits"] / times["bare"])
        shown = ", ".join(f"{name} {seconds:.4f} s" for name, seconds in times.items())
        print(f"round {number + 1}: {shown}; harness / bare {ratios[-1]:.3f}", flush=True)
    print(f"harness / bare: {statistics.median(ratios):.3f} (aim: at most 1.03)")
    print(f"all logits / logits where there is loss: {statistics.median(gains):.3f}")


if __name__ == "__main__":
    main()
