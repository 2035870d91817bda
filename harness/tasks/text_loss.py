"""Metrics of how well a model predicts texts: its loss in nats, over what a text is counted in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tasks.metrics import Statistics, Table

Nats = Sequence[str]
Counts = Sequence[Sequence[str]]


def perplexity(nats: Nats, tokens: Counts) -> Statistics:
    """exp(nats / tokens): how many equally likely tokens a model hesitates between. It depends on the tokenizer."""
    return _ratio(nats, tokens, "tokens", math.exp, "the texts have no token that can be predicted")


def bits_per_byte(nats: Nats, size: Counts) -> Statistics:
    """nats / (ln 2 * bytes of UTF-8): what the text would take, compressed by the model, whatever its tokenizer."""
    return _ratio(nats, size, "bytes", lambda mean: mean / math.log(2), "the texts have no byte that can be predicted")


def _ratio(nats: Nats, counts: Counts, unit: str, value: Callable[[float], float], outside: str) -> Statistics:
    import numpy as np

    from harness.tasks.metrics import Statistics

    rows = np.array([(float(one), float(several[0])) for one, several in zip(nats, counts, strict=True)])

    def of_sums(total: Table, _n: int) -> float:
        if not total[1]:
            return math.nan
        try:
            return value(float(total[0] / total[1]))
        except OverflowError:
            return math.inf

    stored = {"nats": rows[:, 0].tolist(), unit: rows[:, 1].tolist()}
    return Statistics(rows, of_sums, stored=stored, outside=None if rows[:, 1].sum() else outside)
