"""Answers that a language model need not write: how likely the right one is, and whether it would have written it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.tasks.decoding import answer_text
from harness.tasks.encode import Encoded, completion_ids, cut_prompt, free_answer_tokens
from harness.tasks.logprobs import IGNORED, completion_batches

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned
    from harness.tasks.data import Example


@dataclass(frozen=True)
class Cloze:
    """What a model makes of one right answer, the end token left out."""

    nats: float
    """Negative log-likelihood of the answer behind its prompt."""
    likeliest: str
    """The likeliest token in each place of the answer, behind the right ones before it, as text."""
    is_likeliest: bool
    """Whether these are the answer's own tokens: then greedy decoding writes it."""


@torch.no_grad()
def read_answers(
    tuned: Tuned, examples: Sequence[Example], max_length: int, max_new_tokens: int, batch_size: int = 16
) -> list[Cloze]:
    """The completion of each example, read behind its prompt.

    The prompt leaves room for ``max_new_tokens``, whatever the answer is; a longer answer loses its end.
    """
    base = tuned.base
    room = free_answer_tokens(max_new_tokens, max_length)
    rows = [
        Encoded(
            tuple(cut_prompt(base.tokenizer, e.prompt, max_length, room, base.reads_apart)),
            tuple(completion_ids(base.tokenizer, e.prompt, e.completion, base.reads_apart)[:-1][:room]),
        )
        for e in examples
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))
    answers: dict[int, Cloze] = {}
    in_order = [rows[i] for i in order]
    places = iter(order)
    for batch in completion_batches(
        in_order, base.tokenizer.pad_token_id, base.device, batch_size, base.decoder_start_id
    ):
        labels = batch.pop("labels")
        logits = tuned.model(**batch).logits[:, -labels.shape[1] : -1].float()
        targets = labels[:, 1:]
        for row, right in zip(logits, targets, strict=True):
            place = right != IGNORED
            answers[next(places)] = _cloze(tuned, row[place], right[place])
    return [answers[i] for i in range(len(rows))]


def _cloze(tuned: Tuned, logits: torch.Tensor, right: torch.Tensor) -> Cloze:
    """From the logits of the answer's places, of shape (tokens, vocabulary), and its tokens."""
    nats = torch.nn.functional.cross_entropy(logits, right, reduction="sum")
    likeliest = logits.argmax(-1)
    text = answer_text(tuned.base.tokenizer, likeliest.tolist())
    return Cloze(float(nats), text, bool((likeliest == right).all()))
