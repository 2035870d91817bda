"""Packing: the examples of a batch one after the other in a single row, of which no token is padding.

Positions start anew with each example, and tell transformers that the examples must not see each other. It then builds
one mask over the whole row and computes every product of two examples to discard it: on a CPU, attention over eight
examples of 112 tokens took five times as long as in a padded batch. There each example is attended by itself.

The prompts of a task often begin alike: with a system message, an instruction, the examples to imitate. A row can hold
that beginning once. Each token sees what it would see in its own example, so loss and gradients stay the same, and the
layers read fewer tokens (as Prefix Grouper does for the samples of one prompt, arXiv:2506.05433).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.execution import NotActive
from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned
from harness.tasks.logprobs import IGNORED, Batch
from harness.training.head_loss import HeadLoss
from harness.training.token_loss import token_loss

#: Name of :func:`attend_by_example` among transformers' attention functions.
_BY_EXAMPLE = "sdpa_by_example"


class PackingCollator:
    """Puts the examples of a batch one after the other into a single row.

    The examples of a step stay the same, so loss and gradients are those of the padded batch. With ``shared_prompts``
    the first example alone has the tokens that all begin with; the positions of the others go on behind them.
    """

    def __init__(self, shared_prompts: bool = False) -> None:
        self._shared_prompts = shared_prompts

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids, labels and positions of one batch, each of shape (1, tokens)."""
        alike = common_beginning(examples) if self._shared_prompts else 0
        parts = [(e, alike if number else 0) for number, e in enumerate(examples)]
        return {
            "input_ids": torch.tensor([[token for e, read in parts for token in e["input_ids"][read:]]]),
            "labels": torch.tensor([[label for e, read in parts for label in (IGNORED, *e["labels"][read + 1 :])]]),
            "position_ids": torch.tensor([[place for e, read in parts for place in range(read, len(e["input_ids"]))]]),
        }


def common_beginning(examples: Sequence[Mapping[str, Sequence[int]]]) -> int:
    """How many tokens all the prompts begin with alike, but for the last one of each.

    That one predicts the first token of its own answer, so every example keeps it.
    """
    columns = zip(*(e["input_ids"] for e in examples), strict=False)
    alike = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    prompt = min(sum(1 for _ in takewhile(lambda label: label == IGNORED, e["labels"])) for e in examples)
    return max(0, min(alike, prompt - 1))


def packed_loss(
    model: Any, batch: Batch, at_head: HeadLoss | None = None
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """:func:`harness.training.token_loss.token_loss` of a packed row.

    It runs without the KV cache. With the cache, transformers takes the row for one long text, and every example sees
    those before it.
    """
    cacheless: dict[str, Any] = {**batch, "use_cache": False}
    return token_loss(model, cacheless, at_head=at_head)


def _is_last(position_ids: torch.Tensor) -> torch.Tensor:
    """Which tokens of a packed row are the last of their example: those that the next position does not follow on."""
    positions = position_ids[0]
    return torch.cat([positions[1:] != positions[:-1] + 1, positions.new_ones(1, dtype=torch.bool)])


def whole_tokens(position_ids: torch.Tensor) -> torch.Tensor:
    """Tokens of all examples of a packed row, each counted whole; a scalar, for which an accelerator need not wait."""
    return torch.where(_is_last(position_ids), position_ids[0] + 1, 0).sum()


def starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Where each example of a packed row begins, and where the last one ends; of shape (examples + 1,)."""
    (last,) = _is_last(position_ids).nonzero(as_tuple=True)
    return torch.nn.functional.pad(last + 1, (1, 0))


def example_lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """Tokens of each example of a packed row, those that another one holds for it included; of shape (examples,)."""
    return position_ids[0, starts(position_ids)[1:] - 1] + 1


def positions_read(batch: Batch) -> list[range]:
    """The positions of each example of a batch that are read for it: by a row's mask, or by a packed row's positions.

    They begin behind what another example of the row holds for it too.
    """
    if "position_ids" in batch:
        position_ids = batch["position_ids"]
        ends = example_lengths(position_ids).tolist()
        return [range(end - own, end) for end, own in zip(ends, starts(position_ids).diff().tolist(), strict=True)]
    rows, width = batch["input_ids"].shape
    counts = batch["attention_mask"].sum(-1).tolist() if "attention_mask" in batch else [width] * rows
    return [range(count) for count in counts]


def layout(position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each example's tokens stand in a packed row, and where the row's own tokens stand among those.

    The first has shape (examples, longest), with 0 behind an example's end; the second has shape (tokens,) and counts
    along the first, flattened.
    """
    bounds, ends = starts(position_ids), example_lengths(position_ids).unsqueeze(1)
    position = torch.arange(int(ends.max()), device=position_ids.device)
    # What an example does not hold itself are the first tokens of the row.
    read_before = ends - bounds.diff().unsqueeze(1)
    places = torch.where(position < read_before, position, bounds[:-1].unsqueeze(1) + position - read_before)
    own = (position >= read_before) & (position < ends)
    return places.where(position < ends, 0), own.flatten().nonzero().squeeze(1)


def attend_by_example(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_places: torch.Tensor,
    packed_back: torch.Tensor,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' scaled dot-product attention, of each example of a packed row by itself.

    ``query``, ``key`` and ``value`` have shape (1, heads, tokens, size), the output (1, tokens, heads, size). Nothing
    is masked: no token of an example sees what stands behind its end. The two further tensors are those of
    :func:`layout`.
    """
    examples, longest = packed_places.shape

    def apart(states: torch.Tensor) -> torch.Tensor:
        taken = states[0].transpose(0, 1).index_select(0, packed_places.flatten())
        return taken.unflatten(0, (examples, longest)).transpose(1, 2)

    outputs, _ = sdpa_attention_forward(module, apart(query), apart(key), apart(value), None, **settings)
    return outputs.flatten(0, 1).index_select(0, packed_back).unsqueeze(0), None


def _with_layout(_network: Any, given: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    places, back = layout(inputs["position_ids"])
    return given, {**inputs, "packed_places": places, "packed_back": back}


@contextlib.contextmanager
def by_example(tuned: Tuned, max_length: int, shared_prompts: bool = False) -> Iterator[None]:
    """Within the block, attend each example of a packed row by itself, where that gives the same and is faster.

    Every forward pass in it reads packed rows, whichever loss asks for it. It is faster on a CPU; on a GPU, where
    kernels read a packed row as it is, nobody has measured it. It gives the same where the network lets its attention
    be chosen and no sliding window is shorter than an example. Rows with ``shared_prompts`` are read in no other way:
    raises :class:`harness.execution.NotActive` where it does not give the same.
    """
    network = unwrapped(tuned.model)
    usual = network.config._attn_implementation
    window = getattr(network.config, "sliding_window", None)
    chosen = usual == "sdpa" and getattr(network, "_supports_attention_backend", False)
    same = chosen and (window is None or window >= max_length)
    if shared_prompts and not same:
        raise NotActive(
            "execution.shared_prompts: each example is attended by itself, which needs the attention sdpa and no "
            f"sliding window below {max_length} tokens"
        )
    if not same or (tuned.base.device.type != "cpu" and not shared_prompts):
        yield
        return
    AttentionInterface.register(_BY_EXAMPLE, attend_by_example)
    network.set_attn_implementation(_BY_EXAMPLE)
    try:
        with network.register_forward_pre_hook(_with_layout, with_kwargs=True):
            yield
    finally:
        network.set_attn_implementation(usual)
