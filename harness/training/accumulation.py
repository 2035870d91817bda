"""A batch in several parts, one after the other, before one update: the memory of a part, the step of the batch.

A mean over parts is not the mean over the batch where parts hold different numbers of learnt tokens. So each part's
loss is weighted by what it holds of what the batch learns, and loss and gradients are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.tasks.logprobs import IGNORED, Batch

#: From a batch to how much its mean loss counts: what it is a mean over.
Weigh = Callable[[Batch], torch.Tensor]


def learnt(batch: Batch) -> torch.Tensor:
    """How many labels a batch learns: tokens but the first of each row, or rows where a label is one number."""
    labels = batch["labels"]
    if labels.dim() > 1:
        return (labels[:, 1:] != IGNORED).sum()
    return torch.tensor(len(labels), device=labels.device)


def rows(batch: Batch) -> torch.Tensor:
    """How many rows a batch has."""
    return torch.tensor(len(batch["input_ids"]), device=batch["input_ids"].device)


class InParts:
    """Collates a batch as ``parts`` batches of equally many examples; an incomplete one may make fewer."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, torch.Tensor]], parts: int) -> None:
        self._collate = collate
        self._parts = parts

    def __call__(self, examples: list[Any]) -> list[dict[str, torch.Tensor]]:
        """The parts, in the order of the examples."""
        size = -(-len(examples) // self._parts)
        return [self._collate(examples[start : start + size]) for start in range(0, len(examples), size)]


def shares(parts: Sequence[Batch], weigh: Weigh) -> torch.Tensor:
    """The share of each part in the mean loss of the batch, of shape (parts,); it stays on the device."""
    weights = torch.stack([weigh(part) for part in parts]).float()
    return weights / weights.sum()


def together(seen: Sequence[Mapping[str, torch.Tensor]], of_parts: torch.Tensor) -> dict[str, torch.Tensor]:
    """The values that the parts showed, as those of the batch: means by their shares."""
    return {name: sum(share * one[name] for share, one in zip(of_parts, seen, strict=True)) for name in seen[0]}
