"""Which layers of a network read the very same tensor: what multiplies it for one of them can for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


@torch.inference_mode()
def read_together(network: nn.Module, layers: Sequence[str]) -> list[list[str]]:
    """``layers`` (names in ``network``, a decoder) in groups that read the same tensor, in the order in which they run.

    Seen in a pass of one token, whatever the architecture calls its layers. A layer that this pass leaves out, such as
    an expert, stands alone behind the others.
    """
    if not layers:
        return []
    groups: dict[int, list[str]] = {}
    seen: set[str] = set()
    read: list[Tensor] = []  # alive until the end, so that no two of them have one id

    def sees(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read.append(inputs[0])
            if layer not in seen:  # some networks run a layer several times
                groups.setdefault(id(inputs[0]), []).append(layer)
                seen.add(layer)

        return hook

    modules = dict(network.named_modules())
    hooks = [modules[layer].register_forward_pre_hook(sees(layer)) for layer in layers]
    try:
        network(input_ids=torch.zeros(1, 1, dtype=torch.long, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return [*groups.values(), *([layer] for layer in layers if layer not in seen)]
