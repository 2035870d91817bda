"""What measuring adds to the steps that are measured: the harness's trainer with and without it, interleaved.

    python benchmarks/measure_overhead.py [--model smollm2-135m] [--method lora] [--steps 8] [--rounds 5]

Both sides are the same trainer with the same model, batches and loss in one process, turn by turn. One has everything
that the harness measures while it trains: the clock around each step, tokens, energy, peaks, and in the first step
FLOPs, gradients and optimiser states. The other has none of it. The first two steps of each turn are left out, as
in every speed that the harness reports. The aim is a ratio of at most 1.01; a machine that does other things is too
noisy for the ratio, so the time inside the measuring code is counted too, as a share of the steps.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from step_overhead import WARMUP, Example, examples

from harness import methods
from harness.measure.energy import Energy
from harness.measure.memory import Peak
from harness.measure.training import StepTimer
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.objectives.sft import CompletionCollator
from harness.tasks.logprobs import Batch
from harness.training import trainer as training
from harness.training.token_loss import token_loss
from harness.trial import Budget


class Blind(StepTimer):
    """Measures nothing; a history needs as many entries as there were steps."""

    def on_step_begin(self, *_: object, **__: object) -> None:
        pass

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        pass

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds.append(0.0)


def no_count(trainer: training.Counting, inputs: Batch) -> None:
    trainer.batch_tokens.append(torch.tensor(0))
    trainer.batch_slots.append(0)


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Train without measuring."""
    with (
        mock.patch.object(training, "StepTimer", Blind),
        mock.patch.object(training.Counting, "count", no_count),
        mock.patch.object(training._Prove, "on_step_end", lambda *_, **__: None),
        mock.patch.object(training, "energy", lambda _: contextlib.nullcontext(Energy())),
        mock.patch.object(training, "peak_memory", lambda _: contextlib.nullcontext(Peak())),
    ):
        yield


@contextlib.contextmanager
def clocked(spent: list[float]) -> Iterator[None]:
    """Add to the last entry of ``spent`` the seconds inside what is called in every step to measure it."""

    def timed(act: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: object, **kwargs: object) -> None:
            start = time.perf_counter()
            act(*args, **kwargs)
            spent[-1] += time.perf_counter() - start

        return wrapped

    with contextlib.ExitStack() as stack:
        for owner, name in (
            (StepTimer, "on_step_begin"),
            (StepTimer, "on_pre_optimizer_step"),
            (StepTimer, "on_step_end"),
            (training.Counting, "count"),
        ):
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield


def steps(tuned: Tuned, data: list[Example], size: int, spent: list[float] | None = None) -> list[float]:
    """Seconds from one step's end to the next one's, the warm-up left out; ``spent`` gets an entry for each of them."""
    ticks: list[float] = []

    def tick(*_: object) -> None:
        ticks.append(time.perf_counter())
        if spent is not None:
            spent.append(0.0)

    settings = training.Settings(Budget(train_examples=len(data), batch_size=size), 1e-5, on_step=tick)
    training.train(tuned, data, CompletionCollator(tuned.base.tokenizer.pad_token_id), settings, loss=token_loss)
    return [later - earlier for earlier, later in itertools.pairwise(ticks)][WARMUP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    tuned = methods.apply(given.method, load(given.model, dtype=given.dtype))
    data = examples((given.steps + WARMUP + 1) * given.batch, given.length, tuned.base.tokenizer.vocab_size)
    ratios, shares = [], []
    for number in range(given.rounds):
        times: dict[str, float] = {}
        # Turned round each time: the machine's speed drifts.
        for side in ("measured", "blind") if number % 2 == 0 else ("blind", "measured"):
            if side == "blind":
                with blind():
                    times[side] = statistics.median(steps(tuned, data, given.batch))
            else:
                spent = [0.0]
                with clocked(spent):
                    times[side] = statistics.median(steps(tuned, data, given.batch, spent))
                # The last entry is opened after the last step.
                shares.append(statistics.median(spent[WARMUP + 1 : -1]) / times[side])
        ratios.append(times["measured"] / times["blind"])
        shown = ", ".join(f"{name} {seconds:.4f} s" for name, seconds in times.items())
        print(f"round {number + 1}: {shown}; measured / blind {ratios[-1]:.3f}", flush=True)
    print(f"measured / blind: {statistics.median(ratios):.3f} (aim: at most 1.010)")
    print(f"inside the measuring code: {statistics.median(shares):.3%} of a step")


if __name__ == "__main__":
    main()
