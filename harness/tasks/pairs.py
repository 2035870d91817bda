"""Pairs of a better and a worse answer to one prompt, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.tasks.encode import Encoded, encode, free_answer_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.tasks.data import Example


@dataclass(frozen=True)
class Pair:
    """The same prompt with the chosen and with the rejected answer."""

    chosen: Encoded
    rejected: Encoded

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))

    @property
    def cut(self) -> bool:
        """Whether either is shorter than its text."""
        return self.chosen.cut or self.rejected.cut


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int, max_new_tokens: int, apart: bool = False
) -> Pair:
    """Both answers after one and the same prompt, each in at most ``max_length`` tokens.

    The prompt is cut as for a free answer of ``max_new_tokens``, so that it does not show the length of either answer.
    """
    assert example.rejected is not None  # noqa: S101  (pairs() saw to it)
    room = free_answer_tokens(max_new_tokens, max_length)
    chosen, rejected = (
        encode(tokenizer, example.prompt, answer, max_length, room, apart)
        for answer in (example.completion, example.rejected)
    )
    return Pair(chosen, rejected)


def pairs(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int,
    max_new_tokens: int,
    apart: bool = False,
) -> list[Pair]:
    """:func:`encode_pair` for a split; raises :class:`harness.errors.InputError` if it holds no pairs."""
    if any(example.rejected is None for example in examples):
        raise InputError("objective: it needs pairs of a better and a worse answer; valid: a preference task")
    return [encode_pair(tokenizer, example, max_length, max_new_tokens, apart) for example in examples]
