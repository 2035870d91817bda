r"""QLoRA: LoRA on a base held in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

.. math:: h = \mathrm{dequant}(c_1, c_2, W^{NF4})\, x + \frac{\alpha}{r} B A x

The scales :math:`c_2` of the 64-element blocks are quantised again to 8 bits (double quantisation): 4.127 bits per
parameter instead of 4.5.
"""

from __future__ import annotations

from typing import Any

from bitsandbytes.nn import Linear4bit
from torch import nn
from transformers import BitsAndBytesConfig

from harness.methods.lora import lora_config
from harness.methods.tuned import Tuned, with_peft
from harness.models.load import Base


def keep_exact_on_cpu(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU with AVX512-BF16.

    The repacked layout cannot be differentiated: training after an evaluation would get wrong gradients without an
    error.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def apply(
    base: Base,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    target_modules: str | list[str] = "all-linear",
    quant_type: str = "nf4",
    double_quant: bool = True,
) -> Tuned:
    """The body's linear layers in ``quant_type`` ('nf4' or 'fp4'), LoRA of rank ``r`` on them in full precision."""
    lora_args: dict[str, Any] = {"r": r, "alpha": alpha, "dropout": dropout, "target_modules": target_modules}
    args = {**lora_args, "quant_type": quant_type, "double_quant": double_quant}
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=base.dtype,
        # The heads stay in full precision: a fresh one must train, and the output projection is tied to the embedding.
        llm_int8_skip_modules=["classifier", "score", "lm_head"],
    )
    tuned = with_peft(base, "qlora", args, lora_config(base, **lora_args), quantization_config=quantization)
    keep_exact_on_cpu(tuned.model)
    return tuned
