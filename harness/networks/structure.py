"""Find the parts of a transformer by its structure, not by a list of class names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Block:
    """One transformer layer, with the projections whose outputs are added to the residual stream."""

    module: nn.Module
    attention_out: tuple[nn.Module, ...]
    """One, or two where a decoder layer also attends to an encoder."""
    feed_forward_in: nn.Module
    """The first projection that reads the input of the feed-forward part."""
    feed_forward_out: nn.Module


def unwrapped(model: nn.Module) -> Any:
    """The network itself, out of PEFT's wrapper where it has one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def body(model: nn.Module) -> nn.Module:
    """The network without its head; transformers calls it the base model."""
    inner = getattr(model, "base_model", model)
    assert isinstance(inner, nn.Module)  # noqa: S101 - transformers' own property
    return inner


def out_features(module: nn.Module) -> int | None:
    """Width of a linear layer's output; GPT-2 keeps its matrices transposed in ``Conv1D``. None for anything else."""
    if isinstance(module, Conv1D):
        return int(module.nf)
    return int(module.out_features) if isinstance(module, nn.Linear) else None


def in_features(module: nn.Module) -> int | None:
    """Width of a linear layer's input; None for anything else."""
    if isinstance(module, Conv1D):
        return int(module.nx)
    return int(module.in_features) if isinstance(module, nn.Linear) else None


def _last_projection(module: nn.Module, width: int) -> nn.Module | None:
    projections = [m for m in module.modules() if out_features(m) == width]
    return projections[-1] if projections else None


def blocks(model: nn.Module) -> Iterator[Block]:
    """The transformer layers, in order.

    A layer is an item of a module list with an attention part. Its projections back to the residual stream are the last
    linear layers of model width, one inside each attention part and one in the rest of the layer. This holds for the
    Llama, Gemma, Qwen2, GPT-2, GPT-NeoX, BERT, RoBERTa, DeBERTa and T5 families. Raises ValueError for a network
    without such layers.
    """
    width = int(model.config.hidden_size)
    has_layers = False
    for stack in body(model).modules():
        if not isinstance(stack, nn.ModuleList):
            continue
        for layer in stack:
            inside = dict(layer.named_modules())
            names = [name for name in inside if name and "attention" in _kind(inside[name])]
            outermost = [n for n in names if not any(n.startswith(f"{other}.") for other in names)]
            attention = [p for n in outermost if (p := _last_projection(inside[n], width)) is not None]
            if not attention:
                continue
            within = {id(m) for n in outermost for m in inside[n].modules()}
            rest = [m for m in layer.modules() if id(m) not in within]
            reading = [m for m in rest if in_features(m) == width]
            writing = [m for m in rest if out_features(m) == width]
            if reading and writing:
                has_layers = True
                yield Block(layer, tuple(attention), reading[0], writing[-1])
    if not has_layers:
        raise ValueError(f"no transformer layers found in {type(model).__name__}")


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()


def linear_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every linear layer inside."""
    for name, inner in module.named_modules():
        if out_features(inner) is not None:
            yield name, inner


def final_norm(model: nn.Module) -> nn.Module | None:
    """The normalisation behind the last layer; None if a family has none (BERT, RoBERTa)."""
    inside = {id(m) for block in blocks(model) for m in block.module.modules()}
    *_, last_block = blocks(model)
    order = {id(m): place for place, m in enumerate(body(model).modules())}
    behind = [n for n in layer_norms(model) if id(n) not in inside and order[id(n)] > order[id(last_block.module)]]
    return behind[-1] if behind else None


def layer_norms(model: nn.Module) -> Iterator[nn.Module]:
    """The normalisation layers of the body: LayerNorm and the RMSNorm of each family."""
    return filter(is_norm, body(model).modules())


def is_norm(module: nn.Module) -> bool:
    """Whether it is a normalisation layer, by its class's name."""
    return "norm" in _kind(module) and next(module.children(), None) is None
