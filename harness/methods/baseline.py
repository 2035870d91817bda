"""No training: what the model can do as it comes (zero-shot, Brown et al. 2020, arXiv:2005.14165)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from harness.methods.structure import body
from harness.methods.tuned import Tuned
from harness.models.load import Base


class LabelSimilarity(nn.Module):
    """Zero-shot classification with an encoder: the label whose words are nearest to the text.

    Logits of shape (batch, labels): cosine of the mean-pooled last hidden states of text and label
    (Yin et al. 2019, arXiv:1909.00161; mean pooling as in Reimers & Gurevych 2019, arXiv:1908.10084).
    """

    def __init__(self, encoder: nn.Module, labels: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        with torch.no_grad():
            self.register_buffer("labels", self._embed(**labels))

    def _embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Logits of each label; token ids and mask of shape (batch, tokens)."""
        return SequenceClassifierOutput(logits=self._embed(input_ids, attention_mask) @ self.labels.T)


def apply(base: Base) -> Tuned:
    """The model itself, nothing trainable; an encoder answers by the similarity of text and label."""
    model = base.build()
    if base.has_head and base.labels:
        words = base.tokenizer(list(base.labels), padding=True, return_tensors="pt").to(base.device)
        model = LabelSimilarity(body(model), dict(words)).eval()
    model.requires_grad_(False)
    return Tuned(base, "baseline", {}, model)
