"""How surprising an answer is to a model that no trial changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.tasks.encode import Encoded, encode, end_id
from harness.tasks.logprobs import completion_batches, sequence_logprobs

if TYPE_CHECKING:
    from harness.models.load import Base

#: Tokens of a prompt with its answer that are read at most; the answer keeps up to half of them.
_LONGEST = 1024
_BATCH = 8


@torch.no_grad()
def answer_nats(base: Base, answers: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
    """The negative log-likelihood in nats of each answer behind its prompt, and the number of its tokens.

    ``answers`` are pairs of prompt and answer. The token that would end an answer does not count, because many answers
    end where the task's limit cut them; an empty answer has no token. The network is the base as its checkpoint has it.
    """
    rows = {place: _encoded(base, *both) for place, both in enumerate(answers) if both[1]}
    found = [(0.0, 0)] * len(answers)
    for place, cost in zip(rows, _costs(base, list(rows.values())), strict=True):
        found[place] = cost
    return found


def _costs(base: Base, rows: Sequence[Encoded]) -> Iterator[tuple[float, int]]:
    network = base.build()
    for batch in completion_batches(rows, base.tokenizer.pad_token_id, base.device, _BATCH, base.decoder_start_id):
        total, tokens = sequence_logprobs(network, batch)
        yield from zip((-total).tolist(), (int(count) for count in tokens.tolist()), strict=True)


def _encoded(base: Base, prompt: str, answer: str) -> Encoded:
    whole = encode(base.tokenizer, prompt, answer, _LONGEST, _LONGEST // 2, base.reads_apart)
    ends = whole.completion[-1:] == (end_id(base.tokenizer),)  # a long answer was cut before it
    return Encoded(whole.prompt, whole.completion[:-1] if ends else whole.completion)
