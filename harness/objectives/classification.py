r"""Classification: cross-entropy of the right label.

An encoder learns a head on its first token (Devlin et al. 2019, arXiv:1810.04805); a decoder learns to say the label's
words, :math:`\arg\max_y \log p_\theta(y \mid x)` (Schick & Schütze 2021, arXiv:2001.07676, without the mask token).
"""

from __future__ import annotations

from typing import Any

import torch

from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.data import TaskData
from harness.training.trainer import History, Settings, train


def fit(tuned: Tuned, data: TaskData, settings: Settings) -> History:
    """Train in place: an encoder with a head on the labels, a decoder on the labels' words."""
    if not tuned.base.has_head:
        return sft.fit(tuned, data, settings)
    tokenizer = tuned.base.tokenizer
    texts = [e.text for e in data.train]
    ids = tokenizer(texts, truncation=True, max_length=settings.budget.max_length)["input_ids"]
    whole = tokenizer(texts, verbose=False)["input_ids"]

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [e["input_ids"] for e in examples]}, return_tensors="pt")
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "labels": torch.tensor([e["label"] for e in examples]),
        }

    return train(
        tuned,
        [{"input_ids": read, "label": e.label} for read, e in zip(ids, data.train, strict=True)],
        collate,
        settings,
        lengths=[len(read) for read in ids],
        cut=[len(read) < len(text) for read, text in zip(ids, whole, strict=True)],
    )
