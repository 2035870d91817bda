"""Tables from cells with known scores and costs: what judgement is tested on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness.judgement.intervals import Floats
from helpers.trials_table import trials


@dataclass(frozen=True)
class Cell:
    """One setting on several seeds. Costs are by seed, or one number for all."""

    method: str
    scores: Floats
    """Of shape (seeds, examples)."""
    columns: dict[str, object] = field(default_factory=dict)
    costs: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, list[float]] = field(default_factory=dict)
    """Further metrics of the test split, by seed."""
    latency: dict[str, list[float]] = field(default_factory=dict)
    """Seconds per token by seed, by variant."""


def scored(*cells: Cell, metric: str = "accuracy") -> dict[str, pd.DataFrame]:
    """The tables of these cells."""
    rows, values, scores, latency = [], [], [], []
    for number, cell in enumerate(cells):
        for seed, of_seed in enumerate(cell.scores):
            trial = f"{number}-{cell.method}-{seed}"
            rows.append(
                {
                    "trial_id": trial,
                    "method": cell.method,
                    "seed": seed,
                    "primary_metric": metric,
                    "valid_score": 0.5,
                    "test_score": of_seed.mean(),
                    "test_stderr": of_seed.std(ddof=1) / np.sqrt(len(of_seed)),
                    "test_examples": len(of_seed),
                    **({"learning_rate": None} if cell.method in ("baseline", "quantized") else {}),
                    **cell.columns,
                    **{name: by_seed[seed] for name, by_seed in cell.costs.items()},
                }
            )
            values += [(trial, "test", f"e{n}", metric, value) for n, value in enumerate(of_seed)]
            scores += [(trial, "test", name, by_seed[seed], None, 8) for name, by_seed in cell.extra.items()]
            latency += [(trial, name, 1, 8, 8, "decode", by_seed[seed]) for name, by_seed in cell.latency.items()]
    return {
        "trials": trials(*rows),
        "example_scores": pd.DataFrame(values, columns=["trial_id", "split", "example", "metric", "value"]),
        "scores": pd.DataFrame(scores, columns=["trial_id", "split", "metric", "value", "stderr", "n"]),
        "latency": pd.DataFrame(
            latency,
            columns=["trial_id", "variant", "batch_size", "prompt_tokens", "new_tokens", "phase", "p50_s"],
        ),
    }


def noisy(level: float, seeds: int = 3, examples: int = 200, seed: int = 0, spread: float = 0.05) -> Floats:
    """Scores around ``level``: the same hard examples whatever the level, and noise of their own."""
    hard = np.random.default_rng(99).normal(0, 0.4, examples)
    return level + hard + np.random.default_rng(seed).normal(0, spread, (seeds, examples))
