"""Rows of the long tables, from what the steps of a trial measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from harness.results.execution_columns import active
from harness.tasks.evaluate import Evaluation
from harness.tasks.metrics import Score
from harness.training.trainer import History

Rows = list[dict[str, Any]]


def curves(history: History | None) -> Rows:
    """What was measured of each training step."""
    if history is None:
        return []
    rows = [
        {"step": step.step, "split": "train", "metric": metric, "value": value}
        for step in history.steps
        for metric, value in (
            ("loss", step.loss),
            ("learning_rate", step.learning_rate),
            ("grad_norm", step.grad_norm),
            ("step_s", step.seconds),
            ("tokens", float(step.tokens)),
            ("slots", step.slots),
        )
        if value is not None
    ]
    return rows + [dataclasses.asdict(point) for point in history.curves]


def execution(history: History) -> dict[str, Any]:
    """Columns of the trials table: how training ran, and how that is known."""
    evidence = {} if history.proof is None else dict(history.proof.evidence)
    if history.scaling is not None:
        evidence["dtype"] = "; ".join(filter(None, (evidence.get("dtype"), history.scaling.evidence)))
    if not evidence:
        return {}
    columns = {
        "execution_evidence": json.dumps(evidence, sort_keys=True),
        "compile_s": history.compile_s,
        "skipped_updates": None if history.scaling is None else history.scaling.skipped,
    }
    return columns | {active(name): value for name, value in (history.proof.active if history.proof else {}).items()}


def memory(history: History | None, weights: int | None, load_peak: int | None, evaluate_peak: int | None) -> Rows:
    """Bytes by phase and category; what was not measured has no row."""
    sizes: dict[tuple[str, str], int | None] = {
        ("load", "weights"): weights,
        ("load", "peak"): load_peak,
        ("evaluate", "peak"): evaluate_peak,
    }
    if history is not None:
        parts = {
            "weights": history.weights_bytes,
            "gradients": history.gradients_bytes,
            "optimizer": history.optimizer_bytes,
            "activations": history.activations_bytes,
        }
        sizes |= {("train", category): size for category, size in parts.items()}
        sizes["train", "peak"] = history.peak_train_bytes
        sizes["train", "reserved"] = history.peak_reserved_bytes
        sizes["train", "process"] = history.process_bytes
        if history.peak_train_bytes is not None and None not in parts.values():
            # On CPU this holds the interpreter and its libraries too.
            rest = history.peak_train_bytes - sum(size for size in parts.values() if size is not None)
            sizes["train", "other"] = max(rest, 0)
    return [
        {"phase": phase, "category": category, "bytes": size}
        for (phase, category), size in sizes.items()
        if size is not None
    ]


def scores(of_splits: Iterable[tuple[str, Score]]) -> Rows:
    """One row per split and metric."""
    return [
        {"split": split, "metric": score.metric, "value": score.value, "stderr": score.stderr, "n": score.n}
        for split, score in of_splits
    ]


def example_scores(of_splits: Iterable[tuple[str, Score]], evaluations: Mapping[str, Evaluation]) -> Rows:
    """One row per example and metric, of the scores that know a value for every example of their split."""
    return [
        {"split": split, "example": example, "metric": metric, "value": value}
        for split, score in of_splits
        for metric, values in score.by_example.items()
        if split in evaluations and len(values) == len(evaluations[split].examples)
        for example, value in zip(evaluations[split].examples, values, strict=True)
    ]


def generations(evaluation: Evaluation | None) -> Rows:
    """One row per answer; several references are separated by bars."""
    return [
        {
            "example": index,
            "prompt": answer.prompt,
            "output": answer.output,
            "reference": " ||| ".join(answer.references),
        }
        for index, answer in enumerate(evaluation.answers if evaluation else ())
    ]
