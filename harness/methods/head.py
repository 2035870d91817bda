r"""Transfer learning: only the output layer trains, on frozen features (Donahue et al. 2014, arXiv:1310.1531).

.. math:: \hat y = \mathrm{softmax}(W f_{\theta_0}(x) + b), \qquad \text{only } W, b \text{ train}
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from harness.models.load import Base
from harness.models.whole_texts import padding_behind_text
from harness.networks.pooling import mean_pooled
from harness.networks.structure import body
from harness.networks.tuned import Tuned, train_only


class LinearProbe(nn.Module):
    """A linear layer on the mean-pooled last hidden states of a frozen encoder; logits of shape (batch, labels)."""

    def __init__(self, encoder: nn.Module, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        like = next(encoder.parameters())
        self.classifier = nn.Linear(encoder.config.hidden_size, labels, dtype=like.dtype, device=like.device)
        nn.init.normal_(self.classifier.weight, std=encoder.config.initializer_range)
        nn.init.zeros_(self.classifier.bias)
        padding_behind_text(self)

    @property
    def base_model(self) -> nn.Module:
        """The body, by the name that transformers gives it."""
        return self.encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits, and the loss where ``labels`` (shape (batch,)) are given, as transformers chooses it.

        That is the cross-entropy of class indices, or the squared error of numbers where there is one output.
        """
        logits = self.classifier(mean_pooled(self.encoder, input_ids, attention_mask))
        loss = None if labels is None else _loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[-1] == 1:
        return nn.functional.mse_loss(logits[:, 0], labels)
    return nn.functional.cross_entropy(logits, labels)


def apply(base: Base, pooling: Literal["mean", "model"] = "mean") -> Tuned:
    """Train the last layer alone.

    A classifier trains a linear layer on the features of ``pooling``: 'mean' (:class:`LinearProbe`) or 'model' (the
    architecture's own head, such as BERT's classifier on its frozen pooler). A language model trains its output
    projection. If that shares its weights with the input embedding, it first gets a copy, because the input side
    belongs to the frozen features.
    """
    model = base.build()
    if base.has_head:
        if base.labels and pooling == "mean":
            torch.manual_seed(base.seed)
            model = LinearProbe(body(model), len(base.labels)).eval()
        train_only(model, [], base)
        return Tuned(base, model)
    projection = model.get_output_embeddings()
    tied = projection.weight is model.get_input_embeddings().weight
    if tied:
        projection.weight = nn.Parameter(projection.weight.detach().clone())
        model.config.tie_word_embeddings = False
    train_only(model, projection.parameters(), base)
    return Tuned(base, model, note="output projection untied from the embedding" if tied else None)
