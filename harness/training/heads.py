"""Training a head on an encoder: texts, and what the head should give for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.networks.tuned import Tuned
from harness.training.trainer import History, Settings, train


def train_head(tuned: Tuned, texts: Sequence[str], labels: Sequence[float], settings: Settings) -> History:
    """Train in place by the network's own loss: whole numbers as labels are classes, others targets.

    Texts are cut to the budget's ``max_length`` tokens. Batches have ids and mask of shape (rows, longest), and labels
    of shape (rows,).
    """
    tokenizer = tuned.base.tokenizer
    ids = tokenizer(list(texts), truncation=True, max_length=settings.budget.max_length)["input_ids"]
    whole = tokenizer(list(texts), verbose=False)["input_ids"]

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "labels": torch.tensor([row["label"] for row in rows]),
        }

    return train(
        tuned,
        [{"input_ids": read, "label": label} for read, label in zip(ids, labels, strict=True)],
        collate,
        settings,
        lengths=[len(read) for read in ids],
        cut=[len(read) < len(text) for read, text in zip(ids, whole, strict=True)],
    )
