"""The metrics of :mod:`harness.tasks.metrics` as ``evaluate.Metric``: without the network, for the tools built on it.

A file of its own because importing ``evaluate`` brings in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from harness.tasks.metrics import metric_info, score

_TEXT = datasets.Value("string")


class OfflineMetric(evaluate.Metric):
    """One metric; ``compute`` gives its value and, as ``<name>_stderr``, the standard error over the examples.

    Predictions are text (class labels too); references are one text per prediction, or a list of which any is right.
    """

    def __init__(self, name: str) -> None:
        self._metric = metric_info(name)
        # In memory: processes that run side by side share no cache file.
        super().__init__(config_name=name, keep_in_memory=True)

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

    def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float | None]:
        result = score(self._metric.name, predictions, references)
        return {result.metric: result.value, f"{result.metric}_stderr": result.stderr}


def load(name: str) -> OfflineMetric:
    """The metric called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    return OfflineMetric(name)
