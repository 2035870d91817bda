"""Networks from a configuration alone, with the layers that a published checkpoint of that shape has."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig


def from_shape(auto: Any, config: PretrainedConfig, **args: Any) -> nn.Module:
    """A network of the class ``auto`` and the shape ``config``; ``args`` go to ``from_config``.

    T5 v1.1 and FLAN-T5 do not share their output layer with the embedding. Transformers reads from their configuration
    only that they do not scale its inputs, and takes the layer from a checkpoint; without one it would be shared.
    """
    model: nn.Module = auto.from_config(config, trust_remote_code=False, **args)
    output = model.get_output_embeddings()
    if getattr(config, "scale_decoder_outputs", True) is False and output is not None:
        output.weight = nn.Parameter(output.weight.detach().clone())
        names = {id(module): name for name, module in model.named_modules()}
        model.all_tied_weights_keys.pop(f"{names[id(output)]}.weight", None)
    return model
