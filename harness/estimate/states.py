"""Bytes of an optimiser's states, from the shapes of what it trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

#: bitsandbytes keeps tensors below this, and embeddings, in 32 bits, and has one scale for so many numbers of others.
_SMALLEST_IN_8_BITS, _BLOCK = 4096, 256
_CODE_BYTES = 2 * 256 * 4
#: A step counter of AdamW, or Adafactor's mean square of a tensor: one float32 for each tensor that trains.
_COUNTER_BYTES = 4


@dataclass(frozen=True)
class Trained:
    """Counts of what got a gradient. Every number is linear in the number of equal layers."""

    tensors: int
    elements: int
    in_8_bits: int
    """Elements of the tensors that an 8-bit optimiser keeps in 8 bits."""
    blocks: int
    """Its scales for one state of them."""
    factored: int
    """Numbers that Adafactor keeps: a row and a column of each matrix, all of any other tensor."""


def count(model: nn.Module) -> Trained:
    """What a backward pass of ``model`` left gradients for."""
    trained = [p for p in model.parameters() if p.grad is not None]
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    large = [p.numel() for p in trained if p.numel() >= _SMALLEST_IN_8_BITS and id(p) not in embeddings]
    return Trained(
        tensors=len(trained),
        elements=sum(p.numel() for p in trained),
        in_8_bits=sum(large),
        blocks=sum(-(-size // _BLOCK) for size in large),
        factored=sum(_factored(p.shape) for p in trained),
    )


def _factored(shape: Sequence[int]) -> int:
    whole = math.prod(shape)
    return whole if len(shape) < 2 else whole // shape[-1] + whole // shape[-2]


def state_bytes(optimizer: str, trained: Trained, number_bytes: int) -> int:
    """Bytes of the states of the ``optimizer`` with this name, whose states in full have ``number_bytes`` a number."""
    if optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        rest = 2 * number_bytes * (trained.elements - trained.in_8_bits)
        return rest + 2 * trained.in_8_bits + 2 * 4 * trained.blocks + (_CODE_BYTES if trained.blocks else 0)
    if optimizer == "adafactor":
        return 4 * trained.factored + _COUNTER_BYTES * trained.tensors
    if optimizer == "lion":
        return number_bytes * trained.elements
    return 2 * number_bytes * trained.elements + _COUNTER_BYTES * trained.tensors
