"""What it costs to rank labels: each prompt read once for all labels, against once for each; the ratio is printed.

    python benchmarks/evaluation.py [--model smollm2-135m] [--task trec] [--examples 500] [--rounds 1]

Both sides score the same examples in one process, turn by turn in pieces of 24 examples, so that whatever else the
machine does meets both alike. The aim is a ratio of at least 3.5 on TREC with SmolLM2-135M, and the same labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from harness import methods
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.tasks import data as tasks
from harness.tasks.data import Example
from harness.tasks.encode import Encoded, completion_ids, cut_prompt
from harness.tasks.logprobs import completion_batches, sequence_logprobs
from harness.tasks.ranking import rank_labels
from harness.trial import Budget

PIECE = 24


@torch.no_grad()
def prompt_with_each_label(tuned: Tuned, examples: Sequence[Example], max_length: int) -> list[int]:
    """The plain way: every label in a row of its own, with its prompt; rows of similar length share a batch."""
    tokenizer = tuned.base.tokenizer
    rows = []
    for example in examples:
        ids = [tuple(completion_ids(tokenizer, example.prompt, one)) for one in example.candidates]
        prompt = tuple(cut_prompt(tokenizer, example.prompt, max_length, max(map(len, ids))))
        rows += [Encoded(prompt, one) for one in ids]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].completion))
    totals = torch.zeros(len(rows))
    ordered = [rows[i] for i in order]
    batches = completion_batches(ordered, tokenizer.pad_token_id, tuned.base.device, PIECE)
    totals[torch.tensor(order)] = torch.cat([sequence_logprobs(tuned.model, one)[0].cpu() for one in batches])
    return [int(label) for label in totals.view(len(examples), -1).argmax(-1)]


Ranker = Callable[[Tuned, Sequence[Example], int], list[int]]


def main() -> None:
    """Print seconds of both sides, their ratio, and how many labels agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="trec")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    budget = Budget(train_examples=8, eval_examples=options.examples, max_length=options.max_length)
    examples = tasks.load(options.task, budget, 0).test
    tuned = methods.apply("baseline", load(options.model, dtype="float32", device="auto", seed=0))
    tuned.model.eval()
    rankers: dict[str, Ranker] = {"once for each label": prompt_with_each_label, "once": rank_labels}
    seconds = dict.fromkeys(rankers, 0.0)
    labels: dict[str, list[int]] = {name: [] for name in rankers}
    for start in range(0, len(examples) * options.rounds, PIECE):
        piece = examples[start % len(examples) :][:PIECE]
        for name, rank in rankers.items():
            began = time.perf_counter()
            labels[name] += rank(tuned, piece, options.max_length)
            seconds[name] += time.perf_counter() - began
    each, once = seconds.values()
    same = sum(a == b for a, b in zip(*labels.values(), strict=True))
    print(f"{len(labels['once'])} examples, {len(examples[0].candidates)} labels each")
    for name, total in seconds.items():
        print(f"prompt read {name:20} {total:7.1f} s")
    print(f"ratio {each / once:.2f}; {same} of {len(labels['once'])} labels are the same")


if __name__ == "__main__":
    main()
