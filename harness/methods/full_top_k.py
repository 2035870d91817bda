"""Only the last layers train (Howard & Ruder 2018, arXiv:1801.06146; FT-Top2 of Li & Liang 2021, arXiv:2101.00190)."""

from __future__ import annotations

from harness.arguments import Count
from harness.errors import InputError
from harness.models.load import Base
from harness.networks.structure import blocks, final_norm
from harness.networks.tuned import Tuned, train_only


def apply(base: Base, k: Count = 2, output_layer: bool = False) -> Tuned:
    """The last ``k`` layers and the normalisation behind them; a fresh classification head always trains.

    ``output_layer`` adds a language model's output projection. If that is tied to the input embedding, both train, for
    they are one matrix. Raises :class:`harness.errors.InputError` for a ``k`` that the model does not have.
    """
    model = base.build()
    layers = list(blocks(model))
    if k > len(layers):
        raise InputError(f"full_top_k.k: {k} is not between 1 and the model's {len(layers)} layers")
    trained = [p for block in layers[-k:] for p in block.module.parameters()]
    if (norm := final_norm(model)) is not None:
        trained += norm.parameters()
    if output_layer and not base.has_head:
        trained += model.get_output_embeddings().parameters()
    train_only(model, trained, base)
    return Tuned(base, model)
