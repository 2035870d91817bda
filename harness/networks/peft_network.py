"""Networks that PEFT has wrapped: how to build them, where virtual tokens stand, and what a tuner adds to a loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from peft import PeftConfig, PeftModel, PeftType, PromptLearningConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from torch import nn
from transformers import PretrainedConfig

from harness.errors import InputError
from harness.models.load import Base
from harness.models.whole_texts import padding_behind_text
from harness.networks.fresh import fresh_modules
from harness.networks.merging import can_merge, merged_peft
from harness.networks.soft_prompts import generate_behind_padding, pool_real_tokens
from harness.networks.structure import body
from harness.networks.tuned import Tuned

#: Types whose virtual tokens stand before the text, as embeddings.
_IN_FRONT = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)


def with_peft(
    base: Base,
    config: PeftConfig | Callable[[nn.Module], PeftConfig],
    *,
    optimizer: str = "adamw_torch_fused",
    **load_args: Any,
) -> Tuned:
    """Build the base and wrap it with PEFT; the same seed gives the same initial adapter.

    ``config`` may be a function of the network, which finds the adapter's places by structure. Raises
    :class:`harness.errors.InputError` if PEFT cannot put this adapter into this architecture.
    """
    model = base.build(**load_args)
    torch.manual_seed(base.seed)
    if not isinstance(config, PeftConfig):
        config = config(model)
    _settle(config, base, model)
    try:
        model = get_peft_model(model, config, low_cpu_mem_usage=base.device.type == "meta").eval()
    except (ValueError, TypeError, KeyError, NotImplementedError, AttributeError) as error:
        kind = config.peft_type.value if hasattr(config.peft_type, "value") else config.peft_type
        raise InputError(f"PEFT's {kind} on {model.config.model_type}: {str(error).splitlines()[0]}") from error
    place_virtual_tokens(model, base)
    # Rank budgets that are allocated while training goes on (AdaLoRA).
    allocate = getattr(model.base_model, "update_and_allocate", None)
    return Tuned(
        base,
        model,
        optimizer=optimizer,
        after_step=allocate,
        merge=partial(merged_peft, model) if can_merge(model) else None,
        loss_term=partial(_added_to_a_loss, model.base_model) if _adds_to_a_loss(model.base_model) else None,
    )


def _settle(config: PeftConfig, base: Base, network: nn.Module) -> None:
    """Tell PEFT which fresh layers to train and store, and the shape that virtual tokens need.

    PEFT knows heads by two names only. It also reads a width off the configuration, under several names, and that may
    not be the embedding's width. Raises :class:`harness.errors.InputError` for a prefix on a network without keys and
    values.
    """
    if fresh := [own for name in fresh_modules(base, network) for own in _unmistakable(network, name)]:
        # The configuration of adaption prompts has no such field; PEFT asks for the attribute.
        config.modules_to_save = sorted({*(getattr(config, "modules_to_save", None) or ()), *fresh})
    if not isinstance(config, PromptLearningConfig):
        return
    shape, in_layers = network.config.get_text_config(), config.peft_type not in _IN_FRONT
    if in_layers and not any("past_key_values" in signature(m.forward).parameters for m in (network, body(network))):
        raise InputError(f"PEFT's {config.peft_type.value} on {network.config.model_type}: it takes no keys and values")
    if base.reads_apart:
        # In front of the encoder's text alone (Lester et al. 2021); keys and values are those of the decoder's layers.
        config.num_transformer_submodules = 2 if in_layers else 1
        shape = network.get_decoder().config if in_layers else shape
    width = _width(shape) if in_layers else network.get_input_embeddings().embedding_dim
    config.token_dim = config.token_dim or width
    config.num_layers = config.num_layers or _layers_with_keys(shape)
    config.num_attention_heads = config.num_attention_heads or shape.num_attention_heads


def _width(shape: PretrainedConfig) -> int:
    """Width of the keys of all heads of a layer, were each query head to have its own."""
    head = getattr(shape, "head_dim", None) or getattr(shape, "d_kv", None)
    return int(shape.num_attention_heads * head if head else shape.hidden_size)


def _layers_with_keys(shape: PretrainedConfig) -> int:
    """Number of layers of a decoder; an encoder-decoder may have another number in its encoder."""
    names = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    return int(next(value for name in names if (value := getattr(shape, name, None)) is not None))


def _unmistakable(network: nn.Module, name: str) -> list[str]:
    """Names by which PEFT, which compares the ends of names, finds that module and no other.

    PEFT adds its own names of heads, whole. For any other module the names are those of its layers, each with a dot:
    plain 'head' would also match the 'mlp_head' of p-tuning's encoder.
    """
    if name in SEQ_CLS_HEAD_NAMES:
        return [name]
    module = network.get_submodule(name)
    if next(module.parameters(recurse=False), None) is not None:
        return [name]
    return [own for child, _ in module.named_children() for own in _unmistakable(network, f"{name}.{child}")]


def _adds_to_a_loss(tuner: nn.Module) -> bool:
    """Whether a tuner of PEFT changes the loss: AdaLoRA's adds its orthogonality."""
    return isinstance(tuner, BaseTuner) and type(tuner).forward is not BaseTuner.forward


def _added_to_a_loss(tuner: nn.Module) -> torch.Tensor:
    """The term that the tuner adds to a loss, found by giving it a loss of 0."""
    zero = torch.zeros((), device=next(tuner.parameters()).device)
    with mock.patch.object(tuner.model, "forward", lambda: SimpleNamespace(loss=zero)):
        added: torch.Tensor = tuner.forward().loss
    return added


def place_virtual_tokens(model: PeftModel, base: Base) -> None:
    """Put virtual tokens between padding and text, and make an encoder's head read the text."""
    config = model.peft_config["default"]
    if base.has_head:
        padding_behind_text(model)
    # An encoder-decoder reads its prompts padded behind the text: there PEFT does it right.
    if isinstance(config, PromptLearningConfig) and config.peft_type in _IN_FRONT and not base.reads_apart:
        generate_behind_padding(model)
        if base.kind == "encoder":
            pool_real_tokens(model)
