"""A test helper: the tables of one made-up run of a sweep, with the noise of real runs. Nothing here was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.judgement.intervals import Floats
from helpers.trials_table import trials

METHODS = ("full", "lora", "bitfit", "head")
SPREADS = {"score": 0.02, "memory": 0.0075, "step": 0.03, "latency": 0.05, "drift": 0.02}


def run(
    seed: int,
    methods: Sequence[str] = METHODS,
    seeds: int = 3,
    examples: int = 60,
    change: Mapping[str, Any] | None = None,
    of: str = "lora",
    noise: float = 1.0,
) -> dict[str, pd.DataFrame]:
    """The tables of a run; ``seed`` draws its noise alone. ``change`` holds for the method ``of``.

    A number in ``change`` is a factor of that column, or is added to ``test_score``; anything else is its value.
    """
    random = np.random.default_rng(seed)
    rows, values = [], []
    drift = np.exp(noise * random.normal(0, SPREADS["drift"]))
    for place, method in enumerate(methods):
        for number in range(seeds):
            row, scores = _trial(random, method, place, number, examples, drift, noise)
            if method == of:
                scores = _changed(row, scores, change or {})
            row |= {"trial_id": f"{method}{number}", "test_score": scores.mean() if scores.size else None}
            rows.append(row)
            values += [(f"{method}{number}", "test", f"e{n}", "accuracy", value) for n, value in enumerate(scores)]
    frame = pd.DataFrame(values, columns=["trial_id", "split", "example", "metric", "value"])
    return {"trials": trials(*rows), "example_scores": frame}


def _trial(
    random: np.random.Generator, method: str, place: int, number: int, examples: int, drift: float, noise: float
) -> tuple[dict[str, Any], Floats]:
    hard = np.random.default_rng(99).normal(0, 0.3, examples)
    level = 0.7 - 0.05 * place + noise * random.normal(0, SPREADS["score"])
    scores = level + hard + noise * random.normal(0, 0.1, examples)

    def about(value: float, spread: str) -> float:
        return float(value * np.exp(noise * random.normal(0, SPREADS[spread])))

    counted = dict.fromkeys(("gradients_bytes", "optimizer_bytes", "activations_bytes"), 1e7 * (place + 1))
    row: dict[str, Any] = {
        "method": method,
        "seed": number,
        "primary_metric": "accuracy",
        "test_stderr": 0.04,
        "test_examples": examples,
        "checkpoint_bytes": 1e6 * (place + 1),
        "weights_bytes": 9e7,
        **counted,
        "peak_train_bytes": about(8e8, "memory"),
        "peak_inference_bytes": about(7e8, "memory"),
        "train_step_s_median": about(0.2, "step") * drift,
        "prefill_s_p50": about(0.01, "latency") * drift,
        "decode_s_per_token_p50": about(0.04, "latency") * drift,
    }
    return row, scores


def _changed(row: dict[str, Any], scores: Floats, change: Mapping[str, Any]) -> Floats:
    for column, value in change.items():
        if column == "test_score":
            scores = np.empty(0) if value is None else scores + value
        else:
            row[column] = row[column] * value if isinstance(value, float) else value
    return scores
