r"""Bottleneck adapters: small networks of two layers inside every transformer layer.

.. math:: A(h) = W_{up}\, \sigma(W_{down}\, h + b_{down}) + b_{up}

``houlsby`` (Houlsby et al. 2019, arXiv:1902.00751): :math:`h + A(h)` behind the attention and behind the feed-forward
projection of every layer, before the residual sum. ``pfeiffer`` (Pfeiffer et al. 2021, arXiv:2005.00247): behind the
feed-forward projection alone. ``lin`` (Lin et al. 2020, arXiv:2004.03829): the same with a layer norm of its own in
front, :math:`h + A(\mathrm{LN}(h))`. ``parallel`` (He et al. 2022, arXiv:2110.04366): :math:`\mathrm{FFN}(x) + s A(x)`
beside the feed-forward part, on what that part reads.

:math:`W_{up}` starts at zero, so at first the model's outputs are unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.activations import ACT2FN

from harness.arguments import Count, Positive
from harness.models.load import Base
from harness.networks.structure import Block, blocks, layer_norms, out_features
from harness.networks.tuned import Tuned, train_only

Placing = Literal["houlsby", "pfeiffer", "parallel", "lin"]
Activation = Literal[
    "gelu", "gelu_new", "gelu_pytorch_tanh", "hardswish", "leaky_relu", "mish", "quick_gelu", "relu", "relu2", "relu6",
    "sigmoid", "silu", "swish", "tanh",
]  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """Where the bottlenecks stand and what else trains, as in the variant's paper."""

    after_attention: bool = False
    parallel: bool = False
    own_norm: bool = False
    layer_norms: bool = False


VARIANTS: dict[Placing, Variant] = {
    "houlsby": Variant(after_attention=True, layer_norms=True),
    "pfeiffer": Variant(),
    "parallel": Variant(parallel=True),
    "lin": Variant(own_norm=True),
}


class Bottleneck(nn.Module):
    """``up(act(down(h)))`` on tensors of shape (..., width); ``2 * width * size + width + size`` parameters.

    A norm of its own adds ``2 * width``.
    """

    def __init__(self, width: int, size: int, activation: str, like: torch.Tensor, own_norm: bool = False) -> None:
        super().__init__()
        factory: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        self.norm = nn.LayerNorm(width, **factory) if own_norm else nn.Identity()
        self.down = nn.Linear(width, size, **factory)
        self.activation = ACT2FN[activation]
        self.up = nn.Linear(size, width, **factory)
        nn.init.normal_(self.down.weight, std=1e-2)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Same shape in and out."""
        change: torch.Tensor = self.up(self.activation(self.down(self.norm(hidden))))
        return change


class Parallel(Bottleneck):
    """A bottleneck that reads the input of one module and adds to the output of another."""

    def __init__(self, *args: Any, scale: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.scale = scale
        self._input: torch.Tensor | None = None

    def read(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Keep the input of the feed-forward part until its output comes."""
        self._input = inputs[0]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The change to ``hidden``, of which only the shape is used."""
        given, self._input = self._input, None
        assert given is not None and given.shape == hidden.shape  # noqa: S101 - read() comes first
        return self.scale * super().forward(given)


def _add_change(module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    changed: torch.Tensor = output + module.adapter(output)
    return changed


def _insert(projection: nn.Module, bottleneck: Bottleneck) -> None:
    # A hook rather than a wrapper: the frozen weights keep their names.
    projection.add_module("adapter", bottleneck)
    projection.register_forward_hook(_add_change)


def _places(variant: Variant, block: Block) -> list[nn.Module]:
    return [*(block.attention_out if variant.after_attention else ()), block.feed_forward_out]


def apply(
    base: Base,
    variant: Placing = "houlsby",
    bottleneck: Count = 64,
    activation: Activation = "gelu",
    scale: Positive = 4.0,
    layer_norm: bool | None = None,
) -> Tuned:
    """Bottlenecks of ``bottleneck`` units in every layer, where ``variant`` puts them.

    ``scale`` is the factor of the parallel variant. ``layer_norm`` also trains the model's layer norms; None: as in the
    variant's paper, which only Houlsby's does.
    """
    place = VARIANTS[variant]
    model = base.build()
    torch.manual_seed(base.seed)
    trained: list[nn.Parameter] = []
    for block in list(blocks(model)):
        for projection in _places(place, block):
            width = out_features(projection)
            assert width is not None  # noqa: S101 - blocks() yields linear layers only
            like = next(projection.parameters())
            if place.parallel:
                adapter: Bottleneck = Parallel(width, bottleneck, activation, like, scale=scale)
                block.feed_forward_in.register_forward_pre_hook(adapter.read)
            else:
                adapter = Bottleneck(width, bottleneck, activation, like, own_norm=place.own_norm)
            _insert(projection, adapter)
            trained += adapter.parameters()
    if place.layer_norms if layer_norm is None else layer_norm:
        trained += [p for norm in layer_norms(model) for p in norm.parameters()]
    train_only(model, trained, base)
    return Tuned(base, model)
