"""Cross-entropy of tokens without all of their logits at once.

A vocabulary is wide: 4,096 learnt tokens of a model with 128,256 entries have 2.1 GB of logits in float32, and as much
again for their gradient. Here the output layer takes the states of a few hundred tokens at a time, and its logits are
gone before the next ones come. The backward pass computes them once more, chunk by chunk.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from harness.execution import NotActive
from harness.measure.flops import repeating

#: Learnt tokens whose logits exist at a time.
CHUNK = 512
#: Their kind, for :func:`harness.measure.flops.repeating`.
CHUNKS = "chunk"

#: From the output layer, states (tokens, size) and targets (tokens,) to the mean cross-entropy.
HeadLoss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


def chunked(head: nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of ``targets``, with the logits of :data:`CHUNK` tokens at a time."""
    again = partial(repeating, CHUNKS)
    sums = [
        checkpoint(_summed, head, *chunk, use_reentrant=False, context_fn=again)
        for chunk in zip(states.split(CHUNK), targets.split(CHUNK), strict=True)
    ]
    return torch.stack(sums).sum() / len(targets)


def _summed(head: nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(states).float(), targets, reduction="sum")


def liger(head: Any, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The fused kernel of Hsu et al. 2024, arXiv:2410.10989."""
    kernels = importlib.import_module("liger_kernel.transformers")
    loss: torch.Tensor = kernels.LigerFusedLinearCrossEntropyLoss()(head.weight, states, targets, bias=head.bias)
    return loss


HEAD_LOSSES: Mapping[str, HeadLoss] = {"chunked": chunked, "liger": liger}


def head_loss(model: Any, name: str) -> HeadLoss | None:
    """The loss called ``name``, to be computed where the output layer is; None for the plain one.

    Raises :class:`harness.execution.NotActive` where it cannot be computed for ``model``.
    """
    if name == "plain":
        return None
    head = model.get_output_embeddings()
    if name == "liger":
        if importlib.util.find_spec("liger_kernel") is None:
            raise NotActive("execution.loss: liger needs the package liger-kernel, which is not installed")
        if type(head) is not nn.Linear:
            raise NotActive(f"execution.loss: liger computes with a plain output layer; this is {type(head).__name__}")
    config = model.config.get_text_config()
    for setting in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, setting, None) not in (None, 1, 1.0):
            raise NotActive(f"execution.loss: {name} leaves out what this model does to its logits ({setting})")
    return HEAD_LOSSES[name]


@contextmanager
def loss_at_head(
    model: Any, rows: torch.Tensor, places: torch.Tensor, targets: torch.Tensor, loss: HeadLoss
) -> Iterator[list[torch.Tensor]]:
    """Let a forward pass compute ``loss`` at these positions, in the list, and no logits.

    It happens inside the network's forward pass, and so in the number format in which that runs.
    """
    head = model.get_output_embeddings()
    losses: list[torch.Tensor] = []

    def compute(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hook.remove()
        losses.append(loss(head, inputs[0][rows, places], targets))
        return (inputs[0][:, :0], *inputs[1:])

    hook = head.register_forward_pre_hook(compute)
    try:
        yield losses
    finally:
        hook.remove()
