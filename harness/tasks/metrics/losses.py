"""Metrics of how well a model predicts texts: its loss in nats, over what a text is counted in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.tasks.metrics.scoring import Predictions, References, Statistics

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table


def perplexity(nats: Predictions, tokens: References) -> Statistics:
    """exp(nats / tokens): how many equally likely tokens a model hesitates between. It depends on the tokenizer."""
    return _ratio(nats, tokens, "tokens", math.exp, "the texts have no token that can be predicted")


def bits_per_byte(nats: Predictions, size: References) -> Statistics:
    """nats / (ln 2 * bytes of UTF-8): what the text would take, compressed by the model, whatever its tokenizer."""
    return _ratio(nats, size, "bytes", lambda mean: mean / math.log(2), "the texts have no byte that can be predicted")


def cloze_perplexity(nats: Predictions, answers: References) -> Statistics:
    """exp(nats / answers): the loss of a whole answer, whatever the number of its tokens."""
    return _ratio(nats, answers, "answers", math.exp, "there is no answer")


def _ratio(
    nats: Predictions, counts: References, unit: str, value: Callable[[float], float], outside: str
) -> Statistics:
    import numpy as np

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
