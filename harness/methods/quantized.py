r"""No training: the linear layers of the body in fewer bits, to see what quantisation alone costs.

``int8`` is LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339), ``nf4`` and ``fp4`` are QLoRA's data types (Dettmers et
al. 2023, arXiv:2305.14314), all by bitsandbytes. ``absmax_int8`` and ``absmax_int4`` are the plain symmetric kind:

.. math:: c = \mathrm{round}\Big(\frac{q}{\max |w|}\, w\Big), \qquad q = 2^{b-1} - 1,
          \qquad \hat w = \frac{\max |w|}{q}\, c

with one scale per matrix, per output channel, or per group of consecutive inputs of a channel.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal

import torch
from bitsandbytes.nn import Linear8bitLt
from torch import nn
from torch.nn import functional
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from harness.arguments import Count
from harness.methods.baseline import zero_shot
from harness.methods.qlora import four_bit, keep_exact_on_cpu
from harness.models.load import Base
from harness.networks.fresh import full_precision_modules
from harness.networks.structure import body, linear_layers
from harness.networks.tuned import Tuned

Scheme = Literal["int8", "nf4", "fp4", "absmax_int8", "absmax_int4"]
Granularity = Literal["per_tensor", "per_channel", "per_group"]
#: Bits of the plain schemes.
_ABSMAX_BITS: dict[Scheme, int] = {"absmax_int8": 8, "absmax_int4": 4}


def quantize_absmax(
    weight: torch.Tensor, bits: int, granularity: str, group_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (rows, groups, group) as int8, and float32 scales that broadcast against them.

    ``weight`` is (rows, columns); zeros pad an incomplete last group.
    """
    rows, columns = weight.shape
    group = group_size if granularity == "per_group" else columns
    parts = functional.pad(weight.float(), (0, -columns % group)).view(rows, -1, group)
    largest = parts.abs().amax() if granularity == "per_tensor" else parts.abs().amax(-1, keepdim=True)
    scales = largest.view(-1, *largest.shape[1:]) if largest.dim() else largest.view(1, 1, 1)
    scales = scales / (2 ** (bits - 1) - 1)
    # A group of zeros has no scale; its codes are zero with any.
    codes = (parts / torch.where(scales > 0, scales, 1)).round().to(torch.int8)
    return codes, scales


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Codes from -8 to 7, two to a byte: the first in the lower half. An odd number is padded."""
    pairs = functional.pad(codes.flatten() + 8, (0, codes.numel() % 2)).to(torch.uint8).view(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def unpack_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first ``count`` codes of the packed tensor from :func:`pack_nibbles`, as int8 in one dimension."""
    both = torch.stack([packed & 15, packed >> 4], -1).flatten()[:count]
    return both.to(torch.int8) - 8


class AbsmaxLinear(nn.Module):
    """A linear layer with integer codes and scales for a weight, dequantised for each product."""

    scales: torch.Tensor

    def __init__(self, layer: nn.Module, bits: int, granularity: str, group_size: int) -> None:
        super().__init__()
        weight = layer.weight.detach()
        weight = weight.T if isinstance(layer, Conv1D) else weight
        codes, scales = quantize_absmax(weight, bits, granularity, group_size)
        self.bits, self.dtype, self.columns, self.grouped = bits, weight.dtype, weight.shape[1], codes.shape
        self.weight = nn.Parameter(pack_nibbles(codes) if bits == 4 else codes, requires_grad=False)
        # Where bitsandbytes keeps it too: what the packed tensor stands for.
        self.weight.quant_state = SimpleNamespace(shape=weight.shape)
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def dequantized(self) -> torch.Tensor:
        """The weight that the codes stand for, (rows, columns)."""
        codes = unpack_nibbles(self.weight, math.prod(self.grouped)) if self.bits == 4 else self.weight
        parts = codes.view(self.grouped) * self.scales
        return parts.flatten(1)[:, : self.columns].to(self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like the layer that it replaces."""
        return functional.linear(x, self.dequantized(), self.bias)


def apply(
    base: Base,
    scheme: Scheme = "nf4",
    granularity: Granularity = "per_channel",
    group_size: Count = 64,
    double_quant: bool = False,
) -> Tuned:
    """The model in ``scheme``; nothing trains.

    ``granularity`` and ``group_size`` (inputs that share a scale) belong to the absmax schemes, ``double_quant`` to
    'nf4' and 'fp4'.
    """
    if scheme in _ABSMAX_BITS:
        bits = _ABSMAX_BITS[scheme]
        model = base.build()
        _replace_layers(body(model), lambda layer: AbsmaxLinear(layer, bits, granularity, group_size))
    elif scheme == "int8":
        # It would say in every layer of every pass that the inputs are cast to float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        eight_bit = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=full_precision_modules(base))
        model = base.build(quantization_config=eight_bit)
        _show_scales(model)
    else:
        model = base.build(quantization_config=four_bit(base, scheme, double_quant))
        keep_exact_on_cpu(model)
    return Tuned(base, zero_shot(base, model))


def _show_scales(model: nn.Module) -> None:
    """Turn the scales of LLM.int8 into buffers, which count as weights; bitsandbytes stores them elsewhere."""
    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            module.register_buffer("scales", module.weight.SCB, persistent=False)


def _replace_layers(root: nn.Module, make: Callable[[nn.Module], nn.Module]) -> None:
    for name, layer in list(linear_layers(root)):
        path, _, last = name.rpartition(".")
        setattr(root.get_submodule(path), last, make(layer))
