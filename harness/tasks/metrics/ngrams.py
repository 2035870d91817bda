"""Metrics that weigh runs of words by how rare they are in the references: NIST and CIDEr."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.tasks.metrics.scoring import Predictions, References, Statistics, mean

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table

Words = tuple[str, ...]
#: Run of words -> how often it is there, or what it weighs.
Counts = Counter[Words]
Weights = dict[Words, float]

_NIST_ORDER = 5
_CIDER_ORDER, _CIDER_SIGMA = 4, 6.0


def _runs(words: Words, order: int) -> list[Counts]:
    """Counts of the runs of 1, 2, ... ``order`` words."""
    from nltk.util import ngrams

    return [Counter(ngrams(words, n)) for n in range(1, order + 1)]


# --- NIST ------------------------------------------------------------------------------------------------------------


def nist(predictions: Predictions, references: References) -> Statistics:
    """NIST of a corpus with runs of up to five words (Doddington 2002), as mteval-v13a counts.

    A run that an answer shares with any reference counts its information, log2 of how often its words but the last
    stand in all references over how often it does itself. Words are lower-cased 13a tokens; the length of several
    references is their mean.
    """
    import numpy as np
    from nltk.translate.nist_score import nist_length_penalty
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()
    answers = [tuple(tokenizer(one.lower()).split()) for one in predictions]
    expected = [[tuple(tokenizer(one.lower()).split()) for one in several] for several in references]
    information = _information([one for several in expected for one in several])
    rows = np.array([_nist_row(one, several, information) for one, several in zip(answers, expected, strict=True)])
    shared, total = slice(0, _NIST_ORDER), slice(_NIST_ORDER, 2 * _NIST_ORDER)

    def value(sums: Table, _n: int) -> float:
        tokens, reference_tokens = sums[-2:]
        if not reference_tokens:
            return math.nan
        gains = float((sums[shared] / np.maximum(sums[total], 1)).sum())
        return gains * float(nist_length_penalty(float(reference_tokens), float(tokens)))

    return Statistics(
        rows,
        value,
        stored=dict(zip(_NIST, rows.T.tolist(), strict=True)),
        outside=None if rows[:, -1].any() else "no reference has a word",
    )


#: Columns of the statistics of NIST: per order the information shared and the runs of the answer, then the lengths.
_NIST = (
    *(f"information_{n}" for n in range(1, _NIST_ORDER + 1)),
    *(f"total_{n}" for n in range(1, _NIST_ORDER + 1)),
    "tokens",
    "reference_tokens",
)


def _information(references: Sequence[Words]) -> Weights:
    """The information of every run in the references, in bits (Doddington 2002, equation 2)."""
    counts: Counts = Counter()
    for words in references:
        for runs in _runs(words, _NIST_ORDER):
            counts.update(runs)
    words_in_all = sum(map(len, references))
    return {
        run: math.log2((counts[run[:-1]] if len(run) > 1 else words_in_all) / count) for run, count in counts.items()
    }


def _nist_row(answer: Words, references: Sequence[Words], information: Weights) -> list[float]:
    of_answer = _runs(answer, _NIST_ORDER)
    of_references = [_runs(words, _NIST_ORDER) for words in references]
    shared = []
    for order, runs in enumerate(of_answer):
        most: Counts = Counter()
        for of_reference in of_references:
            most |= of_reference[order]
        shared.append(sum(information[run] * count for run, count in (runs & most).items()))
    totals = [float(runs.total()) for runs in of_answer]
    return [*shared, *totals, float(len(answer)), sum(map(len, references)) / len(references)]


# --- CIDEr -----------------------------------------------------------------------------------------------------------


def cider(predictions: Predictions, references: References) -> Statistics:
    """CIDEr-D, 0 to 10, with words that are not stemmed (Vedantam et al. 2015, arXiv:1411.5726, section 4).

    The mean over runs of one to four words, and over references, of the cosine of vectors of tf-idf: the weights of an
    answer are cut to those of the reference, and answers of another length lose by a Gaussian of the difference (sigma
    6), as in the authors' code, which counts the length in pairs of words. The idf is that of these references.
    """
    from harness.tasks.words import WordTokenizer

    split = WordTokenizer(stemmed=False).tokenize
    answers = [tuple(split(one)) for one in predictions]
    expected = [[_runs(tuple(split(one)), _CIDER_ORDER) for one in several] for several in references]
    spread = Counter(run for several in expected for run in {run for runs in several for one in runs for run in one})
    examples = math.log(len(predictions))

    def weighed(runs: Iterable[Counts]) -> list[Weights]:
        return [{run: n * (examples - math.log(max(1, spread[run]))) for run, n in one.items()} for one in runs]

    values = []
    for answer, several in zip(answers, expected, strict=True):
        own = _runs(answer, _CIDER_ORDER)
        likeness = [_gaussian(own[1].total() - one[1].total()) * _cosine(weighed(own), weighed(one)) for one in several]
        values.append(10 * sum(likeness) / len(likeness))
    rare = any(count < len(predictions) for count in spread.values())
    outside = None if rare else "no word stands in the references of some examples alone, so none has a weight"
    return replace(mean(values), outside=outside)


def _gaussian(difference: int) -> float:
    return math.exp(-(difference**2) / (2 * _CIDER_SIGMA**2))


def _cosine(answer: Sequence[Weights], reference: Sequence[Weights]) -> float:
    """The mean over the orders of the clipped cosine; 0 for an order without weights."""
    values = []
    for mine, other in zip(answer, reference, strict=True):
        length = math.hypot(*mine.values()) * math.hypot(*other.values())
        shared = sum(min(weight, other[run]) * other[run] for run, weight in mine.items() if run in other)
        values.append(shared / length if length else 0.0)
    return sum(values) / len(values)
