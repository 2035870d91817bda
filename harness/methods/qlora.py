r"""QLoRA: LoRA on a base held in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

.. math:: h = \mathrm{dequant}(c_1, c_2, W^{NF4})\, x + \frac{\alpha}{r} B A x

The scales :math:`c_2` of the 64-element blocks are quantised again to 8 bits (double quantisation): 4.127 bits per
parameter instead of 4.5.
"""

from __future__ import annotations

from typing import Literal

from bitsandbytes.nn import Linear4bit
from torch import nn
from transformers import BitsAndBytesConfig

from harness.arguments import Count, Dropout, Modules, Positive
from harness.methods.lora import lora_config
from harness.models.load import Base
from harness.networks.fresh import full_precision_modules
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned

#: AdamW with states in 32 or 8 bits (Dettmers et al. 2022, arXiv:2110.02861), paged or not.
Optimizer = Literal["adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]


def keep_exact_on_cpu(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU with AVX512-BF16.

    The repacked layout cannot be differentiated: training after an evaluation would silently get wrong gradients.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def four_bit(base: Base, quant_type: str, double_quant: bool) -> BitsAndBytesConfig:
    """The body's linear layers in 4 bits, computing in the dtype of ``base``."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=base.dtype,
        llm_int8_skip_modules=full_precision_modules(base),
    )


def apply(
    base: Base,
    r: Count = 8,
    alpha: Positive = 16,
    dropout: Dropout = 0.0,
    target_modules: Modules = "all-linear",
    quant_type: Literal["nf4", "fp4"] = "nf4",
    double_quant: bool = True,
    optimizer: Optimizer = "adamw_torch_fused",
) -> Tuned:
    """Quantise the body's linear layers to ``quant_type`` ('nf4' or 'fp4'); LoRA of rank ``r`` in full precision.

    The ``optimizer`` of the paper is 'paged_adamw_32bit', whose states may leave a GPU for main memory.
    """
    tuned = with_peft(
        base,
        lora_config(base, r, alpha, dropout, target_modules),
        optimizer=optimizer,
        quantization_config=four_bit(base, quant_type, double_quant),
    )
    keep_exact_on_cpu(tuned.model)
    return tuned
