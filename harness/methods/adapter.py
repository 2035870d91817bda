r"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751).

.. math:: A(h) = h + W_{up}\, \sigma(W_{down}\, h + b_{down}) + b_{up}

After the attention and after the feed-forward projection of every layer, before the residual sum.
:math:`W_{up}` starts at zero, so at first the model's outputs are unchanged.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from harness.methods.structure import blocks, layer_norms, out_features
from harness.methods.tuned import Tuned, train_only
from harness.models.load import Base


class Bottleneck(nn.Module):
    """``h + up(act(down(h)))`` on tensors of shape (..., width); ``2 * width * size + width + size`` parameters."""

    def __init__(self, width: int, size: int, activation: str, like: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, dtype=like.dtype, device=like.device)
        self.activation = ACT2FN[activation]
        self.up = nn.Linear(size, width, dtype=like.dtype, device=like.device)
        nn.init.normal_(self.down.weight, std=1e-2)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Same shape in and out."""
        adapted: torch.Tensor = hidden + self.up(self.activation(self.down(hidden)))
        return adapted


def _insert(projection: nn.Module, bottleneck: Bottleneck) -> None:
    # A hook rather than a wrapper: the frozen weights keep their names.
    projection.add_module("adapter", bottleneck)
    projection.register_forward_hook(lambda _module, _inputs, output: bottleneck(output))


def apply(base: Base, bottleneck: int = 64, activation: str = "gelu", layer_norm: bool = True) -> Tuned:
    """Two bottlenecks of ``bottleneck`` units in every layer; like the paper, the layer norms train too."""
    args = {"bottleneck": bottleneck, "activation": activation, "layer_norm": layer_norm}
    model = base.build()
    torch.manual_seed(base.seed)
    trained: list[nn.Parameter] = []
    for block in list(blocks(model)):
        for projection in (*block.attention_out, block.feed_forward_out):
            width = out_features(projection)
            assert width is not None  # noqa: S101 - blocks() yields linear layers only
            adapter = Bottleneck(width, bottleneck, activation, next(projection.parameters()))
            _insert(projection, adapter)
            trained += adapter.parameters()
    if layer_norm:
        trained += [p for norm in layer_norms(model) for p in norm.parameters()]
    train_only(model, trained, base)
    return Tuned(base, "adapter", args, model)
