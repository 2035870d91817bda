"""Training a head on an encoder: texts, and what the head should give for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.networks.tuned import Tuned
from harness.training.trainer import History, Settings, train


def train_head(tuned: Tuned, rows: Sequence[tuple[str, float | None]], settings: Settings) -> History:
    """Train in place, by the network's own loss, on texts with labels: whole numbers are classes, others targets.

    A text without a label is left out.

    Texts are cut to the budget's ``max_length`` tokens. Batches have ids and mask of shape (rows, longest), and labels
    of shape (rows,). They are drawn whatever their lengths are, which may tell the labels
    (:mod:`harness.training.batches`).
    """
    tokenizer = tuned.base.tokenizer
    texts = [text for text, label in rows if label is not None]
    labels = [label for _, label in rows if label is not None]
    ids = tokenizer(texts, truncation=True, max_length=settings.budget.max_length)["input_ids"]
    whole = tokenizer(texts, verbose=False)["input_ids"]

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
        cut=[len(read) < len(text) for read, text in zip(ids, whole, strict=True)],
    )
