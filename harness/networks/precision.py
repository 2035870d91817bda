"""One rule of precision for every method: trained parameters are float32, and a 16-bit network computes in 16 bits.

An update of AdamW at a usual rate is smaller than the distance between two neighbouring bfloat16 numbers. Added to a
weight in that format, most of it is rounded away (Micikevicius et al. 2018, arXiv:1710.03740, section 3.1). PEFT casts
its adapters for that reason. Here every trainable parameter is cast, whatever its method, and the network runs under
autocast. Products are then in the format of the base, in training and in evaluation alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from harness.networks.structure import is_norm, unwrapped
from harness.networks.tuned import Tuned

#: Formats too coarse for the sum of small updates.
_COARSE = (torch.bfloat16, torch.float16)


def hold_master_weights(tuned: Tuned) -> Tuned:
    """``tuned`` with float32 trainable parameters; its network computes in the format of its base.

    Nothing changes if that format is float32, or if nothing trains.
    """
    base = tuned.base
    if base.dtype not in _COARSE or not base.master_weights or not tuned.trainable:
        return tuned
    for parameter in _held(tuned.model):
        parameter.data = parameter.data.float()
    # PEFT calls its own forward in training, the network's in generation, and sometimes neither but their parts.
    network = unwrapped(tuned.model)
    for module in dict.fromkeys((tuned.model, network)):
        compute_in(module, base.dtype, base.device.type)
    _share_inputs(tuned.model)
    # What a prompt's own network gives is stored as it is, in 32 bits.
    for encoder in getattr(tuned.model, "prompt_encoder", {}).values():
        compute_in(encoder, torch.float32, base.device.type)
    return tuned


def _share_inputs(model: nn.Module) -> None:
    """Let LoRA's layers read their input as it is, where autocast casts what they multiply it with.

    PEFT casts the input to float32 in each layer, and autocast casts that back: the same numbers, but a copy for each
    layer, kept for the backward pass, where the keys, queries and values of a block read one tensor. Whether PEFT does
    so depends on the device too: its 4-bit layers look for autocast on CUDA alone. Variants such as DoRA compute norms
    in the format of the input, and keep the cast.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module.cast_input_dtype_enabled = False


def _held(model: nn.Module) -> list[nn.Parameter]:
    """The trained parameters, each once; a normalisation needs all of its few parameters in one format."""
    held: dict[int, nn.Parameter] = {}
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        together = is_norm(module) and any(p.requires_grad for p in own)
        held |= {id(p): p for p in own if p.requires_grad or together}
    return list(held.values())


@contextlib.contextmanager
def as_served(tuned: Tuned) -> Iterator[nn.Module]:
    """The network with everything in the format of its base, as it would be served; restored afterwards.

    Under autocast every call casts the float32 parameters anew. That costs time, and no served model pays it.
    """
    dtype = tuned.base.dtype
    held = _held(tuned.model) if dtype in _COARSE else []
    full = [parameter.data for parameter in held]
    for parameter in held:
        parameter.data = parameter.data.to(dtype)
    try:
        yield tuned.model
    finally:
        for parameter, data in zip(held, full, strict=True):
            parameter.data = data


def compute_in(module: nn.Module, dtype: torch.dtype, device_type: str) -> None:
    """Run every call of ``module`` under autocast to ``dtype``; float32 needs none, and one wrapper is enough."""
    if _ENTERED in module.__dict__:
        return
    module.__dict__[_ENTERED] = []
    # Shapes without weights are traced as on a CPU.
    where = "cpu" if device_type == "meta" else device_type
    module.register_forward_pre_hook(partial(_enter, where, dtype), prepend=True)
    module.register_forward_hook(_leave, always_call=True)


#: Attribute of a module that holds what its calls have entered, so that a copy of the network has its own.
_ENTERED = "entered_autocast"


def _enter(device_type: str, dtype: torch.dtype, module: nn.Module, _inputs: Any) -> None:
    coarse = dtype in _COARSE
    context = torch.autocast(device_type, dtype if coarse else torch.bfloat16, enabled=coarse)
    context.__enter__()
    module.__dict__[_ENTERED].append(context)


def _leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
    module.__dict__[_ENTERED].pop().__exit__(None, None, None)
