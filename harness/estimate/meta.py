"""A base whose networks have shapes but no weights: any method can be applied to a model of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig

from harness.models.formats import torch_dtype
from harness.models.load import Base
from harness.models.shape import from_shape
from harness.models.spec import ModelSpec

#: Elements that share a scale (Dettmers et al. 2023, section 3), and scales that share one of the second level.
BLOCK, NESTED_BLOCK = 64, 256
#: What configurations call the number of layers; an encoder-decoder has one for each part.
LAYER_COUNTS = ("num_hidden_layers", "num_decoder_layers", "decoder_layers")


@dataclass(frozen=True)
class MetaBase(Base):
    """A :class:`harness.models.load.Base` on the ``meta`` device; methods work on it unchanged."""

    layers: int | None = None
    """Build this many layers instead of the model's own number."""

    def config(self) -> PretrainedConfig:
        """The shape of what :meth:`build` makes."""
        config = self.spec.transformers_config()
        if self.has_head:
            config.num_labels = 1 if self.scalar else len(self.labels or ())
        if self.layers is not None:
            for name in LAYER_COUNTS:
                if hasattr(config, name):
                    setattr(config, name, self.layers)
            if getattr(config, "layer_types", None):
                config.layer_types = config.layer_types[: self.layers]
        return config

    def build(self, **load_args: Any) -> nn.Module:
        """The network on the meta device; with a ``quantization_config``, with packed weights and their scales."""
        auto = self._auto
        quantization: BitsAndBytesConfig | None = load_args.pop("quantization_config", None)
        with self.device:
            model = from_shape(auto, self.config(), dtype=self.dtype, **load_args)
            if quantization is not None:
                quantise(model, quantization)
        return self.settled(model)


def meta_base(
    spec: ModelSpec, dtype: str, labels: tuple[str, ...] | None = ("0", "1"), layers: int | None = None
) -> MetaBase:
    """The base of ``spec`` without weights; an encoder gets a head for ``labels``."""
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    return MetaBase(
        spec=spec,
        tokenizer=tokenizer,
        checkpoint=None,
        dtype=torch_dtype(dtype),
        device=torch.device("meta"),
        seed=0,
        labels=labels if spec.kind == "encoder" else None,
        layers=layers,
    )


def quantise(model: nn.Module, config: BitsAndBytesConfig) -> None:
    """Put packed 4-bit weights, shapes only, where transformers would put them when it loads a checkpoint."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers.quantizers import AutoHfQuantizer

    dtype = model.dtype
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None, dtype=dtype, keep_in_fp32_modules=[])
    quantizer.postprocess_model(model)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            if module.bias is not None:
                module.bias = nn.Parameter(torch.empty_like(module.bias, dtype=dtype), requires_grad=False)
            shape = module.weight.shape
            module.weight = Params4bit(
                torch.empty((shape.numel() + 1) // 2, 1, dtype=torch.uint8),
                requires_grad=False,
                quant_state=_state(shape, config, dtype),
                compress_statistics=config.bnb_4bit_use_double_quant,
                quant_type=config.bnb_4bit_quant_type,
                bnb_quantized=True,
                module=module,
            )
            module.quant_state = module.weight.quant_state


def _state(shape: torch.Size, config: BitsAndBytesConfig, dtype: torch.dtype) -> Any:
    """The tensors beside a packed weight: one scale per block, 8-bit scales under double quantisation."""
    from bitsandbytes.functional import QuantState

    blocks = -(-shape.numel() // BLOCK)
    double = config.bnb_4bit_use_double_quant
    second = QuantState(
        absmax=torch.empty(-(-blocks // NESTED_BLOCK)),
        code=torch.empty(256),
        blocksize=NESTED_BLOCK,
        dtype=torch.float32,
    )
    return QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if double else torch.float32),
        shape=shape,
        dtype=dtype,
        blocksize=BLOCK,
        code=torch.empty(16),
        quant_type=config.bnb_4bit_quant_type,
        offset=torch.empty(()) if double else None,
        state2=second if double else None,
    )
