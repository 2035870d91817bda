"""Batches for a head on an encoder: texts, and what the head should give for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


def texts_and_labels(
    tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """What makes a batch of rows with a ``text`` and a ``label``: ids and mask of shape (rows, longest), and labels.

    Labels have shape (rows,): whole numbers are classes, others targets. Texts are cut to ``max_length`` tokens.
    """

    def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
        texts = [row["text"] for row in rows]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "labels": torch.tensor([row["label"] for row in rows]),
        }

    return collate
