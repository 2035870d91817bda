r"""Log-probabilities of completions, :math:`\log p_\theta(y_t \mid x, y_{<t})`: what preference losses are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness.tasks.encode import Encoded

Batch = Mapping[str, torch.Tensor]

#: The label that cross-entropy leaves out.
IGNORED = -100


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | str = "cpu", side: str = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of ``rows``, padded on the right or left, and the mask of the real tokens; both (rows, longest)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[index, place] = torch.tensor(row, dtype=ids.dtype)
        mask[index, place] = 1
    return ids.to(device), mask.to(device)


def completion_batch(
    rows: Sequence[Encoded], pad_token_id: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Prompts with their completions, padded on the right; labels on the completions alone. Shapes (rows, longest)."""
    ids, mask = padded([[*row.prompt, *row.completion] for row in rows], pad_token_id, device)
    place = torch.arange(ids.shape[1], device=ids.device)
    prompts = torch.tensor([len(row.prompt) for row in rows], device=ids.device).unsqueeze(-1)
    labels = ids.masked_fill((place < prompts) | (mask == 0), IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def completion_batches(
    rows: Sequence[Encoded], pad_token_id: int, device: torch.device | str, size: int
) -> Iterator[dict[str, torch.Tensor]]:
    """:func:`completion_batch` of ``size`` rows at a time, in their order."""
    for start in range(0, len(rows), size):
        yield completion_batch(rows[start : start + size], pad_token_id, device)


@contextmanager
def logits_at(model: Any, rows: torch.Tensor, places: torch.Tensor) -> Iterator[None]:
    """Let a forward pass compute its logits at these positions alone: ``logits`` has shape (positions, vocabulary).

    A vocabulary is wide: the logits of all tokens are a fifth of a small model's arithmetic, and its largest tensor.
    Negative places count from the end.
    """

    def select(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][rows, places], *inputs[1:])

    selecting = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        selecting.remove()


def token_logprobs(model: Any, batch: Batch, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each completion token, and the mask of these tokens; both (rows, width - 1).

    Elsewhere it is 0. ``temperature`` divides the logits, as in sampling.
    """
    width = batch["labels"].shape[1]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return from_logits(logits[:, -width:], batch["labels"], temperature)


def from_logits(
    logits: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from logits of shape (rows, width, vocabulary), without those of soft prompts."""
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
