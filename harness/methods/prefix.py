r"""Prefix tuning: trainable keys and values before those of every attention layer (Li & Liang 2021, arXiv:2101.00190).

.. math:: \mathrm{Attn}(x) = \mathrm{softmax}\big(Q\,[P_K; K]^\top / \sqrt{d}\big)\,[P_V; V]
"""

from __future__ import annotations

from peft import PrefixTuningConfig

from harness.arguments import Count
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned


def apply(
    base: Base,
    num_virtual_tokens: Count = 16,
    prefix_projection: bool = False,
    encoder_hidden_size: Count | None = None,
) -> Tuned:
    """``num_virtual_tokens`` positions in every layer; ``prefix_projection`` makes them the output of an MLP
    (the paper's reparameterisation) of ``encoder_hidden_size`` units, by default the model's width."""
    config = PrefixTuningConfig(
        task_type=base.peft_task_type,
        num_virtual_tokens=num_virtual_tokens,
        prefix_projection=prefix_projection,
        encoder_hidden_size=encoder_hidden_size,
    )
    return with_peft(base, config)
