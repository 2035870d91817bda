"""Judging by likelihood: which of two answers a model prefers, and how well it predicts a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.tasks.encode import Encoded
from harness.tasks.logprobs import completion_batches, sequence_logprobs
from harness.tasks.pairs import pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.networks.tuned import Tuned
    from harness.tasks.data import Example


@torch.no_grad()
def prefers_chosen(tuned: Tuned, examples: Sequence[Example], max_length: int, batch_size: int = 16) -> list[bool]:
    """Whether the chosen answer of each pair is rated above the rejected one.

    A model with a scalar output rates by it; a language model by the mean log-probability of an answer's tokens, which
    does not punish length.
    """
    found = pairs(tuned.base.tokenizer, examples, max_length)
    rated = _rate(tuned, [*(p.chosen for p in found), *(p.rejected for p in found)], batch_size)
    return [chosen > rejected for chosen, rejected in zip(rated[: len(found)], rated[len(found) :], strict=True)]


def _rate(tuned: Tuned, rows: Sequence[Encoded], batch_size: int) -> list[float]:
    ratings: list[float] = []
    for batch in _batches(tuned, rows, batch_size):
        if tuned.base.scalar:
            output = tuned.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            ratings += output.logits.float().squeeze(-1).tolist()
        else:
            total, tokens = sequence_logprobs(tuned.model, batch)
            ratings += (total / tokens).tolist()
    return ratings


def _batches(tuned: Tuned, rows: Sequence[Encoded], size: int) -> Iterator[dict[str, torch.Tensor]]:
    return completion_batches(rows, tuned.base.tokenizer.pad_token_id, tuned.base.device, size)


def blocks(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, apart: bool = False
) -> list[list[int]]:
    """Token ids of the texts, each closed by the end token, in blocks of ``length``.

    The texts are joined first, and a last block that is too short is left out; ``apart`` starts a new block with each
    text and keeps every token.
    """
    ids = [
        [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        for text in texts
    ]
    if apart:
        return [text[start : start + length] for text in ids for start in range(0, len(text), length)]
    stream = [token for text in ids for token in text]
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]


@torch.no_grad()
def text_nats(
    tuned: Tuned, texts: Sequence[str], max_length: int, batch_size: int = 8
) -> tuple[list[float], list[int]]:
    """Negative log-likelihood of each text in nats, and the number of tokens predicted.

    A text longer than ``max_length`` is read in blocks; the first token of a block is read, not predicted.
    """
    nats, tokens = [0.0] * len(texts), [0] * len(texts)
    rows, owners = [], []
    for owner, text in enumerate(texts):
        for block in blocks(tuned.base.tokenizer, [text], max_length, apart=True):
            if len(block) > 1:
                rows.append(Encoded(tuple(block[:1]), tuple(block[1:])))
                owners.append(owner)
    totals: list[float] = []
    for batch in _batches(tuned, rows, batch_size):
        totals += sequence_logprobs(tuned.model, batch)[0].tolist()
    for owner, row, total in zip(owners, rows, totals, strict=True):
        nats[owner] -= total
        tokens[owner] += len(row.completion)
    return nats, tokens
