"""Metrics of texts that libraries compute: ROUGE, BLEU, chrF; and perplexity. ROUGE reads words of every script
(:mod:`harness.tasks.words`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.tasks.metrics.scoring import Predictions, References, Statistics, mean

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table


def _rouge(predictions: Predictions, references: References, *, kind: str) -> Statistics:
    from rouge_score.rouge_scorer import RougeScorer

    from harness.tasks.words import WordTokenizer

    tokenizer = WordTokenizer()
    scorer = RougeScorer([kind], tokenizer=tokenizer)
    pairs = zip(predictions, references, strict=True)
    of_all = mean([scorer.score_multi(rs, p)[kind].fmeasure for p, rs in pairs])
    least = 2 if kind == "rouge2" else 1
    all_references = [one for several in references for one in several]
    # Of ASCII texts the numbers are those of rouge-score, which gives 0 here.
    has_value = any(one.isascii() or len(tokenizer.tokenize(one)) >= least for one in all_references)
    return of_all if has_value else replace(of_all, outside=f"no reference has {least} words")


rouge_1 = partial(_rouge, kind="rouge1")
rouge_2 = partial(_rouge, kind="rouge2")
rouge_l = partial(_rouge, kind="rougeL")


def perplexity(predictions: Predictions, references: References) -> Statistics:
    """exp of nats per token; predictions are the nats of each text, references its tokens."""
    import numpy as np

    rows = np.array([(float(nats), float(rs[0])) for nats, rs in zip(predictions, references, strict=True)])

    def value(total: Table, _n: int) -> float:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return float(np.exp(total[0] / total[1]))

    outside = None if rows[:, 1].sum() else "the texts have no token that can be predicted"
    return Statistics(rows, value, stored={"nats": rows[:, 0].tolist(), "tokens": rows[:, 1].tolist()}, outside=outside)


#: Columns of sacreBLEU's statistics: the lengths in tokens, then per order the n-grams that match, and all of them.
_BLEU = ("tokens", "reference_tokens", *(f"correct_{n}" for n in range(1, 5)), *(f"total_{n}" for n in range(1, 5)))


def bleu(predictions: Predictions, references: References) -> Statistics:
    """Corpus BLEU of sacreBLEU, 13a tokens."""
    import sacrebleu

    # force: answers of a model that ends sentences in ' .' are no mistake to warn of.
    metric = sacrebleu.BLEU(force=True)
    of_all = _sacrebleu(metric, predictions, references)
    stored = dict(zip(_BLEU, of_all.rows.T.tolist(), strict=True))
    return replace(of_all, stored=stored, outside=_too_short(metric.tokenizer, references))


def chrf(predictions: Predictions, references: References) -> Statistics:
    """Corpus chrF2 of sacreBLEU."""
    import sacrebleu

    of_all = _sacrebleu(sacrebleu.CHRF(), predictions, references)
    return replace(of_all, stored={f"statistic_{i}": column for i, column in enumerate(of_all.rows.T.tolist())})


def _sacrebleu(metric: object, predictions: Predictions, references: References) -> Statistics:
    import numpy as np

    most = max(len(rs) for rs in references)
    streams = [[rs[i] if i < len(rs) else None for rs in references] for i in range(most)]
    # The statistics behind corpus_score(); a test holds the two together.
    rows = np.array(metric._extract_corpus_statistics(predictions, streams), dtype=np.float64)  # type: ignore[attr-defined]

    def value(total: Table, _n: int) -> float:
        score: float = metric._compute_score_from_stats([int(v) for v in total]).score  # type: ignore[attr-defined]
        return score

    return Statistics(rows, value)


def _too_short(tokenize: Callable[[str], str], references: References) -> str | None:
    """Why BLEU, a mean over runs of one to four tokens, has no value; None: it has one.

    Where no reference has four tokens, equal texts would get 0. So it is for scripts without spaces, which sacreBLEU's
    standard tokenizer leaves whole.
    """
    if any(len(tokenize(reference).split()) >= 4 for several in references for reference in several):
        return None
    return "no reference has four tokens that spaces part; use chrf"
