"""Packing: the examples of a batch one after the other in a single row, of which no token is padding.

Positions start anew with each example, and tell transformers that the examples must not see each other. It then builds
one mask over the whole row and computes every product of two examples to discard it: on a CPU, attention over eight
examples of 112 tokens took five times as long as in a padded batch. There each example is attended by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned
from harness.tasks.logprobs import IGNORED, Batch
from harness.training.head_loss import HeadLoss
from harness.training.token_loss import token_loss

#: Name of :func:`attend_by_example` among transformers' attention functions.
_BY_EXAMPLE = "sdpa_by_example"


class PackingCollator:
    """Puts the examples of a batch one after the other into a single row.

    The examples of a step stay the same, so loss and gradients are those of the padded batch.
    """

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids, labels and positions of one batch, each of shape (1, tokens)."""
        return {
            "input_ids": torch.tensor([[token for e in examples for token in e["input_ids"]]]),
            "labels": torch.tensor([[label for e in examples for label in (IGNORED, *e["labels"][1:])]]),
            "position_ids": torch.tensor([[position for e in examples for position in range(len(e["input_ids"]))]]),
        }


def packed_loss(
    model: Any, batch: Batch, at_head: HeadLoss | None = None
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """:func:`harness.training.token_loss.token_loss` of a packed row.

    It runs without the KV cache. With the cache, transformers takes the row for one long text, and every example sees
    those before it.
    """
    cacheless: dict[str, Any] = {**batch, "use_cache": False}
    return token_loss(model, cacheless, at_head=at_head)


def starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Where each example of a packed row begins, and where the last one ends; of shape (examples + 1,)."""
    (first,) = (position_ids[0] == 0).nonzero(as_tuple=True)
    return torch.cat([first, first.new_tensor([position_ids.shape[1]])])


def attend_by_example(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' scaled dot-product attention, of each example of a packed row by itself.

    ``query``, ``key`` and ``value`` have shape (1, heads, tokens, size), the output (1, tokens, heads, size).
    """
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, None, **settings)[0] for part in parts], dim=1), None


def _with_starts(_network: Any, given: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**inputs, "cu_seq_lens_q": starts(inputs["position_ids"])}


@contextlib.contextmanager
def by_example(tuned: Tuned, max_length: int) -> Iterator[None]:
    """Within the block, attend each example of a packed row by itself, where that gives the same and is faster.

    Every forward pass in it reads packed rows, whichever loss asks for it.
    It is faster on a CPU: on a GPU one masked call costs less than many small ones. It gives the same where the network
    lets its attention be chosen and no sliding window is shorter than an example.
    """
    network = unwrapped(tuned.model)
    usual = network.config._attn_implementation
    window = getattr(network.config, "sliding_window", None)
    chosen = usual == "sdpa" and getattr(network, "_supports_attention_backend", False)
    if tuned.base.device.type != "cpu" or not chosen or (window is not None and window < max_length):
        yield
        return
    AttentionInterface.register(_BY_EXAMPLE, attend_by_example)
    network.set_attn_implementation(_BY_EXAMPLE)
    try:
        with network.register_forward_pre_hook(_with_starts, with_kwargs=True):
            yield
    finally:
        network.set_attn_implementation(usual)
