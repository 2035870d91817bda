"""Metrics of labels and of whole answers: shares of right ones, and values of a confusion table."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.tasks.metrics.scoring import Predictions, References, Statistics, mean

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table


def accuracy(predictions: Predictions, references: References) -> Statistics:
    """The share of predictions that are a reference."""
    return mean([p in rs for p, rs in zip(predictions, references, strict=True)])


def exact_match(predictions: Predictions, references: References) -> Statistics:
    """The same, where case, white space and the ways to write one character (NFC) do not count."""
    return mean([_plain(p) in {_plain(r) for r in rs} for p, rs in zip(predictions, references, strict=True)])


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def f1(predictions: Predictions, references: References, positive: str | None = None) -> Statistics:
    """F1 of the label ``positive``, by default the last one of the references in the order of the alphabet.

    2 TP / (2 TP + FP + FN), van Rijsbergen 1979. Without a positive label among predictions and references there is no
    value.
    """
    import numpy as np

    truth = [rs[0] for rs in references]
    wanted = max(truth) if positive is None else positive
    rows = np.array([(t == wanted, p == wanted) for t, p in zip(truth, predictions, strict=True)], dtype=np.float64)
    table = np.column_stack([rows[:, 0] * rows[:, 1], rows.sum(1)])

    def value(total: Table, _n: int) -> float:
        return float(2 * total[0] / total[1]) if total[1] else math.nan

    outside = None if rows.any() else f"no example is '{wanted}', and none is taken for it"
    return Statistics(
        table, value, stored={"true": rows[:, 0].tolist(), "predicted": rows[:, 1].tolist()}, outside=outside
    )


def token_f1(predictions: Predictions, references: References) -> Statistics:
    """F1 of the words that an answer and a reference share, the best reference counts: that of SQuAD.

    Rajpurkar et al. 2016, arXiv:1606.05250, section 4.1; words as in :mod:`harness.tasks.words`, not stemmed, without
    English articles. An empty answer gets 1 where a reference is empty too.
    """
    from harness.tasks.words import WordTokenizer

    split = WordTokenizer(stemmed=False).tokenize

    def words(text: str) -> Counter[str]:
        return Counter(word for word in split(text) if word not in ("a", "an", "the"))

    def overlap(answer: Counter[str], reference: Counter[str]) -> float:
        if not answer or not reference:
            return float(answer == reference)
        return 2 * (answer & reference).total() / (answer.total() + reference.total())

    pairs = zip(predictions, references, strict=True)
    return mean([max(overlap(words(p), words(r)) for r in rs) for p, rs in pairs])


def macro_f1(predictions: Predictions, references: References) -> Statistics:
    """The mean of the F1 of every label that was predicted or is right."""
    return _confusion(predictions, references, _macro_f1)


def matthews(predictions: Predictions, references: References) -> Statistics:
    """The correlation of predicted and right labels; 0 if all predictions or all right labels are the same."""
    return _confusion(predictions, references, _matthews)


def _confusion(predictions: Predictions, references: References, value: Callable[[Table], float]) -> Statistics:
    import numpy as np

    truth = [rs[0] for rs in references]
    index = {label: i for i, label in enumerate(sorted({*truth, *predictions}))}
    size = len(index)
    cells = [index[t] * size + index[p] for t, p in zip(truth, predictions, strict=True)]
    stored = {"true": [float(index[t]) for t in truth], "predicted": [float(index[p]) for p in predictions]}
    return Statistics(np.eye(size * size)[cells], lambda total, _n: value(total.reshape(size, size)), stored=stored)


def _macro_f1(table: Table) -> float:
    import numpy as np

    hits, of_class = np.diag(table), table.sum(0) + table.sum(1)
    present = of_class > 0
    return float(np.mean(2 * hits[present] / of_class[present]))


def _matthews(table: Table) -> float:
    """0 if all predictions or all true classes are the same: scikit-learn also takes 0/0 as 0."""
    total, hits = table.sum(), table.trace()
    truth, predicted = table.sum(1), table.sum(0)
    spread = math.sqrt((total**2 - predicted @ predicted) * (total**2 - truth @ truth))
    return float((hits * total - truth @ predicted) / spread) if spread else 0.0
