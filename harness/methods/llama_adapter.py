r"""LLaMA-Adapter: prompts in the last layers, behind a gate that starts shut (Zhang et al. 2023, arXiv:2303.16199).

.. math:: h = \mathrm{Attn}(x) + g_l\, \mathrm{softmax}\big(Q\,K_{P_l}^\top / \sqrt{d}\big)\,V_{P_l},
          \qquad g_l = 0 \text{ at first}

So at first the model's outputs are unchanged, whatever the prompts :math:`P_l` are.
"""

from __future__ import annotations

from peft import AdaptionPromptConfig
from torch import nn

from harness.arguments import Count
from harness.errors import InputError
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned


def apply(base: Base, adapter_len: Count = 10, adapter_layers: Count | None = None) -> Tuned:
    """``adapter_len`` prompt tokens in the last ``adapter_layers`` layers; None: in all but the first two.

    The paper takes 10 tokens in the last 30 of LLaMA-7B's 32 layers. Raises :class:`harness.errors.InputError` for a
    number of layers that the model does not have.
    """

    def config(model: nn.Module) -> AdaptionPromptConfig:
        count = int(model.config.num_hidden_layers)
        layers = max(count - 2, 1) if adapter_layers is None else adapter_layers
        if layers > count:
            raise InputError(f"llama_adapter.adapter_layers: {layers} is not between 1 and the model's {count} layers")
        return AdaptionPromptConfig(task_type=base.peft_task_type, adapter_len=adapter_len, adapter_layers=layers)

    return with_peft(base, config)
