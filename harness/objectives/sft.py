r"""Supervised fine-tuning (Ouyang et al. 2022, arXiv:2203.02155, step 1).

.. math:: \mathcal{L} = -\frac{1}{|y|} \sum_t \log p_\theta(y_t \mid x, y_{<t})

The loss is on the completion :math:`y` alone; the prompt :math:`x` is read but not learnt.
"""

from __future__ import annotations

from typing import Any

import torch

from harness.methods.tuned import Tuned
from harness.objectives.token_loss import token_loss
from harness.objectives.training import History, Settings, train
from harness.tasks.data import TaskData
from harness.tasks.encode import Encoded, encode_examples
from harness.tasks.logprobs import IGNORED


class CompletionCollator:
    """Pads on the right and labels the completion's tokens only; tensors of shape (batch, longest)."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = pad_token_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids, mask and labels of one batch."""
        width = max(len(e["input_ids"]) for e in examples)

        def padded(name: str, fill: int) -> torch.Tensor:
            return torch.tensor([[*e[name], *[fill] * (width - len(e[name]))] for e in examples])

        mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples])
        return {
            "input_ids": padded("input_ids", self._pad),
            "attention_mask": mask,
            "labels": padded("labels", IGNORED),
        }


def training_example(encoded: Encoded) -> dict[str, list[int]]:
    """Token ids, and labels that leave the prompt out."""
    return {
        "input_ids": [*encoded.prompt, *encoded.completion],
        "labels": [IGNORED] * len(encoded.prompt) + list(encoded.completion),
    }


def fit(tuned: Tuned, data: TaskData, settings: Settings) -> History:
    """Train a decoder on prompt and completion, in place."""
    tokenizer = tuned.base.tokenizer
    encoded = encode_examples(tokenizer, data.train, settings.budget.max_length)
    collate = CompletionCollator(tokenizer.pad_token_id)
    return train(tuned, [training_example(e) for e in encoded], collate, settings, loss=token_loss)
