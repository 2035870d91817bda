"""Metrics of numbers: correlations and the squared error. Answers are text, of which the first number counts.

An answer without a number counts as the mean of the others, as if the model had said nothing, and ``numeric_answers``
says how many have one. Where no answer has one, there is no value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.tasks.metrics.scoring import Predictions, References, Statistics, mean

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def number(text: str) -> float | None:
    """The first finite number in ``text``; None if it has none. Typography's minus is one, too."""
    match = _NUMBER.search(text.replace("\u2212", "-"))
    value = float(match[0]) if match else math.nan
    return value if math.isfinite(value) else None


def numeric_answers(predictions: Predictions, references: References) -> Statistics:
    """The share of answers that hold a number; the references play no part."""
    return mean([number(prediction) is not None for prediction in predictions])


def mean_squared_error(predictions: Predictions, references: References) -> Statistics:
    """The mean of (prediction - reference)^2."""
    import numpy as np

    said, right, outside = _read(predictions, references)
    with np.errstate(over="ignore"):
        return replace(mean(((said - right) ** 2).tolist()), outside=outside)


def pearson(predictions: Predictions, references: References) -> Statistics:
    """Pearson's correlation coefficient (Pearson 1895); none where all predictions, or all references, are equal."""
    return _correlation(predictions, references, lambda said, right: lambda counts: _pearson(said, right, counts))


def spearman(predictions: Predictions, references: References) -> Statistics:
    """Spearman's rank correlation (Spearman 1904): Pearson's of the ranks; equal numbers share their mean rank."""
    return _correlation(
        predictions,
        references,
        lambda said, right: lambda counts: _pearson(_ranks(said, counts), _ranks(right, counts), counts),
    )


def _read(predictions: Predictions, references: References) -> tuple[Table, Table, str | None]:
    """Predicted and right numbers, each of shape (n,), and why they have no value; None: they have one."""
    import numpy as np

    said = np.array([math.nan if (one := number(p)) is None else one for p in predictions])
    right = np.array([float(several[0]) for several in references])
    known = said[~np.isnan(said)]
    if not len(known):
        return said, right, "no answer holds a number"
    return np.where(np.isnan(said), known.mean(), said), right, None


def _correlation(
    predictions: Predictions, references: References, of: Callable[[Table, Table], Callable[[Table], float]]
) -> Statistics:
    import numpy as np

    said, right, outside = _read(predictions, references)
    if outside is None:
        outside = _constant("predictions", said) or _constant("references", right)
    stored = {"predicted": said.tolist(), "true": right.tolist()}
    value = of(said, right)
    return Statistics(
        np.column_stack([said, right]), lambda *_: math.nan, stored=stored, outside=outside, counted=value
    )


def _constant(name: str, values: Table) -> str | None:
    if len(values) < 2:
        return "one example has no correlation"
    return f"all {name} are equal, so nothing varies with them" if (values == values[0]).all() else None


def _pearson(x: Table, y: Table, counts: Table) -> float:
    """The correlation where each example counts as often as ``counts`` says; NaN where one side does not vary."""
    import numpy as np

    x, y = x - np.average(x, weights=counts), y - np.average(y, weights=counts)
    spread = math.sqrt(counts @ x**2) * math.sqrt(counts @ y**2)
    return float(np.clip(counts @ (x * y) / spread, -1, 1)) if spread else math.nan


def _ranks(values: Table, counts: Table) -> Table:
    """The mean rank of each value, less a constant, where each example counts as often as ``counts`` says."""
    import numpy as np

    _, place = np.unique(values, return_inverse=True)
    of_place = np.bincount(place, weights=counts)
    ranks: Table = (np.cumsum(of_place) - of_place / 2)[place]
    return ranks
