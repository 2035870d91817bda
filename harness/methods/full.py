"""Full fine-tuning: every parameter trains (Howard & Ruder 2018, arXiv:1801.06146)."""

from __future__ import annotations

from harness.models.load import Base
from harness.networks.tuned import Tuned, train_only


def apply(base: Base) -> Tuned:
    """All parameters trainable: the reference that every other method is compared with."""
    model = base.build()
    train_only(model, model.parameters(), base)
    return Tuned(base, model)
