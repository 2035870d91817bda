"""The protocol's statistics: settings are selected on validation, scores reported on test, each with an interval.

All functions take the ``trials`` table as a data frame (:func:`harness.results.tables.read`) and change nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.judgement import uncertainty
from harness.judgement.uncertainty import Mean, Part
from harness.results.baseline import BASELINE, SAME_QUESTIONS

#: What is compared: one cell gets one row of a comparison, whatever was tried within it. ``baseline_args`` comes
#: from :func:`with_cells`: zero-shot and few-shot stand beside each other, none is selected.
CELL = [
    "sweep",
    "notebook",
    "model",
    "model_revision",
    "task",
    "task_version",
    "objective",
    "method",
    "baseline_args",
    "dtype",
    "requested_device",
    "device",
    "train_examples",
    "batch_size",
    "epochs",
    "max_length",
    "eval_examples",
    "max_new_tokens",
    "protocol_version",
]

#: What may be tuned within a cell.
SETTING = ["method_args", "objective_args", "parent_settings", "learning_rate"]

#: Where settings are counted as tried: a trial that did not run has no measured device.
_PLANNED = [name for name in CELL if name != "device"]

_MEDIANS = [
    "forgetting",
    "model_params",
    "total_params",
    "trainable_params",
    "trainable_share",
    "checkpoint_bytes",
    "peak_train_bytes",
    "weights_bytes",
    "gradients_bytes",
    "optimizer_bytes",
    "activations_bytes",
    "peak_inference_bytes",
    "train_steps",
    "train_tokens_per_s",
    "train_step_s_median",
    "train_s",
    "chain_train_s",
    "duration_s",
    "energy_j",
    "chain_energy_j",
    "mfu",
    "prefill_s_p50",
    "decode_s_per_token_p50",
    "decode_tokens_per_s",
]


def with_cells(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials`` with all columns of :data:`CELL`: ``baseline_args`` are the arguments of untrained models, else ''."""
    return trials.assign(baseline_args=trials.method_args.where(trials.method == BASELINE, ""))


