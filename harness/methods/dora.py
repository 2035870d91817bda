r"""DoRA: LoRA moves the direction of a matrix, a vector of its own the magnitude (Liu et al. 2024, arXiv:2402.09353).

.. math:: W' = m\, \frac{W_0 + \frac{\alpha}{r} B A}{\lVert W_0 + \frac{\alpha}{r} B A \rVert_c},
          \qquad m = \lVert W_0 \rVert_c \text{ at first}

The norm is that of each output's row of weights; at first the model's outputs are unchanged.
"""

from __future__ import annotations

from harness.arguments import Count, Dropout, Modules, Positive
from harness.methods.lora import lora_config
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned


def apply(
    base: Base,
    r: Count = 8,
    alpha: Positive = 16,
    dropout: Dropout = 0.0,
    target_modules: Modules = "all-linear",
) -> Tuned:
    """Rank ``r`` on ``target_modules``, and one magnitude for every output of those layers."""
    return with_peft(base, lora_config(base, r, alpha, dropout, target_modules, use_dora=True))
