r"""BitFit: only the biases train (Ben Zaken et al. 2022, arXiv:2106.10199).

In every layer :math:`h = Wx + b`, the matrix :math:`W` is frozen and :math:`b` moves.
"""

from __future__ import annotations

import torch
from torch import nn

from harness.models.load import Base
from harness.networks.structure import body
from harness.networks.tuned import Tuned, train_only


def apply(base: Base) -> Tuned:
    """Every existing bias trains, those of the layer norms included.

    A model whose linear layers have none (Llama, Gemma, T5) gets a zero-initialised bias on every linear layer of its
    body: the outputs stay the same, but it is no longer the paper's setting, so the note says it.
    """
    model = base.build()
    added = 0
    if not any(name.endswith("bias") for name, _ in body(model).named_parameters()):
        for module in body(model).modules():
            if isinstance(module, nn.Linear) and module.bias is None and module is not model.get_output_embeddings():
                zeros = torch.zeros(module.out_features, dtype=module.weight.dtype, device=module.weight.device)
                module.bias = nn.Parameter(zeros)
                added += 1
    biases = [p for name, p in body(model).named_parameters() if name.endswith("bias")]
    train_only(model, biases, base)
    return Tuned(base, model, note=f"{added} zero-initialised biases added" if added else None)
