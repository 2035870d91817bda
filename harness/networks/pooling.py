"""Sentence features of an encoder."""

from __future__ import annotations

import torch
from torch import nn


def mean_pooled(encoder: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean of the last hidden states over the tokens, without padding: shape (batch, width).

    For frozen features it is better than the state of the first token, which was trained for another purpose (Reimers &
    Gurevych 2019, arXiv:1908.10084, table 1).
    """
    hidden: torch.Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)
