"""Every metric by its name: what it says, its range, and the function behind it.

A metric is one entry here and one function, ``(predictions, references, **options) -> Statistics``. Nothing heavy is
imported until a function is called: planning and tables read names, directions and ranges alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import unknown
from harness.sources.fetch import PackageSource
from harness.tasks.metrics import labels, losses, meteor, ngrams, numbers, queries, texts
from harness.tasks.metrics.scoring import Statistics


@dataclass(frozen=True)
class Metric:
    """A metric's name, meaning and range."""

    name: str
    description: str
    citation: str
    higher_is_better: bool
    minimum: float
    maximum: float
    statistics: Callable[..., Statistics]
    """From predictions and references, and from those of its :attr:`options` that are given."""
    options: tuple[str, ...] = ()
    """Names of the keyword arguments that :attr:`statistics` takes beside predictions and references."""
    source: PackageSource | None = None
    """Files that it needs beside the package's own, which are fetched when it is first used."""

    @property
    def span(self) -> float | None:
        """The width of its range; None where it has no end."""
        return self.maximum - self.minimum if math.isfinite(self.maximum) else None


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


_LIN = "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries"
_BEST = "stemmed; the best reference counts"

#: Every metric by name.
METRICS = _by_name(
    Metric("accuracy", "share of right answers", "", True, 0, 1, labels.accuracy),
    Metric(
        "accuracy_norm",
        "share of right choices, where the likeliest one per character is picked",
        "acc_norm of lm-evaluation-harness, Gao et al. 2021",
        True,
        0,
        1,
        labels.accuracy,
    ),
    Metric(
        "f1",
        "F1 of one label, the task's 'positive' one",
        "van Rijsbergen 1979",
        True,
        0,
        1,
        labels.f1,
        options=("positive",),
    ),
    Metric(
        "token_f1",
        "F1 of common words, not stemmed and without articles; the best reference counts",
        "Rajpurkar et al. 2016, arXiv:1606.05250",
        True,
        0,
        1,
        labels.token_f1,
    ),
    Metric("macro_f1", "mean of the classes' F1", "", True, 0, 1, labels.macro_f1),
    Metric(
        "matthews_correlation",
        "correlation of predicted and true classes",
        "Matthews 1975; Gorodkin 2004 for several classes",
        True,
        -1,
        1,
        labels.matthews,
    ),
    Metric(
        "exact_match",
        "share of answers equal to a reference, case and white space aside",
        "",
        True,
        0,
        1,
        labels.exact_match,
    ),
    Metric("rouge_1", f"F-measure of common words, {_BEST}", _LIN, True, 0, 1, texts.rouge_1),
    Metric("rouge_2", f"F-measure of common word pairs, {_BEST}", _LIN, True, 0, 1, texts.rouge_2),
    Metric("rouge_l", f"F-measure of the longest common subsequence, {_BEST}", _LIN, True, 0, 1, texts.rouge_l),
    Metric(
        "perplexity",
        "exp of the mean negative log-likelihood per token; predictions are nats per text, references its tokens",
        "Jelinek et al. 1977",
        False,
        1,
        math.inf,
        losses.perplexity,
    ),
    Metric(
        "bits_per_byte",
        "bits that a byte of UTF-8 costs; predictions are nats per text, references its bytes",
        "Gao et al. 2020, The Pile, section 3.1",
        False,
        0,
        math.inf,
        losses.bits_per_byte,
    ),
    Metric(
        "cloze_accuracy",
        "share of answers of which each token is the likeliest one behind those before it",
        "Paperno et al. 2016, LAMBADA; acc of lm-evaluation-harness, Gao et al. 2021",
        True,
        0,
        1,
        labels.accuracy,
    ),
    Metric(
        "cloze_perplexity",
        "exp of the mean negative log-likelihood per answer; predictions are nats per answer, references 1",
        "Radford et al. 2019",
        False,
        1,
        math.inf,
        losses.cloze_perplexity,
    ),
    Metric(
        "bleu",
        "corpus BLEU of sacreBLEU, 13a tokens, 0 to 100",
        "Papineni et al. 2002; Post 2018",
        True,
        0,
        100,
        texts.bleu,
    ),
    Metric("chrf", "corpus chrF2 of sacreBLEU, 0 to 100", "Popović 2015; Post 2018", True, 0, 100, texts.chrf),
    Metric(
        "nist",
        "corpus NIST of runs of up to five words, 13a tokens in lower case, from 0 on",
        "Doddington 2002",
        True,
        0,
        math.inf,
        ngrams.nist,
    ),
    Metric("cider", "CIDEr-D, 0 to 10, words not stemmed", "Vedantam et al. 2015", True, 0, 10, ngrams.cider),
    Metric(
        "meteor",
        "corpus METEOR 1.5 for English, 0 to 1; needs Java",
        "Denkowski & Lavie 2014",
        True,
        0,
        1,
        meteor.meteor,
        source=meteor.SOURCE,
    ),
    Metric(
        "logical_form",
        "share of queries of SQL that say the same as a reference, case and order of conditions aside",
        "Zhong et al. 2017, arXiv:1709.00103",
        True,
        0,
        1,
        queries.logical_form,
    ),
    Metric(
        "sql_execution",
        "share of queries of SQL that give the rows of a reference in the example's database",
        "Zhong et al. 2017, arXiv:1709.00103; Yu et al. 2018, arXiv:1809.08887",
        True,
        0,
        1,
        queries.sql_execution,
        options=("databases",),
    ),
    Metric("pearson", "correlation of predicted and true numbers", "Pearson 1895", True, -1, 1, numbers.pearson),
    Metric(
        "spearman",
        "correlation of the ranks of predicted and true numbers",
        "Spearman 1904",
        True,
        -1,
        1,
        numbers.spearman,
    ),
    Metric("mse", "mean squared error of predicted numbers", "", False, 0, math.inf, numbers.mean_squared_error),
    Metric("numeric_answers", "share of answers that hold a number", "", True, 0, 1, numbers.numeric_answers),
)


def metric_info(name: str) -> Metric:
    """The metric called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]