def select(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the best setting of every cell (protocol, rule 2), with ``settings_tried`` added.

    The best setting has the best mean ``valid_score`` over seeds, among those that ended well on the most seeds: a
    setting that diverges on one seed does not win by the others. The test score plays no part. Where nothing was
    scored, the first setting is taken. A cell in which no trial ended well has no rows.
    """
    trials = with_cells(trials)
    ran = trials[trials.status != "skipped"]
    tried = ran[[*_PLANNED, *SETTING]].drop_duplicates().groupby(_PLANNED, dropna=False).size()
    ok = trials[trials.status == "ok"]
    if ok.empty:
        return ok.assign(settings_tried=pd.Series(dtype="int64"))
    direction = np.where(_higher(ok), 1.0, -1.0)
    settings = (
        ok.assign(_goodness=ok.valid_score * direction)
        .groupby([*CELL, *SETTING], dropna=False, sort=True)[["seed", "_goodness"]]
        .agg(_seeds=("seed", "nunique"), _goodness=("_goodness", "mean"))
        .reset_index()
        .sort_values(["_seeds", "_goodness"], ascending=False, kind="stable", na_position="last")
    )
    best = settings.drop_duplicates(CELL)[[*CELL, *SETTING]]
    best = best.merge(tried.rename("settings_tried").reset_index(), on=_PLANNED, how="left")
    return ok.merge(best, on=[*CELL, *SETTING], how="inner")


def aggregate(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the selected setting's mean scores, the 95 % interval, and medians of the costs.

    ``ci_low`` and ``ci_high`` bound the mean ``test_score``; ``interval`` says in words what they cover (see
    :mod:`harness.judgement.uncertainty`), :func:`mean_of` gives the mean of a row back. ``seeds`` counts the seeds
    whose trial ended well. Every other number is a median over seeds.
    """
    groups = select(trials).groupby([*CELL, *SETTING], dropna=False, sort=False)
    rows = []
    for key, group in groups:
        mean_score = _mean(group)
        low, high = mean_score.bounds
        rows.append(
            dict(zip([*CELL, *SETTING], key, strict=True))
            | {
                "settings_tried": int(group.settings_tried.iloc[0]),
                "seeds": group.seed.nunique(),
                "task_kind": group.task_kind.iloc[0],
                "primary_metric": group.primary_metric.iloc[0],
                "higher_is_better": bool(_higher(group).iloc[0]),
                "valid_score": group.valid_score.mean(),
                "test_score": mean_score.value,
                "base_score": group.base_score.mean(),
                "ci_low": low,
                "ci_high": high,
                "interval": mean_score.basis,
                "seed_stderr": math.sqrt(mean_score.of_seeds.variance) if mean_score.of_seeds else np.nan,
                "test_stderr": math.sqrt(mean_score.of_examples.variance) if mean_score.of_examples else np.nan,
                "test_examples": group.test_examples.max(),
            }
        )
    if not rows:
        return pd.DataFrame(columns=_AGGREGATE_COLUMNS)
    medians = groups[_MEDIANS].median().reset_index(drop=True)
    return pd.concat([pd.DataFrame(rows), medians], axis=1).reindex(columns=_AGGREGATE_COLUMNS)


_AGGREGATE_COLUMNS = [
    *CELL,
    *SETTING,
    "settings_tried",
    "seeds",
    "task_kind",
    "primary_metric",
    "higher_is_better",
    "valid_score",
    "test_score",
    "base_score",
    "ci_low",
    "ci_high",
    "interval",
    "seed_stderr",
    "test_stderr",
    "test_examples",
    *_MEDIANS,
]


def _mean(group: pd.DataFrame) -> Mean:
    """The mean test score of trials that differ in nothing but the seed."""
    by_seed = group.groupby("seed").test_score.mean()
    return uncertainty.mean(by_seed.tolist(), group.test_stderr.tolist(), float(group.test_examples.min()))


def mean_of(row: Any) -> Mean:
    """The mean test score of a row of :func:`aggregate` (a column per attribute), and what is known of its error."""
    examples = None if pd.isna(row.test_examples) else int(row.test_examples)
    of_seeds = None if pd.isna(row.seed_stderr) else Part(row.seed_stderr**2, row.seeds - 1)
    df = examples - 1 if examples is not None and examples > 1 else math.inf
    of_examples = None if pd.isna(row.test_stderr) else Part(row.test_stderr**2, df)
    return Mean(row.test_score, row.seeds, examples, of_seeds, of_examples)


def is_ahead(a: Any, b: Any) -> bool:
    """Whether row ``a`` of :func:`aggregate` is better than row ``b``: the 95 % interval of the difference says so.

    False also where that cannot be known: other questions were asked, or one of them was trained on one seed only,
    which knows nothing of the spread between runs. An untrained model has no such spread.
    """
    if any(_value(a, name) != _value(b, name) for name in SAME_QUESTIONS):
        return False
    if any(pd.isna(row.seed_stderr) and not is_zero_shot(row) for row in (a, b)):
        return False
    return uncertainty.difference(mean_of(a), mean_of(b), 1.0 if a.higher_is_better else -1.0).above_zero


def is_zero_shot(row: Any) -> bool:
    """Whether a row stands for the bare model, without training and without examples in its prompt."""
    return row.method == BASELINE and not _adds_examples(row.method_args)


def _value(row: Any, name: str) -> object:
    value = getattr(row, name)
    return None if pd.isna(value) else value


def pareto(frame: pd.DataFrame, cost: str, score: str, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Which rows are on the Pareto front: no other is at least as good in cost and score, and better in one.

    Less ``cost`` is better. Rows that lack either value are not on the front.
    """
    costs = frame[cost].to_numpy(dtype=float)
    gains = frame[score].to_numpy(dtype=float) * (1.0 if higher_is_better else -1.0)
    front = np.zeros(len(frame), dtype=np.bool_)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(gains)))
    best_gain, best_cost = -np.inf, np.nan
    for i in known[np.lexsort((-gains[known], costs[known]))]:
        if gains[i] > best_gain:
            best_gain, best_cost = gains[i], costs[i]
        front[i] = gains[i] == best_gain and costs[i] == best_cost
    return front


def beats_baseline(trials: pd.DataFrame) -> pd.DataFrame:
    """Per cell of a trained method: how far its selected setting is above the untrained model, and how surely.

    ``difference`` is the mean over seeds of test score less ``base_score``, positive when the method is better
    whatever the direction of the metric; ``z`` is ``difference / difference_se``. The errors of the method (over seeds
    and test examples) and of the untrained model (over test examples) are added in quadrature; the examples are
    shared, so that errs on the side of doubt. ``beats``: the 95 % interval of the difference lies above zero; null
    where that is unknown, and with one seed, which knows nothing of the spread between runs.
    """
    rows = []
    for key, group in select(trials[trials.method != BASELINE]).groupby(CELL, dropna=False, sort=False):
        cell = dict(zip(CELL, key, strict=True))
        rows.append(cell | _difference(group, _baseline(trials, cell)))
    frame = pd.DataFrame(rows, columns=[*CELL, "difference", "difference_se", "z", "basis", "beats"])
    return frame.astype({"beats": "boolean"})


def _difference(group: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, object]:
    sign = 1.0 if _higher(group).iloc[0] else -1.0
    mean_score = _mean(group)
    gap = (sign * (group.test_score - group.base_score)).groupby(group.seed).mean().mean()
    stderrs, examples = baseline.test_stderr.tolist(), float(baseline.test_examples.min())
    # The untrained model has no spread over seeds: its one score and the error over examples are all there is.
    base = uncertainty.mean([mean_score.value - sign * gap], stderrs, examples)
    apart = uncertainty.difference(mean_score, base, sign)
    known = np.isfinite(gap) and np.isfinite(apart.half_width)
    return {
        "difference": gap,
        "difference_se": apart.stderr,
        "z": gap / apart.stderr if known else np.nan,
        "basis": f"{mean_score.basis}; {_BASE_ERROR[base.of_examples is not None]}" if known else "none",
        "beats": apart.above_zero if known and mean_score.of_seeds is not None else None,
    }


_BASE_ERROR = {True: "the untrained model's error added", False: "the untrained model's error is not known"}


def _baseline(trials: pd.DataFrame, cell: dict[str, Any]) -> pd.DataFrame:
    """The zero-shot trials that answered the questions of a cell."""
    base = trials[(trials.method == BASELINE) & (trials.status == "ok")]
    for name in SAME_QUESTIONS:
        base = base[base[name].isna() if pd.isna(cell[name]) else base[name] == cell[name]]
    return base[~base.method_args.map(_adds_examples).astype(bool)]


def _adds_examples(method_args: str) -> bool:
    """Whether the arguments of an untrained model give it more than the question."""
    return any(json.loads(method_args).values())


def _higher(frame: pd.DataFrame) -> pd.Series:
    """The direction of the metric per row; higher is better where nothing is said, for there is no score then."""
    return frame.higher_is_better.fillna(True).astype(bool)
