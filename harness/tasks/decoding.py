"""Greedy answers of a decoder: prompts are read once, and a finished answer leaves its batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.tasks.logprobs import padded
from harness.tasks.reading import Read, Reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.networks.tuned import Tuned

Ids = Sequence[int]


#: Prompts that are read side by side, padded to the longest of them.
_READ_TOGETHER = 8
#: Share of a batch's answers that have to be finished for them to leave it.
_LEAVING = 0.25
#: Tokens that a batch may have the keys and values of, which bounds its memory.
_PLACES = 16_384


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    """What ``ids`` say, without special tokens and outer white space.

    A network may have more rows than its tokenizer has tokens, as those with random weights do: they stand for no text.
    """
    known = [token for token in ids if token < len(tokenizer)]
    return str(tokenizer.decode(known, skip_special_tokens=True)).strip()


@torch.no_grad()
def greedy(
    tuned: Tuned, prompts: Sequence[Ids], max_new_tokens: int, ends: Sequence[int], batch_size: int = 64
) -> list[list[int]]:
    """The likeliest token after each, up to but not including the first of ``ends``, for at most ``max_new_tokens``.

    At most ``batch_size`` answers are written at once. An encoder-decoder reads prompts as in training, padded behind
    the text, and answers from its start token on.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    reader = Reader(tuned, prompts)
    for rows in _batches(prompts, max_new_tokens, batch_size):
        batch = [prompts[i] for i in rows]
        several = _by_reading(reader, tuned, batch, max_new_tokens, ends)
        if several is None:
            several = _by_generate(tuned, batch, max_new_tokens, ends)
        for row, answer in zip(rows, several, strict=True):
            answers[row] = answer
    return answers


def _batches(prompts: Sequence[Ids], max_new_tokens: int, batch_size: int) -> Iterator[list[int]]:
    """Indices from short to long, so that batches of similar lengths waste little on padding."""
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)):
        places = (len(batch) + 1) * (len(prompts[index]) + max_new_tokens)
        if batch and (len(batch) == batch_size or places > _PLACES):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _by_reading(
    reader: Reader, tuned: Tuned, prompts: Sequence[Ids], max_new_tokens: int, ends: Sequence[int]
) -> list[list[int]] | None:
    """The answers to ``prompts``; None where ``reader`` cannot read them, or padding would fill a sliding window."""
    window = getattr(tuned.model.config, "sliding_window", None)
    reads: list[Read] = []
    tokens: list[torch.Tensor] = []
    for start in range(0, len(prompts), _READ_TOGETHER):
        first = reader.read(prompts[start : start + _READ_TOGETHER])
        if first is None or (window is not None and first[0].width + max_new_tokens >= window):
            return None
        reads.append(first[0])
        tokens.append(first[1].float().argmax(-1))
    read, *others = reads
    read.join(others, max_new_tokens)
    return _continued(read, torch.cat(tokens), max_new_tokens, ends)


def _continued(read: Read, tokens: torch.Tensor, max_new_tokens: int, ends: Sequence[int]) -> list[list[int]]:
    """The answers that begin with ``tokens``, one for each row of ``read``."""
    answers: list[list[int]] = [[] for _ in tokens]
    last = torch.tensor(ends, device=tokens.device)
    rows, finished = torch.arange(len(answers), device=tokens.device), torch.isin(tokens, last)
    for length in range(1, max_new_tokens + 1):
        # What leaves costs a copy of what stays, so it waits for company.
        if finished.sum() >= _LEAVING * len(rows):
            going = (~finished).nonzero().squeeze(1)
            read.keep(going)
            rows, tokens, finished = rows[going], tokens[going], finished[going]
        for row, token, done in zip(rows.tolist(), tokens.tolist(), finished.tolist(), strict=True):
            if not done:
                answers[row].append(token)
        if not len(rows) or length == max_new_tokens:
            break
        every = torch.arange(len(rows), device=tokens.device)
        ids = tokens.unsqueeze(-1)
        tokens = read.further(ids, torch.ones_like(ids), every, torch.zeros_like(every)).float().argmax(-1)
        finished |= torch.isin(tokens, last)
    return answers


def _by_generate(tuned: Tuned, prompts: Sequence[Ids], max_new_tokens: int, ends: Sequence[int]) -> list[list[int]]:
    """The same by transformers, for models that keep something else than keys and values."""
    tokenizer, apart = tuned.base.tokenizer, tuned.base.reads_apart
    ids, mask = padded(prompts, tokenizer.pad_token_id, tuned.base.device, "right" if apart else "left")
    output = tuned.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    new = output[:, 1 if apart else ids.shape[1] :].tolist()
    return [list(itertools.takewhile(lambda token: token not in ends, answer)) for answer in new]
