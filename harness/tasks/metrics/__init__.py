"""Metrics that need no network, each with the standard error of its value over the examples.

A task names them (:mod:`harness.tasks.metrics.registry`); :func:`score` computes each as the ``evaluate.Metric`` that
:func:`harness.tasks.metrics.objects.load` gives. How a value, its error and what each example adds to it follow from a
metric's statistics is in :mod:`harness.tasks.metrics.scoring`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from harness.tasks.metrics.registry import METRICS, Metric, metric_info
from harness.tasks.metrics.scoring import Score, mean, scored

__all__ = ["METRICS", "Metric", "Score", "mean_score", "metric_info", "score"]


def score(
    name: str,
    predictions: Sequence[object],
    references: Sequence[object | Sequence[object]],
    clusters: Sequence[Hashable] | None = None,
    options: Mapping[str, object] | None = None,
) -> Score:
    """The metric called ``name`` over predictions and references (one, or several of which any is right).

    Examples with the same entry in ``clusters`` come from one source; None: each is its own. Values other than text,
    such as label indices and numbers, are read as text. Of ``options``, what all metrics of a task may need, the metric
    gets those that it takes. Raises :class:`harness.errors.InputError` for an unknown metric, and ValueError if there
    is nothing to score or the lengths differ.
    """
    metric = metric_info(name)
    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    from harness.tasks.metrics.objects import load

    result = load(name).compute(
        predictions=[_text(prediction) for prediction in predictions],
        references=[_several(reference) for reference in references],
        clusters=clusters,
        **{option: value for option, value in (options or {}).items() if option in metric.options},
    )
    return Score(name, result.pop(name), **result)


def mean_score(name: str, values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Score:
    """The mean of a value per example under ``name``, which need not be a metric; clusters as in score()."""
    return scored(name, mean(values), clusters)


def _several(reference: object | Sequence[object]) -> list[str]:
    return [_text(one) for one in reference] if isinstance(reference, (list, tuple)) else [_text(reference)]


def _text(value: object) -> str:
    """``value`` as text that Arrow can hold: half of a surrogate pair, which some tokenizers decode to, becomes '?'."""
    return str(value).encode("utf-8", "replace").decode()
