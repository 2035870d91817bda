"""What a trial's score is compared with: the untrained model on the same test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.trial import Trial

BASELINE = "baseline"
FULL = "full"

#: Columns in which trials agree that answered the same questions with the same base checkpoint.
SAME_QUESTIONS = (
    "sweep",
    "model",
    "model_revision",
    "task",
    "task_version",
    "eval_examples",
    "max_new_tokens",
    "protocol_version",
)


def fill_base_scores(rows: Sequence[dict[str, Any]], trials: Sequence[Trial]) -> None:
    """Set ``base_score`` of each row that has none to the zero-shot score of its model on its task.

    That is the ``test_score`` of the ``baseline`` trial that answered the same questions: of the same sweep, model and
    task, in the same revision and version, with the same metric and evaluation budget. Of several the one with the
    row's number format is taken first, then the one with its seed. ``rows`` and ``trials`` correspond; rows are changed
    in place, and stay null without such a trial.
    """
    baselines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row, trial in zip(rows, trials, strict=True):
        if _is_zero_shot(trial) and row["status"] == "ok" and row.get("test_score") is not None:
            baselines.setdefault(_group(row), []).append(row)
    for row in rows:
        candidates = baselines.get(_group(row), ())
        if row.get("base_score") is None and row.get("test_score") is not None and candidates:
            nearest = min(candidates, key=lambda b: (b["dtype"] != row["dtype"], b["seed"] != row["seed"]))
            row["base_score"] = nearest["test_score"]


def _is_zero_shot(trial: Trial) -> bool:
    """The baseline without arguments that add to the bare model, such as examples in the prompt."""
    return trial.method == BASELINE and not any(trial.method_args.values())


def _group(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return *(row[name] for name in SAME_QUESTIONS), row.get("primary_metric")
