"""Test helpers: tuned networks without the time of training, and their answers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness import methods
from harness.models.load import Base
from harness.networks.tuned import Tuned


@torch.no_grad()
def trained(base: Base, method: str, seed: int, **args: Any) -> Tuned:
    """A tuned network whose parameters have moved, without the time of training."""
    tuned = methods.apply(method, base, **args)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tuned.stored.items():
        if tensor.dtype == torch.uint8:
            tensor.copy_(torch.randint(0, 256, tensor.shape, generator=generator))
        elif name.endswith("log_alpha"):
            tensor.fill_(-4.0)
        else:
            tensor.add_((torch.randn(tensor.shape, generator=generator) * 0.2).to(tensor))
    return tuned


@torch.inference_mode()
def alone(model: nn.Module, ids: Tensor, new_tokens: int) -> Tensor:
    """Logits (new tokens, vocabulary) of greedy decoding of one prompt, read as a whole for every token."""
    rows = []
    for _ in range(new_tokens):
        logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).logits[0, -1]
        rows.append(logits)
        ids = torch.cat([ids, logits.argmax()[None]])
    return torch.stack(rows)
