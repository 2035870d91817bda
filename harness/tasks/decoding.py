"""Greedy answers of a decoder: prompts are read once, and a finished answer leaves its batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness.tasks.logprobs import padded
from harness.tasks.reading import Read, Reader

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned

Ids = Sequence[int]


@torch.no_grad()
def greedy(
    tuned: Tuned, prompts: Sequence[Ids], max_new_tokens: int, ends: Sequence[int], batch_size: int = 32
) -> list[list[int]]:
    """The likeliest token after each, up to but not including the first of ``ends``, for at most ``max_new_tokens``.

    An encoder-decoder reads prompts as in training, padded behind the text, and answers from its start token on.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    # From short to long: batches of similar lengths waste little on padding.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    reader = Reader(tuned, prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = [prompts[i] for i in rows]
        several = _by_reading(reader, tuned, batch, max_new_tokens, ends)
        if several is None:
            several = _by_generate(tuned, batch, max_new_tokens, ends)
        for row, answer in zip(rows, several, strict=True):
            answers[row] = answer
    return answers


def _by_reading(
    reader: Reader, tuned: Tuned, prompts: Sequence[Ids], max_new_tokens: int, ends: Sequence[int]
) -> list[list[int]] | None:
    """The answers to ``prompts``; None where ``reader`` cannot read them, or padding would fill a sliding window."""
    first = reader.read(prompts)
    if first is None:
        return None
    read, logits = first
    window = getattr(tuned.model.config, "sliding_window", None)
    if window is not None and read.width + max_new_tokens >= window:
        return None
    return _continued(read, logits.float().argmax(-1), max_new_tokens, ends)


def _continued(read: Read, tokens: torch.Tensor, max_new_tokens: int, ends: Sequence[int]) -> list[list[int]]:
    """The answers that begin with ``tokens``, one for each row of ``read``."""
    answers: list[list[int]] = [[] for _ in tokens]
    last = torch.tensor(ends, device=tokens.device)
    live = list(range(len(answers)))
    for length in range(1, max_new_tokens + 1):
        going = (~torch.isin(tokens, last)).nonzero().squeeze(1)
        if len(going) < len(live):
            read.keep(going)
            tokens, live = tokens[going], [live[place] for place in going.tolist()]
        for row, token in zip(live, tokens.tolist(), strict=True):
            answers[row].append(token)
        if not live or length == max_new_tokens:
            break
        every = torch.arange(len(live), device=tokens.device)
        ids = tokens.unsqueeze(-1)
        tokens = read.further(ids, torch.ones_like(ids), every, torch.zeros_like(every)).float().argmax(-1)
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
