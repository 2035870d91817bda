"""Transfer learning: only the output layer trains, on frozen features (Donahue et al. 2014, arXiv:1310.1531)."""

from __future__ import annotations

from torch import nn

from harness.methods.tuned import Tuned, train_only
from harness.models.load import Base


def apply(base: Base) -> Tuned:
    """A classifier's head, or a language model's output projection.

    Where the projection shares its weights with the input embedding, it gets a copy of its own first: the input side
    belongs to the frozen features.
    """
    model = base.build()
    if base.has_head:
        train_only(model, [], base)
        return Tuned(base, "head", {}, model)
    projection = model.get_output_embeddings()
    tied = projection.weight is model.get_input_embeddings().weight
    if tied:
        projection.weight = nn.Parameter(projection.weight.detach().clone())
        model.config.tie_word_embeddings = False
    train_only(model, projection.parameters(), base)
    return Tuned(base, "head", {}, model, note="output projection untied from the embedding" if tied else None)
