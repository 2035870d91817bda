"""The metrics as ``evaluate.Metric``: what the harness computes every score with, without the network.

A file of its own because importing ``evaluate`` brings in torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate

from harness.tasks.metrics.registry import metric_info
from harness.tasks.metrics.scoring import scored

_TEXT = datasets.Value("string")


class TaskMetric(evaluate.Metric):
    """One metric; :meth:`compute` gives its value under its name, and what a score says beside the value.

    Predictions are text (labels and numbers too); references are one text per prediction, or a list of which any is
    right. The other keys are the fields of :class:`harness.tasks.metrics.Score`: ``stderr``, ``n``, ``reason``,
    ``values`` and ``statistics``. ``compute`` also takes ``clusters``, as :func:`harness.tasks.metrics.score` does, and
    the metric's own options.
    """

    def __init__(self, name: str) -> None:
        self._metric = metric_info(name)
        # In memory: processes that run side by side share no cache file.
        super().__init__(config_name=name, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """No folder: nothing is written, and there may be no home that can be written."""
        return ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._metric.description,
            citation=self._metric.citation,
            inputs_description="predictions: text; references: text, or lists of text",
            features=[
                datasets.Features({"predictions": _TEXT, "references": datasets.Sequence(_TEXT)}),
                datasets.Features({"predictions": _TEXT, "references": _TEXT}),
            ],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str | Sequence[str]],
        clusters: Sequence[Hashable] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        several = [(one,) if isinstance(one, str) else tuple(one) for one in references]
        score = scored(self._metric.name, self._metric.statistics(predictions, several, **options), clusters)
        return {
            score.metric: score.value,
            "stderr": score.stderr,
            "n": score.n,
            "reason": score.reason,
            "values": score.values,
            "statistics": score.statistics,
        }


def load(name: str) -> TaskMetric:
    """The metric called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    return TaskMetric(name)
