r"""Prefix tuning: trainable keys and values before those of every attention layer (Li & Liang 2021, arXiv:2101.00190).

.. math:: \mathrm{Attn}(x) = \mathrm{softmax}\big(Q\,[P_K; K]^\top / \sqrt{d}\big)\,[P_V; V]
"""

from __future__ import annotations

from typing import Literal

import torch
from peft import PrefixTuningConfig, initialize_kv_prefix_from_past_key_values

from harness.arguments import Count, Word
from harness.errors import InputError
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.soft_prompts import starting_tokens
from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned

Start = Literal["random", "vocabulary", "text"]


def apply(
    base: Base,
    num_virtual_tokens: Count = 16,
    prefix_projection: bool = False,
    encoder_hidden_size: Count | None = None,
    init: Start = "random",
    text: Word | None = None,
) -> Tuned:
    """``num_virtual_tokens`` positions in every layer; ``prefix_projection`` makes them the output of an MLP
    (the paper's reparameterisation) of ``encoder_hidden_size`` units, by default the model's width.

    ``init`` is 'random' (normal, PEFT's usual), or the keys and values that the base computes: of randomly drawn tokens
    ('vocabulary'), or of ``text``, repeated or cut to the number ('text'; the paper, section 7.4). A long random prefix
    drowns the text that follows. Raises :class:`harness.errors.InputError` for a missing text, and for keys and values
    where an MLP computes them or the network is no decoder.
    """
    if init != "random" and (prefix_projection or base.kind != "decoder"):
        raise InputError(f"prefix.init: '{init}' needs a decoder without 'prefix_projection'; write init: random")
    config = PrefixTuningConfig(
        task_type=base.peft_task_type,
        num_virtual_tokens=num_virtual_tokens,
        prefix_projection=prefix_projection,
        encoder_hidden_size=encoder_hidden_size,
    )
    tuned = with_peft(base, config)
    if init != "random":
        _start_from(tuned, starting_tokens(base, tuned.model, num_virtual_tokens, init, text, "prefix"))
    return tuned


@torch.no_grad()
def _start_from(tuned: Tuned, ids: torch.Tensor) -> None:
    if ids.device.type == "meta":  # a skeleton has shapes alone
        return
    read = unwrapped(tuned.model).eval()(input_ids=ids.unsqueeze(0), use_cache=True).past_key_values
    initialize_kv_prefix_from_past_key_values(tuned.model, past_key_values=read)
