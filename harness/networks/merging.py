"""Fold the trained change into the frozen weights for a while, to measure a merged model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

Merge = Callable[[], contextlib.AbstractContextManager[nn.Module]]


def can_merge(model: PeftModel) -> bool:
    """Whether PEFT can fold the adapter into the weights without loss; never true for quantised weights."""
    layers = _layers(model).values()
    return bool(layers) and all(hasattr(layer, "merge") and _has_plain_weight(layer) for layer in layers)


def _layers(model: PeftModel) -> dict[str, BaseTunerLayer]:
    """The layers that PEFT has wrapped, by their names in the plain network; empty for a soft prompt."""
    if not isinstance(model.base_model, BaseTuner):
        return {}
    return {name: m for name, m in model.base_model.model.named_modules() if isinstance(m, BaseTunerLayer)}


def _has_plain_weight(layer: BaseTunerLayer) -> bool:
    weight = getattr(layer.get_base_layer(), "weight", None)
    return isinstance(weight, torch.Tensor) and weight.is_floating_point()


@contextlib.contextmanager
def merged_peft(model: PeftModel) -> Iterator[nn.Module]:
    """The plain transformers model with the adapter folded in, as it would be served; restored afterwards.

    Copies of the weights wait in main memory, because subtracting the adapter again would leave rounding errors.
    """
    plain = model.base_model.model
    layers = _layers(model)
    frozen_weights = {name: {k: p.detach().cpu().clone() for k, p in layer.get_base_layer().named_parameters()}
            for name, layer in layers.items()}  # fmt: skip
    model.merge_adapter()
    for name, layer in layers.items():
        _replace(plain, name, layer.get_base_layer())
    try:
        yield plain
    finally:
        for name, layer in layers.items():
            _replace(plain, name, layer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "unmerge can be inaccurate": it is not, the copies see to that
            model.unmerge_adapter()
        with torch.no_grad():
            for name, layer in layers.items():
                for key, parameter in layer.get_base_layer().named_parameters():
                    parameter.copy_(frozen_weights[name][key])


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    setattr(root.get_submodule(path), last, module)
