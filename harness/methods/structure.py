"""Finding the parts of a transformer by its structure, not by a list of class names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Block:
    """One transformer layer, with the projections whose outputs are added to the residual stream."""

    module: nn.Module
    attention_out: tuple[nn.Module, ...]
    """One, or two where a decoder layer also attends to an encoder."""
    feed_forward_out: nn.Module


def body(model: nn.Module) -> nn.Module:
    """The network without its head: what transformers calls the base model."""
    inner = getattr(model, "base_model", model)
    assert isinstance(inner, nn.Module)  # noqa: S101 - transformers' own property
    return inner


def out_features(module: nn.Module) -> int | None:
    """Width of a linear layer's output; GPT-2 keeps its matrices transposed in ``Conv1D``. Null for anything else."""
    if isinstance(module, Conv1D):
        return int(module.nf)
    return int(module.out_features) if isinstance(module, nn.Linear) else None


def _last_projection(module: nn.Module, width: int) -> nn.Module | None:
    found = [m for m in module.modules() if out_features(m) == width]
    return found[-1] if found else None


def blocks(model: nn.Module) -> Iterator[Block]:
    """The transformer layers, in order.

    A layer is an item of a module list that holds an attention part. Its projections back to the residual stream are
    the last linear layers of model width inside each attention part and in what remains, which holds for the Llama,
    GPT-2, GPT-NeoX, BERT, RoBERTa and T5 families. Raises ValueError for a network without such layers.
    """
    width = int(model.config.hidden_size)
    found = False
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
            rest = [m for m in layer.modules() if id(m) not in within and out_features(m) == width]
            if rest:
                found = True
                yield Block(layer, tuple(attention), rest[-1])
    if not found:
        raise ValueError(f"no transformer layers found in {type(model).__name__}")


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()


def layer_norms(model: nn.Module) -> Iterator[nn.Module]:
    """The normalisation layers of the body: LayerNorm and the RMSNorm of each family."""
    for module in body(model).modules():
        if "norm" in _kind(module) and next(module.children(), None) is None:
            yield module
