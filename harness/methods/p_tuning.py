r"""P-tuning: virtual tokens whose embeddings a small network computes (Liu et al. 2021, arXiv:2103.10385).

.. math:: [f_\phi(e_1, \ldots, e_p); X],
          \qquad f_\phi = \text{MLP} \circ \text{BiLSTM}, \quad e \text{ and } \phi \text{ train}

After training :math:`f_\phi(e)` is all that is kept.
"""

from __future__ import annotations

from typing import Literal

from peft import PromptEncoderConfig

from harness.arguments import Count
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned


def apply(
    base: Base,
    num_virtual_tokens: Count = 16,
    encoder: Literal["lstm", "mlp"] = "lstm",
    encoder_hidden_size: Count = 128,
    encoder_num_layers: Count = 2,
) -> Tuned:
    """``num_virtual_tokens`` before the input, computed by ``encoder``: 'lstm' (bidirectional, then an MLP; the
    paper's) or 'mlp' (three linear layers; ``encoder_num_layers`` does not count there)."""
    config = PromptEncoderConfig(
        task_type=base.peft_task_type,
        num_virtual_tokens=num_virtual_tokens,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=encoder_hidden_size,
        encoder_num_layers=encoder_num_layers,
    )
    return with_peft(base, config)
