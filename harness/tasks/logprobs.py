r"""Log-probabilities of completions, :math:`\log p_\theta(y_t \mid x, y_{<t})`: what preference losses are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.tasks.encode import Encoded

Batch = Mapping[str, torch.Tensor]

#: The label that cross-entropy leaves out.
IGNORED = -100


def completion_batch(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Prompts with their completions, padded on the right; labels on the completions alone. Shapes (rows, longest)."""
    width = max(len(row.prompt) + len(row.completion) for row in rows)
    ids = torch.full((len(rows), width), pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for index, row in enumerate(rows):
        start, end = len(row.prompt), len(row.prompt) + len(row.completion)
        ids[index, :end] = torch.tensor([*row.prompt, *row.completion])
        mask[index, :end] = 1
        labels[index, start:end] = ids[index, start:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def token_logprobs(model: Any, batch: Batch, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each completion token, and the mask of where there is one; both (rows, width - 1).

    Elsewhere it is 0. ``temperature`` divides the logits, as in sampling.
    """
    width = batch["labels"].shape[1]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return from_logits(logits[:, -width:], batch["labels"], temperature)


def from_logits(
    logits: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from logits of shape (rows, width, vocabulary); soft prompts must have been cut off them."""
    targets = labels[:, 1:]
    mask = targets != IGNORED
    # Only the positions that count are turned into log-probabilities: a vocabulary is wide.
    chosen = logits[:, :-1][mask].float() / temperature
    values = -torch.nn.functional.cross_entropy(chosen, targets[mask], reduction="none")
    return torch.zeros(mask.shape, device=values.device).masked_scatter(mask, values), mask


def sequence_logprobs(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each whole completion, and its number of tokens; both (rows,)."""
    values, mask = token_logprobs(model, batch)
    return values.sum(-1), mask.sum(-1)
