r"""Prompt tuning: trainable embeddings before the input (Lester et al. 2021, arXiv:2104.08691).

.. math:: [P; X] \in \mathbb{R}^{(p + n) \times d}, \qquad \text{only } P \text{ trains}
"""

from __future__ import annotations

from typing import Literal

import torch
from peft import PromptTuningConfig

from harness.arguments import Count, Word
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.soft_prompts import starting_tokens
from harness.networks.tuned import Tuned

Start = Literal["random", "vocabulary", "text"]
_STARTS: dict[Start, str] = {"random": "RANDOM", "vocabulary": "SAMPLE_VOCAB", "text": "RANDOM"}


def apply(base: Base, num_virtual_tokens: Count = 16, init: Start = "vocabulary", text: Word | None = None) -> Tuned:
    """``num_virtual_tokens`` embeddings.

    ``init`` is 'random', 'vocabulary' (embeddings of randomly drawn tokens) or 'text' (those of ``text``, repeated or
    cut to the number). Raises :class:`harness.errors.InputError` for a missing text.
    """
    config = PromptTuningConfig(
        task_type=base.peft_task_type,
        num_virtual_tokens=num_virtual_tokens,
        prompt_tuning_init=_STARTS[init],
    )
    tuned = with_peft(base, config)
    if init == "text":
        _start_from(tuned, text)
    return tuned


@torch.no_grad()
def _start_from(tuned: Tuned, text: str | None) -> None:
    for prompt in tuned.model.prompt_encoder.values():
        rows = prompt.embedding.weight
        ids = starting_tokens(tuned.base, tuned.model, len(rows), "text", text, "prompt")
        rows.copy_(tuned.model.get_input_embeddings()(ids))
