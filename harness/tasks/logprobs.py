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
    rows: Sequence[Encoded], pad_token_id: int, device: torch.device | str = "cpu", start: int | None = None
) -> dict[str, torch.Tensor]:
    """Prompts with their completions, padded on the right; labels on the completions alone. Shapes (rows, longest).

    With ``start``, the token before every answer of an encoder-decoder, the encoder's part holds the prompts and the
    decoder's the completions. As everywhere, the label at a place is the token there, and the one before predicts it.
    """
    if start is not None:
        return _in_two_parts(rows, pad_token_id, device, start)
    ids, mask = padded([[*row.prompt, *row.completion] for row in rows], pad_token_id, device)
    place = torch.arange(ids.shape[1], device=ids.device)
    prompts = torch.tensor([len(row.prompt) for row in rows], device=ids.device).unsqueeze(-1)
    labels = ids.masked_fill((place < prompts) | (mask == 0), IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _in_two_parts(
    rows: Sequence[Encoded], pad_token_id: int, device: torch.device | str, start: int
) -> dict[str, torch.Tensor]:
    ids, mask = padded([row.prompt for row in rows], pad_token_id, device)
    answers, answer_mask = padded([[start, *row.completion] for row in rows], pad_token_id, device)
    labels = answers.masked_fill(answer_mask == 0, IGNORED)
    labels[:, 0] = IGNORED
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": answers,
        "decoder_attention_mask": answer_mask,
        "labels": labels,
    }


def completion_batches(
    rows: Sequence[Encoded], pad_token_id: int, device: torch.device | str, size: int, start: int | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """:func:`completion_batch` of ``size`` rows at a time, in their order."""
    for first in range(0, len(rows), size):
        yield completion_batch(rows[first : first + size], pad_token_id, device, start)


#: Parts of a batch that a network reads.
_READ = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")


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
    logits = model(**{name: batch[name] for name in _READ if name in batch}).logits
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
