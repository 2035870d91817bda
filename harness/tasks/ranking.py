"""Which of several answers a language model finds likeliest, with each prompt read once.

All answers to a prompt share its keys and values (:mod:`harness.tasks.reading`). Only the answers' own tokens are read
for each of them, and logits are computed only where an answer's token is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.tasks.encode import Encoded, completion_ids, cut_prompt
from harness.tasks.logprobs import completion_batch, padded, sequence_logprobs
from harness.tasks.reading import Ids, Read, Reader

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned
    from harness.tasks.data import Example


def rank_labels(tuned: Tuned, examples: Sequence[Example], max_length: int, batch_size: int = 48) -> list[int]:
    """Label index of each example by a decoder: the label with the likeliest completion after the prompt.

    The completions are those of training: the label inside the task's sentence, closed by the end token. The
    log-likelihoods of their tokens are summed, not averaged, so the sum is that of the whole completion. A batch has at
    most ``batch_size`` completions, unless one example has more.
    """
    return [_likeliest(several) for several in likelihoods(tuned, examples, max_length, batch_size)]


def _likeliest(several: Sequence[float]) -> int:
    return max(range(len(several)), key=several.__getitem__)


def pick_choices(tuned: Tuned, examples: Sequence[Example], max_length: int) -> tuple[list[int], list[int]]:
    """The likeliest candidate of each example, and the one that is likeliest per character.

    A longer answer is less likely for its length alone; per character, as lm-evaluation-harness has it, it is not.
    """
    totals = likelihoods(tuned, examples, max_length)
    shares = [
        [nats / max(len(text), 1) for nats, text in zip(several, example.candidates, strict=True)]
        for several, example in zip(totals, examples, strict=True)
    ]
    return list(map(_likeliest, totals)), list(map(_likeliest, shares))


@torch.no_grad()
def likelihoods(tuned: Tuned, examples: Sequence[Example], max_length: int, batch_size: int = 48) -> list[list[float]]:
    """Log-likelihood in nats of every candidate of each example behind its prompt, cut as in training."""
    tokenizer, apart = tuned.base.tokenizer, tuned.base.reads_apart
    answers = [[completion_ids(tokenizer, e.prompt, one, apart) for one in e.candidates] for e in examples]
    prompts = [
        cut_prompt(tokenizer, example.prompt, max_length, max(map(len, several)), apart)
        for example, several in zip(examples, answers, strict=True)
    ]
    reader = Reader(tuned, prompts)
    totals: list[list[float]] = [[] for _ in examples]
    for rows in _batches(tuned, prompts, answers, batch_size):
        logprobs = answer_logprobs(tuned, [prompts[i] for i in rows], [answers[i] for i in rows], reader)
        for i, several in zip(rows, logprobs, strict=True):
            totals[i] = several
    return totals


def _batches(
    tuned: Tuned, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]], batch_size: int
) -> Iterator[list[int]]:
    """Indices of prompts of similar length; of the same length where padding would fill a sliding window."""
    window = getattr(tuned.model.config, "sliding_window", None)
    longest = max(len(prompt) + max(map(len, several)) for prompt, several in zip(prompts, answers, strict=True))
    alike = window is not None and longest >= window
    size = max(1, batch_size // max(map(len, answers)))
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)):
        if len(batch) == size or (alike and batch and len(prompts[batch[0]]) != len(prompts[index])):
            yield batch
            batch = []
        batch.append(index)
    yield batch


@torch.no_grad()
def answer_logprobs(
    tuned: Tuned, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]], reader: Reader | None = None
) -> list[list[float]]:
    """Log-probability of every answer to every prompt, in nats.

    ``answers[i]`` are the answers to ``prompts[i]``, each of at least one token; ``reader`` may know more prompts. An
    encoder-decoder, and a model that keeps no keys and values of what it has read, such as a recurrent one, reads the
    prompt again with each answer.
    """
    sizes = list(map(len, answers))
    prompted = (reader or Reader(tuned, prompts)).read(prompts)
    if prompted is None:
        return _divided(_with_each(tuned, prompts, answers), sizes)
    owners = torch.tensor([row for row, size in enumerate(sizes) for _ in range(size)], device=tuned.base.device)
    read, logits = prompted
    first = logits.float().log_softmax(-1)[owners]
    flat = [answer for several in answers for answer in several]
    ids, real = padded(flat, tuned.base.tokenizer.pad_token_id, tuned.base.device)
    return _divided(_continued(read, owners, first, ids, real), sizes)


def _divided(totals: torch.Tensor, sizes: Sequence[int]) -> list[list[float]]:
    return [part.tolist() for part in totals.cpu().split(list(sizes))]


def _with_each(tuned: Tuned, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]]) -> torch.Tensor:
    """Log-probability of each answer, with its prompt read again for it; shape (answers,)."""
    pairs = [(prompt, answer) for prompt, several in zip(prompts, answers, strict=True) for answer in several]
    rows = [Encoded(tuple(prompt), tuple(answer)) for prompt, answer in pairs]
    tokenizer, start = tuned.base.tokenizer, tuned.base.decoder_start_id
    batch = completion_batch(rows, tokenizer.pad_token_id, tuned.base.device, start)
    return sequence_logprobs(tuned.model, batch)[0]


def _continued(
    read: Read, owners: torch.Tensor, first: torch.Tensor, ids: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each answer behind the prompt of its owner; shape (answers,).

    ``first`` holds the log-probabilities of the first token, of shape (answers, vocabulary). ``ids``, of shape
    (answers, longest), are the answers, and ``real`` is the mask of their tokens.
    """
    totals = first.gather(1, ids[:, :1]).squeeze(1)
    rows, columns = real[:, 1:].nonzero(as_tuple=True)
    if not len(rows):
        return totals
    read.keep(owners)
    logits = read.further(ids[:, :-1], real[:, :-1], rows, columns)
    logprobs = logits.float().log_softmax(-1).gather(1, ids[rows, columns + 1].unsqueeze(-1))
    return totals.index_add(0, rows, logprobs.squeeze(-1))
