"""Metrics that need no network, each with the standard error of its value over the examples.

A metric maps every example to a row of sufficient statistics, and the sum of the rows to a value. If the value is the
mean of one number per example, its standard error is sd / sqrt(n). Otherwise it is the standard deviation of the value
over bootstrap samples of the examples (Efron & Tibshirani 1993). That costs little, because only the statistics are
resampled.

Examples from one source, such as several pairs of one prompt, are not independent draws. They form one cluster: its sum
is what varies (Miller 2024, arXiv:2411.00640, section 2.2), and clusters are resampled.

A score keeps what each example adds to it, so that two methods can be compared example by example. Of a mean that is
the example's own number. Of another value v of n examples it is v + (n - 1) * (mean of v without one - v without this
one), the jackknife's linear part (Efron & Stein 1981): its mean is v, and its spread gives the standard error of v.

Outside its domain a metric has no value: None, with the reason. ROUGE reads words of every script
(:mod:`harness.tasks.words`). :func:`harness.tasks.evaluate_metrics.load` gives the same metrics as ``evaluate.Metric``.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.errors import unknown
from harness.tasks import text_loss

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.float64]

BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 20210617

Predictions = Sequence[str]
References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """A metric's value on a set of examples."""

    metric: str
    value: float | None
    """None outside the metric's domain."""
    stderr: float | None
    """Standard error over the examples, in the unit of the value; None for a single cluster, or without a value."""
    n: int
    """Examples."""
    reason: str | None = None
    """Why there is no value; None if there is one."""
    values: Sequence[float] = field(default=(), repr=False, compare=False)
    """What each example adds: numbers whose mean is the value, in the order of the examples; empty without a value."""
    statistics: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False, compare=False)
    """The sufficient statistics of each example by name; empty where the value is a mean over the examples."""

    @property
    def by_example(self) -> dict[str, Sequence[float]]:
        """:attr:`values` under the metric's name, and the statistics under names such as 'bleu.correct_1'."""
        return {self.metric: self.values} | {f"{self.metric}.{name}": one for name, one in self.statistics.items()}

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric}: none, {self.reason} (n = {self.n})"
        error = "" if self.stderr is None else f" ± {self.stderr:.3f}"
        return f"{self.metric}: {self.value:.3f}{error} (n = {self.n})"


@dataclass(frozen=True)
class Statistics:
    """One row per example, and the value for the sum of the rows of ``n`` examples."""

    rows: Table
    value: Callable[[Table, int], float]
    is_mean: bool = False
    """The value is the mean of a single column."""
    stored: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The rows by column, in a form short enough to store; empty for a mean, whose column is its values."""
    outside: str | None = None
    """Why these examples have no value; None if they have one."""


@dataclass(frozen=True)
class Metric:
    """A metric's name, meaning and range."""

    name: str
    description: str
    citation: str
    higher_is_better: bool
    minimum: float
    maximum: float
    statistics: Callable[[Predictions, References], Statistics]


def score(
    name: str,
    predictions: Sequence[object],
    references: Sequence[object | Sequence[object]],
    clusters: Sequence[Hashable] | None = None,
) -> Score:
    """The metric called ``name`` over predictions and references (one, or several of which any is right).

    Examples with the same entry in ``clusters`` come from one source; None: each is its own. Values other than text,
    such as label indices, are compared as text. Raises :class:`harness.errors.InputError` for an unknown metric, and
    ValueError if there is nothing to score or the lengths differ.
    """
    metric = metric_info(name)
    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    answers = [str(prediction) for prediction in predictions]
    return _score(name, metric.statistics(answers, [_several(reference) for reference in references]), clusters)


