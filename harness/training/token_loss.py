"""Cross-entropy of the learnt tokens, with logits at those tokens alone.

A vocabulary is wide. On SmolLM2-135M, the logits are a fifth of a step's arithmetic and most of its largest tensors.
Supervised fine-tuning computes those of the prompt and the padding only to discard them. Selecting the hidden states
before the output projection gives the same loss and the same gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness.tasks.logprobs import IGNORED, logits_at
from harness.training.head_loss import HeadLoss, loss_at_head

#: Rows and columns of the labels that are learnt.
Positions = tuple[torch.Tensor, torch.Tensor]


def learnt_positions(labels: torch.Tensor) -> Positions:
    """The positions at which ``labels``, of shape (batch, tokens), count.

    The first token never does, since nothing comes before it to predict it from.
    """
    rows, columns = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return rows, columns + 1


def token_loss(
    model: Any,
    batch: Mapping[str, torch.Tensor],
    positions: Positions | None = None,
    at_head: HeadLoss | None = None,
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """Mean cross-entropy of the tokens at ``positions`` (default: the learnt ones), each from the state before it.

    ``at_head`` computes it from states and output layer; None: from the logits of all positions together.
    """
    labels = batch["labels"]
    # Found before the forward pass is queued: an accelerator has to wait here, and has nothing else to do yet.
    rows, columns = learnt_positions(labels) if positions is None else positions
    # Counted from the end: soft prompts stand in front of the tokens.
    places = columns - 1 - labels.shape[1]

    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if at_head is not None:
        with loss_at_head(model, rows, places, labels[rows, columns], at_head) as losses:
            model(**inputs)
        return losses[0], {}
    with logits_at(model, rows, places):
        logits = model(**inputs).logits
    return torch.nn.functional.cross_entropy(logits.float(), labels[rows, columns]), {}
