"""Batches of pairs, and other material that every objective on pairs needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.tasks.data import TaskData
from harness.tasks.logprobs import completion_batch
from harness.tasks.pairs import pairs
from harness.training.accumulation import rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def training_pairs(tokenizer: PreTrainedTokenizerBase, data: TaskData, max_length: int) -> list[dict[str, Any]]:
    """The training split, as rows for :class:`PairCollator`."""
    return [{"pair": pair} for pair in pairs(tokenizer, data.train, max_length, data.spec.max_new_tokens)]


def about(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What :func:`harness.training.trainer.train` wants to know: lengths, which were cut, what a loss averages."""
    several = [example["pair"] for example in examples]
    return {"lengths": [len(pair) for pair in several], "cut": [pair.cut for pair in several], "weigh": rows}


class PairCollator:
    """A batch of n pairs is 2n rows: the chosen ones, then the rejected ones, padded alike.

    One forward pass for both halves costs less than two, and gives both the same padding. Other numbers that the
    examples hold, such as reference log-probabilities, become tensors of shape (n,).
    """

    def __init__(self, pad_token_id: int) -> None:
        self._pad = pad_token_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (2n, longest), and (n,)."""
        both = [e["pair"].chosen for e in examples] + [e["pair"].rejected for e in examples]
        numbers = {name: torch.tensor([e[name] for e in examples]) for name in examples[0] if name != "pair"}
        return {**completion_batch(both, self._pad), **numbers}


def halves(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of the chosen and of the rejected answers."""
    chosen, rejected = values.chunk(2)
    return chosen, rejected


@torch.no_grad()
def precompute(
    function: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    examples: Sequence[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    batch_size: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """The examples with the values of ``function`` for each batch, by name."""
    extended_examples: list[dict[str, Any]] = []
    for start in range(0, len(examples), batch_size):
        part = list(examples[start : start + batch_size])
        values = function({name: value.to(device) for name, value in collate(part).items()})
        columns = {name: value.tolist() for name, value in values.items()}
        extended_examples += [
            {**e, **{name: column[i] for name, column in columns.items()}} for i, e in enumerate(part)
        ]
    return extended_examples
