"""What trials that learn from preferences recorded beside their own score: reward, KL, win rate."""

from __future__ import annotations

import pandas as pd

from harness.figures.panels import Tables
from harness.results.files import where
from harness.results.selection import CELL, SETTING

#: The SFT model that the policies are compared with stands in the split 'base' of their scores.
OPPONENT, TEST = "base", "test"


def measures(tables: Tables, trials: pd.DataFrame, split: str = TEST) -> pd.DataFrame:
    """The scores of ``trials`` on ``split``: mean over the seeds of each setting and metric.

    The result has the columns of a setting, ``metric``, ``value``, ``stderr`` (over the examples, median of the seeds)
    and ``seeds``.
    """
    scores = where(tables, "scores", trials.trial_id, split=split)
    scores = scores[scores.value.notna()].merge(trials[["trial_id", "seed", *CELL, *SETTING]], on="trial_id")
    groups = scores.groupby([*CELL, *SETTING, "metric"], dropna=False, sort=False)
    return groups.agg(value=("value", "mean"), stderr=("stderr", "median"), seeds=("seed", "nunique")).reset_index()
