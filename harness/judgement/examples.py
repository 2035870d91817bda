"""Scores of single examples as arrays: what paired differences are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.errors import InputError
from harness.judgement.intervals import Floats
from harness.results.files import Tables, where


@dataclass(frozen=True)
class Scores:
    """The primary metric of every test example under one row of a comparison; NaN where it is missing."""

    seeds: tuple[int, ...]
    examples: tuple[str, ...]
    table: Floats
    """Of shape (seeds, examples)."""

    @property
    def clusters(self) -> list[str]:
        """The source of each example."""
        return clusters(self.examples)

    def at(self, seeds: tuple[int, ...], examples: list[str]) -> Floats:
        """The table for these seeds and examples, in their order; NaN for what it lacks."""
        frame = pd.DataFrame(self.table, self.seeds, self.examples)
        found: Floats = frame.reindex(index=list(seeds), columns=examples).to_numpy(dtype=np.float64)
        return found


def clusters(examples: tuple[str, ...] | list[str]) -> list[str]:
    """The source of each example: what stands before the hyphen of its id."""
    return [example.split("-", 1)[0] for example in examples]


def scores_by_trial(trials: pd.DataFrame, tables: Tables) -> dict[str, pd.Series]:
    """Per trial its primary metric of each test example, by the example's id; without trials that stored none."""
    if "example_scores" not in tables:
        return {}
    found: dict[str, pd.Series] = {}
    for metric, group in trials.groupby("primary_metric"):
        rows = where(tables, "example_scores", group.trial_id, split="test", metric=metric)
        rows = rows[rows.value.notna()]
        if (twice := rows[rows.duplicated(["trial_id", "example"])]).size:
            trial, example = twice.iloc[0][["trial_id", "example"]]
            raise InputError(
                f"table 'example_scores': two scores of example {example} in trial {trial}; make the tables again"
            )
        found |= {str(trial): one.set_index("example").value for trial, one in rows.groupby("trial_id", sort=False)}
    return found


def stacked(trials: pd.DataFrame, by_trial: Mapping[str, pd.Series]) -> Scores | None:
    """The scores of trials that differ in their seed alone; None where one of those that were scored stored none."""
    scored = trials[trials.test_score.notna()].drop_duplicates("seed").sort_values("seed")
    if scored.empty or not set(scored.trial_id) <= by_trial.keys():
        return None
    seeds = tuple(int(seed) for seed in scored.seed)
    frame = pd.DataFrame({seed: by_trial[one] for seed, one in zip(seeds, scored.trial_id, strict=True)})
    return Scores(seeds, tuple(map(str, frame.index)), frame.to_numpy(dtype=np.float64).T)
