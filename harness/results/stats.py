"""The protocol's statistics: settings are selected on validation, scores reported on test, each with an interval.

All functions take the ``trials`` table as a data frame (:func:`harness.results.tables.read`) and change nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as scipy_stats

from harness.results.baseline import BASELINE

#: What is compared: one cell gets one row of a comparison, whatever was tried within it. ``baseline_args`` comes
#: from :func:`with_cells`: zero-shot and few-shot stand beside each other, none is selected.
CELL = [
    "sweep",
    "model",
    "task",
    "objective",
    "method",
    "baseline_args",
    "dtype",
    "train_examples",
    "batch_size",
    "max_length",
]

#: What may be tuned within a cell.
SETTING = ["method_args", "learning_rate"]

CONFIDENCE = 0.95
BOOTSTRAP_SEEDS = 3
"""Fewer seeds than this say nothing about the spread over seeds."""

#: Half-width of a normal 95 % interval, in standard errors.
_NORMAL = float(scipy_stats.norm.ppf((1 + CONFIDENCE) / 2))

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
    "duration_s",
    "energy_j",
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
    tried = ran[[*CELL, *SETTING]].drop_duplicates().groupby(CELL, dropna=False).size()
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
    best = best.merge(tried.rename("settings_tried").reset_index(), on=CELL, how="left")
    return ok.merge(best, on=[*CELL, *SETTING], how="inner")


def aggregate(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the selected setting's mean scores, the 95 % interval, and medians of the costs.

    ``ci_low`` and ``ci_high`` bound the mean ``test_score``; ``interval`` says where they come from (see
    :func:`interval`). ``seeds`` counts the trials that ended well. Every other number is a median over seeds.
    """
    groups = select(trials).groupby([*CELL, *SETTING], dropna=False, sort=False)
    rows = []
    for key, group in groups:
        low, high, basis = interval(group.test_score, group.test_stderr)
        rows.append(
            dict(zip([*CELL, *SETTING], key, strict=True))
            | {
                "settings_tried": int(group.settings_tried.iloc[0]),
                "seeds": len(group),
                "task_kind": group.task_kind.iloc[0],
                "primary_metric": group.primary_metric.iloc[0],
                "higher_is_better": bool(_higher(group).iloc[0]),
                "valid_score": group.valid_score.mean(),
                "test_score": group.test_score.mean(),
                "base_score": group.base_score.mean(),
                "ci_low": low,
                "ci_high": high,
                "interval": basis,
                "test_stderr": _root_mean_square(group.test_stderr),
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
    "test_stderr",
    "test_examples",
    *_MEDIANS,
]


def interval(scores: pd.Series, stderrs: pd.Series) -> tuple[float, float, str]:
    """A 95 % interval of the mean of ``scores`` (one per seed): lower bound, upper bound, and what it rests on.

    From three seeds on that differ, a percentile bootstrap over seeds (Efron 1979): the spread of training, on these
    test examples. Otherwise, mean ± 1.96 standard errors over the test examples, the seeds sharing them. Null bounds
    where neither is known.
    """
    known = scores.dropna().to_numpy(dtype=float)
    if len(known) >= BOOTSTRAP_SEEDS and np.ptp(known) > 0:
        return *_bootstrap(tuple(known)), f"bootstrap over {len(known)} seeds"
    stderr = _root_mean_square(stderrs)
    if len(known) and np.isfinite(stderr):
        half = _NORMAL * stderr
        return float(known.mean() - half), float(known.mean() + half), "normal over test examples"
    return np.nan, np.nan, "none"


@lru_cache(maxsize=4096)  # every figure asks for the same intervals
def _bootstrap(scores: tuple[float, ...]) -> tuple[float, float]:
    found = scipy_stats.bootstrap(
        (scores,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


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
    whatever the direction of the metric; ``z`` is ``difference / difference_se``. Paired by seed where at least
    three seeds differ (Student's t over the pairs: the spread of training, on these test examples). Otherwise
    the standard errors over the test examples are added in quadrature; the examples are shared, so that errs on
    the side of doubt. ``beats``: the 95 % interval of the difference lies above zero; null where unknown.
    """
    rows = []
    for key, group in select(trials[trials.method != BASELINE]).groupby(CELL, dropna=False, sort=False):
        cell = dict(zip(CELL, key, strict=True))
        rows.append(cell | _difference(group, _base_stderr(trials, cell)))
    frame = pd.DataFrame(rows, columns=[*CELL, "difference", "difference_se", "z", "basis", "beats"])
    return frame.astype({"beats": "boolean"})


def _difference(group: pd.DataFrame, base_stderr: float) -> dict[str, object]:
    sign = 1.0 if _higher(group).iloc[0] else -1.0
    differences = (sign * (group.test_score - group.base_score)).dropna().to_numpy(dtype=float)
    mean = float(differences.mean()) if len(differences) else np.nan
    if len(differences) >= BOOTSTRAP_SEEDS and np.ptp(differences) > 0:
        error = float(scipy_stats.sem(differences))
        needed = float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1))
        basis = f"paired over {len(differences)} seeds"
    else:
        error = float(np.hypot(_root_mean_square(group.test_stderr), base_stderr))
        needed = _NORMAL
        basis = "unpaired over test examples" if np.isfinite(error * mean) else "none"
    known = np.isfinite(mean) and np.isfinite(error)
    return {
        "difference": mean,
        "difference_se": error,
        "z": mean / error if known and error > 0 else np.nan,
        "basis": basis,
        "beats": bool(mean - needed * error > 0) if known else None,
    }


def _base_stderr(trials: pd.DataFrame, cell: dict[str, object]) -> float:
    """The standard error of the untrained model's score beside a cell."""
    base = trials[(trials.method == BASELINE) & (trials.status == "ok")]
    for name in ("sweep", "model", "task"):
        base = base[base[name] == cell[name]]
    return _root_mean_square(base.test_stderr)


def _root_mean_square(values: pd.Series) -> float:
    known = values.dropna().to_numpy(dtype=float)
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def _higher(frame: pd.DataFrame) -> pd.Series:
    """The direction of the metric per row; higher is better where nothing is said, for there is no score then."""
    return frame.higher_is_better.fillna(True).astype(bool)
