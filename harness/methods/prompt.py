r"""Prompt tuning: trainable embeddings before the input (Lester et al. 2021, arXiv:2104.08691).

.. math:: [P; X] \in \mathbb{R}^{(p + n) \times d}, \qquad \text{only } P \text{ trains}
"""

from __future__ import annotations

from peft import PromptTuningConfig

from harness.methods.tuned import Tuned, with_peft
from harness.models.load import Base


def apply(base: Base, num_virtual_tokens: int = 16, init: str = "vocabulary") -> Tuned:
    """``num_virtual_tokens`` embeddings; ``init`` is 'random' or 'vocabulary' (embeddings of randomly drawn tokens)."""
    args = {"num_virtual_tokens": num_virtual_tokens, "init": init}
    starts = {"random": "RANDOM", "vocabulary": "SAMPLE_VOCAB"}
    if init not in starts:
        from harness.errors import unknown

        raise unknown("prompt.init", init, starts)
    config = PromptTuningConfig(
        task_type=base.peft_task_type,
        num_virtual_tokens=num_virtual_tokens,
        prompt_tuning_init=starts[init],
    )
    return with_peft(base, "prompt", args, config)
