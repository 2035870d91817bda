"""Which setting of a cell counts: the one that validation prefers (protocol, rule 2). Whoever selects, asks here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.execution import FIELDS
from harness.results.execution_columns import asked

#: What is compared: one cell gets one row of a comparison. Arguments that a sweep varies make rows of their own, so
#: ranks, losses, kinds of adapters, zero-shot and few-shot stand beside each other, and none is selected.
CELL = [
    "sweep",
    "notebook",
    "model",
    "model_revision",
    "task",
    "task_version",
    "objective",
    "method",
    "method_version",
    "method_args",
    "objective_args",
    "dtype",
    *map(asked, FIELDS),
    "requested_device",
    "device",
    "train_examples",
    "batch_size",
    "epochs",
    "max_length",
    "eval_examples",
    "max_new_tokens",
    "probes",
    "latency_batches",
    "protocol_version",
]

#: What may be tuned within a cell.
SETTING = ["parent_settings", "learning_rate"]

#: Where settings are counted as tried: a trial that did not run has no measured device.
PLANNED = [name for name in CELL if name != "device"]


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as far as selection asks."""

    status: str
    valid_score: float | None = None
    higher_is_better: bool | None = None

    @classmethod
    def of(cls, status: str, columns: Mapping[str, Any]) -> Ending:
        """The ending of a trial with these ``columns`` of the trials table; whatever is no number is no score."""
        score, higher = columns.get("valid_score"), columns.get("higher_is_better")
        known = float(score) if isinstance(score, (int, float)) and not math.isnan(score) else None
        return cls(status, known, higher if isinstance(higher, bool) else None)

    @property
    def goodness(self) -> float:
        """The validation score, negative where lower is better; -inf where nothing was scored."""
        if self.valid_score is None:
            return -math.inf
        return -self.valid_score if self.higher_is_better is False else self.valid_score


def best_setting(runs: Iterable[tuple[Hashable, int, Ending]]) -> Hashable | None:
    """The setting with the best mean validation score over seeds, of those that ended well on the most seeds.

    ``runs`` are setting, seed and ending of each trial of one cell. So a setting that diverges on one seed does not win
    by the others. The test score plays no part. Of equal settings, and where nothing was scored, the one that stands
    first counts. None where no trial ended well.
    """
    endings: dict[Hashable, list[tuple[int, Ending]]] = {}
    for setting, seed, ending in runs:
        if ending.status == "ok":
            endings.setdefault(setting, []).append((seed, ending))
    return max(endings, key=lambda setting: _rank(endings[setting]), default=None)


def _rank(endings: Sequence[tuple[int, Ending]]) -> tuple[int, float]:
    """How many seeds ended well, and the mean goodness of those that were scored."""
    scored = [ending.goodness for _, ending in endings if ending.valid_score is not None]
    return len({seed for seed, _ in endings}), math.fsum(scored) / len(scored) if scored else -math.inf


def fill_selection(rows: Sequence[dict[str, Any]]) -> None:
    """Set ``selected`` and ``settings_tried`` of each row of the trials table; rows are changed in place.

    ``selected``: the row has the setting that its cell is represented by, however the row itself ended.
    ``settings_tried``: how many settings of its cell were run on some seed; what was skipped was not tried.
    """
    tried: dict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
    runs: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], int, Ending]]] = defaultdict(list)
    for row in sorted(rows, key=_setting_order):
        if row["status"] != "skipped":
            tried[_key(row, PLANNED)].add(_key(row, SETTING))
        if row["status"] == "ok":
            runs[_key(row, CELL)].append((_key(row, SETTING), row["seed"], Ending.of("ok", row)))
    chosen = {cell: best_setting(of_cell) for cell, of_cell in runs.items()}
    anywhere = {(_key(row, PLANNED), chosen.get(_key(row, CELL))) for row in rows if row["status"] == "ok"}
    for row in rows:
        setting, planned = _key(row, SETTING), _key(row, PLANNED)
        row["settings_tried"] = len(tried[planned])
        if row["status"] == "ok":
            row["selected"] = chosen[_key(row, CELL)] == setting
        else:
            row["selected"] = (planned, setting) in anywhere


def _key(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in names)


def _setting_order(row: Mapping[str, Any]) -> tuple[str, bool, float]:
    """So that of equal settings the one with the smallest rate counts, whatever the order of the records."""
    rate = row.get("learning_rate")
    return row.get("parent_settings") or "", rate is None, 0.0 if rate is None else rate
