"""Times that may be compared: not those of a row that other work had a part in (protocol, rule 6)."""

from __future__ import annotations

import pandas as pd

UNSTEADY = 2.0
"""Where a 95th percentile exceeds the median by this factor, or equal networks differ by it, times are not compared."""

#: The columns of trials that say how long something took, or what follows from that.
TIMES = [
    "train_tokens_per_s",
    "train_step_s_median",
    "train_step_s_p95",
    "train_s",
    "chain_train_s",
    "duration_s",
    "energy_j",
    "chain_energy_j",
    "mfu",
    "mfu_of_measured_peak",
    "mfu_of_data_sheet",
    "prefill_s_p50",
    "decode_s_per_token_p50",
    "decode_tokens_per_s",
]


def is_disturbed(trials: pd.DataFrame) -> pd.Series:
    """Which rows' times are those of a machine that they shared; False where the table does not say.

    Those are rows with ``disturbed``, and rows with ``concurrent_trials`` beside them.
    """
    shared = pd.Series(False, index=trials.index)
    if "disturbed" in trials:
        shared |= trials.disturbed.astype("boolean").fillna(False).astype(bool)
    if "concurrent_trials" in trials:
        shared |= trials.concurrent_trials.fillna(0) > 0
    return shared


def undisturbed(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials`` without the rows that :func:`is_disturbed` names."""
    return trials[~is_disturbed(trials)]


def without_disturbed_times(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials``, with the times of the rows that :func:`undisturbed` leaves out as missing."""
    counts = ~is_disturbed(trials)
    return trials.assign(**{name: trials[name].where(counts) for name in TIMES if name in trials})


def why_untimed(trials: pd.DataFrame, otherwise: str) -> str:
    """Why no time of ``trials`` can be shown: other work had a part in all of them, or else ``otherwise``."""
    ended = trials[trials.status == "ok"]
    if len(ended) and is_disturbed(ended).all():
        return "other work had a part in every time that was measured (protocol, rule 6)"
    return otherwise
