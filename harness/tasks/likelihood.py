"""Judge by likelihood: which of two answers a model prefers, and how well it predicts a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.tasks.encode import Encoded, start_ids, text_ids
from harness.tasks.logprobs import completion_batches, sequence_logprobs
from harness.tasks.pairs import pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.networks.tuned import Tuned
    from harness.tasks.data import Example


@torch.no_grad()
def prefers_chosen(
    tuned: Tuned, examples: Sequence[Example], max_length: int, max_new_tokens: int, batch_size: int = 16
) -> list[bool]:
    """Whether the chosen answer of each pair is rated above the rejected one.

    The rating is the output of a model with a scalar output. For a language model it is the mean log-probability of the
    answer's tokens, which does not punish length.
    """
    both = pairs(tuned.base.tokenizer, examples, max_length, max_new_tokens, tuned.base.reads_apart)
    rated = _rate(tuned, [*(p.chosen for p in both), *(p.rejected for p in both)], batch_size)
    return [chosen > rejected for chosen, rejected in zip(rated[: len(both)], rated[len(both) :], strict=True)]


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
    base = tuned.base
    return completion_batches(rows, base.tokenizer.pad_token_id, base.device, size, base.decoder_start_id)


def blocks(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, apart: bool = False
) -> list[list[int]]:
    """Token ids of the texts, each closed by the end token, in blocks of at most ``length``.

    Every text and every block starts with the special tokens that the tokenizer puts before a text: without them some
    models predict nothing (Gemma). The texts are joined first, and a last block that is too short is left out;
    ``apart`` starts a new block with each text and keeps every token.
    """
    start, end = start_ids(tokenizer), tokenizer.eos_token_id
    ids = [[*start, *text_ids(tokenizer, text), *([] if end is None else [end])] for text in texts]
    if apart:
        return [block for text in ids for block in _divided(text, start, length)]
    stream = [token for text in ids for token in text]
    return [block for block in _divided(stream, start, length) if len(block) == length]


def _divided(ids: list[int], start: list[int], length: int) -> Iterator[list[int]]:
    """``ids`` in blocks of ``length`` that begin with ``start``."""
    place = 0
    while place < len(ids):
        added = [] if ids[place : place + len(start)] == start else start
        size = max(length - len(added), 1)
        yield [*added, *ids[place : place + size]]
        place += size


@dataclass(frozen=True)
class TextLoss:
    """How well texts are predicted, one entry for each."""

    nats: list[float]
    """Negative log-likelihood."""
    tokens: list[int]
    """Predicted tokens, the end token among them."""
    bytes: list[int]
    """Bytes in UTF-8 of the text that these tokens stand for; the end token stands for none."""


def text_nats(
    tuned: Tuned, texts: Sequence[str], max_length: int, batch_size: int = 8
) -> tuple[list[float], list[int]]:
    """:class:`TextLoss` without the bytes: nats and predicted tokens of each text."""
    loss = text_loss(tuned, texts, max_length, batch_size)
    return loss.nats, loss.tokens


@torch.no_grad()
def text_loss(tuned: Tuned, texts: Sequence[str], max_length: int, batch_size: int = 8) -> TextLoss:
    """How well a model predicts each text.

    A text longer than ``max_length`` is read in blocks. The special tokens before a text are read but not predicted, or
    else the first token of each block; its bytes do not count then.
    """
    tokenizer = tuned.base.tokenizer
    loss = TextLoss([0.0] * len(texts), [0] * len(texts), [len(text.encode()) for text in texts])
    rows, owners = [], []
    start = start_ids(tokenizer)
    given = max(len(start), 1)
    for owner, text in enumerate(texts):
        for block in blocks(tokenizer, [text], max_length, apart=True):
            if not start:
                loss.bytes[owner] -= _size(tokenizer, block[0])
            if len(block) > given:
                rows.append(Encoded(tuple(block[:given]), tuple(block[given:])))
                owners.append(owner)
    totals: list[float] = []
    for batch in _batches(tuned, rows, batch_size):
        totals += sequence_logprobs(tuned.model, batch)[0].tolist()
    for owner, row, total in zip(owners, rows, totals, strict=True):
        loss.nats[owner] -= total
        loss.tokens[owner] += len(row.completion)
    return loss


def _size(tokenizer: PreTrainedTokenizerBase, token: int) -> int:
    """Bytes that ``token`` stands for; one for a part of a character, whose own bytes no tokenizer tells."""
    if token in tokenizer.all_special_ids:
        return 0
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return max(len(text.replace("\ufffd", "?").encode()), 1)