def mean_score(name: str, values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Score:
    """The mean of a value per example under ``name``, which need not be a metric; clusters as in score()."""
    return _score(name, _mean(values), clusters)


def metric_info(name: str) -> Metric:
    """The metric called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def _several(reference: object | Sequence[object]) -> tuple[str, ...]:
    if isinstance(reference, (list, tuple)):
        return tuple(str(one) for one in reference)
    return (str(reference),)


def _score(name: str, statistics: Statistics, clusters: Sequence[Hashable] | None) -> Score:
    n = len(statistics.rows)
    if statistics.outside is not None:
        return Score(name, None, None, n, statistics.outside)
    value = float(statistics.value(statistics.rows.sum(0), n))
    if not math.isfinite(value):
        return Score(name, None, None, n, "the value is not a finite number")
    stderr = _stderr(statistics, value, range(n) if clusters is None else clusters)
    return Score(name, value, stderr, n, values=_added(statistics, value), statistics=statistics.stored)


def _added(statistics: Statistics, value: float) -> list[float]:
    """What each example adds to ``value``: numbers whose mean it is."""
    import numpy as np

    rows, n = statistics.rows, len(statistics.rows)
    if statistics.is_mean or n == 1:
        return [float(one) for one in rows[:, 0]] if statistics.is_mean else [value]
    total = rows.sum(0)
    without = np.array([statistics.value(total - row, n - 1) for row in rows])
    added = value + (n - 1) * (without.mean() - without)
    return [float(one) for one in added] if np.isfinite(added).all() else []


def _stderr(statistics: Statistics, value: float, clusters: Sequence[Hashable]) -> float | None:
    """Standard error of ``value``; None for a single cluster.

    Of a mean it is the square root of G / (G - 1) times the sum over G clusters of (sum of s - mean)^2 / n^2: Miller
    2024, equation 4, with the correction for few clusters that makes it sd / sqrt(n) where each example is its own.
    """
    import numpy as np

    rows, n = statistics.rows, len(statistics.rows)
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    if (count := len(places)) == 1:
        return None
    of_row = np.array([places[cluster] for cluster in clusters])
    sizes = np.bincount(of_row)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, of_row, rows)
    if statistics.is_mean:
        return float(math.sqrt(count / (count - 1) * ((sums[:, 0] - sizes * value) ** 2).sum()) / n)
    # A bootstrap sample of the clusters is a vector of how often each was drawn: resampling is one matrix product.
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP_SAMPLES)
    values = [statistics.value(total, int(size)) for total, size in zip(draws @ sums, draws @ sizes, strict=True)]
    finite = [one for one in values if math.isfinite(one)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else None


# --- sums and means over examples -------------------------------------------------------------------------------------


def _mean(values: Sequence[float]) -> Statistics:
    import numpy as np

    return Statistics(np.array(values, dtype=np.float64)[:, None], lambda total, n: float(total[0]) / n, is_mean=True)


def _plain(text: str) -> str:
    """``text`` with white space, case and the ways to write one character (NFC) made equal."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _exact_match(predictions: Predictions, references: References) -> Statistics:
    return _mean([_plain(p) in {_plain(r) for r in rs} for p, rs in zip(predictions, references, strict=True)])


def _accuracy(predictions: Predictions, references: References) -> Statistics:
    return _mean([p in rs for p, rs in zip(predictions, references, strict=True)])


def _rouge(kind: str) -> Callable[[Predictions, References], Statistics]:
    def statistics(predictions: Predictions, references: References) -> Statistics:
        from rouge_score.rouge_scorer import RougeScorer

        from harness.tasks.words import WordTokenizer

        tokenizer = WordTokenizer()
        scorer = RougeScorer([kind], tokenizer=tokenizer)
        pairs = zip(predictions, references, strict=True)
        mean = _mean([scorer.score_multi(rs, p)[kind].fmeasure for p, rs in pairs])
        least = 2 if kind == "rouge2" else 1
        all_references = [one for several in references for one in several]
        # Of ASCII texts the numbers are those of rouge-score, which gives 0 here.
        has_value = any(one.isascii() or len(tokenizer.tokenize(one)) >= least for one in all_references)
        return mean if has_value else replace(mean, outside=f"no reference has {least} words")

    return statistics


# --- values of a confusion table -------------------------------------------------------------------------------------


def _confusion(value: Callable[[Table], float]) -> Callable[[Predictions, References], Statistics]:
    def statistics(predictions: Predictions, references: References) -> Statistics:
        import numpy as np

        truth = [rs[0] for rs in references]
        index = {label: i for i, label in enumerate(sorted({*truth, *predictions}))}
        size = len(index)
        cells = [index[t] * size + index[p] for t, p in zip(truth, predictions, strict=True)]
        stored = {"true": [float(index[t]) for t in truth], "predicted": [float(index[p]) for p in predictions]}
        return Statistics(np.eye(size * size)[cells], lambda total, _n: value(total.reshape(size, size)), stored=stored)

    return statistics


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


# --- scores of a corpus ----------------------------------------------------------------------------------------------


def _sacrebleu(kind: str) -> Callable[[Predictions, References], Statistics]:
    def statistics(predictions: Predictions, references: References) -> Statistics:
        import numpy as np
        import sacrebleu

        # force: answers of a model that ends sentences in ' .' are no mistake to warn of.
        metric = sacrebleu.BLEU(force=True) if kind == "bleu" else sacrebleu.CHRF()
        most = max(len(rs) for rs in references)
        streams = [[rs[i] if i < len(rs) else None for rs in references] for i in range(most)]
        # The statistics behind corpus_score(); a test holds the two together.
        rows = np.array(metric._extract_corpus_statistics(predictions, streams), dtype=np.float64)
        outside = _too_short(metric.tokenizer, references) if kind == "bleu" else None
        names = _BLEU if kind == "bleu" else [f"statistic_{i}" for i in range(rows.shape[1])]
        return Statistics(
            rows,
            lambda total, _n: metric._compute_score_from_stats([int(v) for v in total]).score,
            stored=dict(zip(names, rows.T.tolist(), strict=True)),
            outside=outside,
        )

    return statistics


#: Columns of sacreBLEU's statistics: the lengths in tokens, then per order the n-grams that match, and all of them.
_BLEU = ("tokens", "reference_tokens", *(f"correct_{n}" for n in range(1, 5)), *(f"total_{n}" for n in range(1, 5)))


def _too_short(tokenize: Callable[[str], str], references: References) -> str | None:
    """Why BLEU, a mean over runs of one to four tokens, has no value; None: it has one.

    Where no reference has four tokens, equal texts would get 0. So it is for scripts without spaces, which sacreBLEU's
    standard tokenizer leaves whole.
    """
    if any(len(tokenize(reference).split()) >= 4 for several in references for reference in several):
        return None
    return "no reference has four tokens that spaces part; use chrf"


_LIN = "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries"

#: Every metric by name.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "share of right answers", "", True, 0, 1, _accuracy),
        Metric(
            "accuracy_norm",
            "share of right choices, where the likeliest one per character is picked",
            "acc_norm of lm-evaluation-harness, Gao et al. 2021",
            True,
            0,
            1,
            _accuracy,
        ),
        Metric("macro_f1", "mean of the classes' F1", "", True, 0, 1, _confusion(_macro_f1)),
        Metric(
            "matthews_correlation",
            "correlation of predicted and true classes",
            "Matthews 1975; Gorodkin 2004 for several classes",
            True,
            -1,
            1,
            _confusion(_matthews),
        ),
        Metric(
            "exact_match",
            "share of answers equal to a reference, case and white space aside",
            "",
            True,
            0,
            1,
            _exact_match,
        ),
        Metric(
            "rouge_1",
            "F-measure of common words, stemmed; the best reference counts",
            _LIN,
            True,
            0,
            1,
            _rouge("rouge1"),
        ),
        Metric(
            "rouge_2",
            "F-measure of common word pairs, stemmed; the best reference counts",
            _LIN,
            True,
            0,
            1,
            _rouge("rouge2"),
        ),
        Metric(
            "rouge_l",
            "F-measure of the longest common subsequence, stemmed; the best reference counts",
            _LIN,
            True,
            0,
            1,
            _rouge("rougeL"),
        ),
        Metric(
            "perplexity",
            "exp of the mean negative log-likelihood per token; predictions are nats per text, references its tokens",
            "Jelinek et al. 1977",
            False,
            1,
            math.inf,
            text_loss.perplexity,
        ),
        Metric(
            "bits_per_byte",
            "bits that a byte of UTF-8 costs; predictions are nats per text, references its bytes",
            "Gao et al. 2020, The Pile, section 3.1",
            False,
            0,
            math.inf,
            text_loss.bits_per_byte,
        ),
        Metric(
            "bleu",
            "corpus BLEU of sacreBLEU, 13a tokens, 0 to 100",
            "Papineni et al. 2002; Post 2018",
            True,
            0,
            100,
            _sacrebleu("bleu"),
        ),
        Metric(
            "chrf", "corpus chrF2 of sacreBLEU, 0 to 100", "Popović 2015; Post 2018", True, 0, 100, _sacrebleu("chrf")
        ),
    )
}
