"""What evaluation costs, against the plain way in one process: labels that are ranked, or answers that are written.

    python benchmarks/evaluation.py [--model smollm2-135m] [--method baseline] [--task trec] [--examples 500]
    python benchmarks/evaluation.py --task factual_summary --examples 26 --max-length 128 --rounds 3

Labels: each prompt read once for all labels, against once for each. The sides take turns in pieces of 24 examples, so
that whatever else the machine does meets both alike. The aim is a ratio of at least 3.5 on TREC with SmolLM2-135M, and
the same labels.

Answers: those of both splits together, with their common beginning read once and finished ones leaving, against
transformers' ``generate`` on each split. The sides take turns by rounds. The aim is a ratio of at least 1.5 on the 52
prompts of Factual-Summary, and the same answers.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from harness import methods
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.tasks import data as tasks
from harness.tasks.data import Example, TaskData
from harness.tasks.encode import Encoded, completion_ids, cut_prompt, free_answer_tokens
from harness.tasks.evaluate import generate, stop_ids
from harness.tasks.logprobs import completion_batches, padded, sequence_logprobs
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


@torch.no_grad()
def transformers_generate(tuned: Tuned, data: TaskData, max_length: int) -> list[str]:
    """The plain way: each split by itself in batches of up to 32, from short to long, until the last one has ended."""
    tokenizer, new_tokens = tuned.base.tokenizer, data.spec.max_new_tokens
    room = free_answer_tokens(new_tokens, max_length)
    ends = stop_ids(tuned)
    texts = []
    for split in (data.validation, data.test):
        prompts = [cut_prompt(tokenizer, example.prompt, max_length, room) for example in split]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            ids, mask = padded([prompts[i] for i in rows], tokenizer.pad_token_id, tuned.base.device, "left")
            output = tuned.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=new_tokens,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            )
            for i, answer in zip(rows, output[:, ids.shape[1] :].tolist(), strict=True):
                upto = itertools.takewhile(lambda token: token not in ends, answer)
                answers[i] = tokenizer.decode(list(upto), skip_special_tokens=True).strip()
        texts += answers
    return texts


def harness_generate(tuned: Tuned, data: TaskData, max_length: int) -> list[str]:
    """The harness's way: both splits at once."""
    prompts = [example.prompt for example in (*data.validation, *data.test)]
    return generate(tuned, prompts, data.spec.max_new_tokens, max_length)


def compare_answers(tuned: Tuned, data: TaskData, max_length: int, rounds: int) -> None:
    """Print seconds of both sides, the ratio of each round, and how many answers agree."""
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        plain = transformers_generate(tuned, data, max_length)
        between = time.perf_counter()
        ours = harness_generate(tuned, data, max_length)
        seconds = between - began, time.perf_counter() - between
        ratios.append(seconds[0] / seconds[1])
        print(f"transformers generate {seconds[0]:7.1f} s, harness {seconds[1]:7.1f} s, ratio {ratios[-1]:.2f}")
    same = sum(a == b for a, b in zip(plain, ours, strict=True))
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{same} of {len(ours)} answers are the same")


Ranker = Callable[[Tuned, Sequence[Example], int], list[int]]


def compare_labels(tuned: Tuned, examples: Sequence[Example], max_length: int, rounds: int) -> None:
    """Print seconds of both sides, their ratio, and how many labels agree."""
    rankers: dict[str, Ranker] = {"once for each label": prompt_with_each_label, "once": rank_labels}
    seconds = dict.fromkeys(rankers, 0.0)
    labels: dict[str, list[int]] = {name: [] for name in rankers}
    for start in range(0, len(examples) * rounds, PIECE):
        piece = examples[start % len(examples) :][:PIECE]
        for name, rank in rankers.items():
            began = time.perf_counter()
            labels[name] += rank(tuned, piece, max_length)
            seconds[name] += time.perf_counter() - began
    each, once = seconds.values()
    same = sum(a == b for a, b in zip(*labels.values(), strict=True))
    print(f"{len(labels['once'])} examples, {len(examples[0].candidates)} labels each")
    for name, total in seconds.items():
        print(f"prompt read {name:20} {total:7.1f} s")
    print(f"ratio {each / once:.2f}; {same} of {len(labels['once'])} labels are the same")


def main() -> None:
    """Compare labels or answers, as the task has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="baseline", help="with its defaults, untrained")
    parser.add_argument("--task", default="trec")
    parser.add_argument("--examples", type=int, default=500, help="of each split that is scored")
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    budget = Budget(train_examples=8, eval_examples=options.examples, max_length=options.max_length)
    data = tasks.load(options.task, budget, 0)
    tuned = methods.apply(options.method, load(options.model, dtype="float32", device="auto", seed=0))
    tuned.model.eval()
    if data.kind == "classification":
        compare_labels(tuned, data.test, options.max_length, options.rounds)
    elif data.kind == "generation":
        compare_answers(tuned, data, options.max_length, options.rounds)
    else:
        parser.error(f"--task: {options.task} is of kind {data.kind}; valid: classification, generation")


if __name__ == "__main__":
    main()
