"""The quantities that two rows can be compared by: names, directions, and how they are compared.

Costs are compared by their ratio, because a method costs so many times what another one costs. What is counted and not
measured, such as parameters, has no spread. :mod:`harness.judgement.leads` computes the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

SCORE = "score"


@dataclass(frozen=True)
class Quantity:
    """Something that is measured of every trial."""

    name: str
    text: str
    """Its name in a sentence."""
    higher_is_better: bool
    column: str | None = None
    """Column of ``trials``; None: :func:`harness.judgement.leads.of_trials` computes it."""
    ratio: bool = True
    """Two values are compared by their ratio, else by their difference."""
    counted: bool = False
    """The same for every seed and free of noise, so one seed is enough."""


def _quantities(*entries: Quantity) -> dict[str, Quantity]:
    return {entry.name: entry for entry in entries}


def _cost(column: str, text: str, counted: bool = False) -> Quantity:
    return Quantity(column, text, False, column, counted=counted)


QUANTITIES = _quantities(
    Quantity(SCORE, "test score", True, "test_score", ratio=False),
    Quantity("forgetting", "forgetting (nats per token)", False, "forgetting", ratio=False),
    Quantity("latency_s", "time per token or label, one request at a time", False),
    Quantity("learning_rate", "chosen learning rate", True, "learning_rate", counted=True),
    Quantity("train_tokens_per_s", "training tokens per second", True, "train_tokens_per_s"),
    _cost("train_step_s_median", "time of a training step"),
    _cost("chain_train_s", "training time"),
    _cost("peak_train_bytes", "peak memory of training"),
    _cost("activations_bytes", "memory of activations"),
    _cost("weights_bytes", "memory of weights", counted=True),
    _cost("optimizer_bytes", "memory of optimiser states", counted=True),
    _cost("trainable_params", "trainable parameters", counted=True),
    _cost("checkpoint_bytes", "stored bytes", counted=True),
)
