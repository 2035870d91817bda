r"""IA3: learned vectors rescale keys, values and inner activations (Liu et al. 2022, arXiv:2205.05638).

.. math:: \mathrm{softmax}\Big(\frac{Q\,(l_k \odot K)^\top}{\sqrt{d}}\Big)(l_v \odot V),
          \qquad (l_{ff} \odot \gamma(W_1 x))\,W_2

All three start at one, so at first the model's outputs are unchanged.
"""

from __future__ import annotations

from functools import partial

from peft import IA3Config
from torch import nn

from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.structure import blocks, linear_layers
from harness.networks.tuned import Tuned

#: Last part of the names of key and value projections. GPT-2 and GPT-NeoX compute query, key and value in one: there
#: the query is scaled too, which the scale of the key could have done as well.
_KEYS_AND_VALUES = frozenset(
    {"k_proj", "v_proj", "key", "value", "k", "v", "key_proj", "value_proj", "query_key_value", "c_attn"}
)


def apply(base: Base) -> Tuned:
    """One vector on the keys, one on the values and one on the inner activations of every layer."""
    return with_peft(base, partial(_config, base))


def _config(base: Base, model: nn.Module) -> IA3Config:
    keys_and_values, feed_forward = _targets(model)
    return IA3Config(
        task_type=base.peft_task_type,
        target_modules=[*keys_and_values, *feed_forward],
        feedforward_modules=feed_forward,
    )


def _targets(model: nn.Module) -> tuple[list[str], list[str]]:
    """Full names of the key and value projections, and of the feed-forward's second projections."""
    names = {id(module): name for name, module in model.named_modules()}
    keys_and_values: list[str] = []
    feed_forward: list[str] = []
    for block in blocks(model):
        inside = [m for name, m in linear_layers(block.module) if name.rpartition(".")[2] in _KEYS_AND_VALUES]
        keys_and_values += [names[id(module)] for module in inside]
        feed_forward.append(names[id(block.feed_forward_out)])
    return keys_and_values, feed_forward
