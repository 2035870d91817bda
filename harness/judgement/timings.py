"""Times that may be compared (protocol, rule 6): not those of a row that other work had a part in, and none of a run
in which networks that must answer equally fast did not.
"""

from __future__ import annotations

import pandas as pd

UNSTEADY = 2.0
"""Where a 95th percentile exceeds the median by this factor, times are not compared."""

TOLERANCE = 1.2
"""The control of a run's timings fails where equal networks differ by more than this factor, by medians of trials."""

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

    Those are rows with ``disturbed``, rows with ``concurrent_trials`` beside them, and rows with fewer threads than
    others of the same machine.
    """
    shared = pd.Series(False, index=trials.index)
    if "disturbed" in trials:
        shared |= trials.disturbed.astype("boolean").fillna(False).astype(bool)
    if "concurrent_trials" in trials:
        shared |= trials.concurrent_trials.fillna(0) > 0
    if "processor_threads" in trials:
        most = trials.groupby("hostname", dropna=False).processor_threads.transform("max")
        shared |= (trials.processor_threads < most).fillna(False).astype(bool)
    return shared


def fails_control(trials: pd.DataFrame) -> pd.Series:
    """Which rows stand where equal networks did not answer equally fast; False where there is no control."""
    if "control_ratio" not in trials:
        return pd.Series(False, index=trials.index)
    return trials.control_ratio.astype("float64") > TOLERANCE


def undisturbed(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials`` without the rows that :func:`is_disturbed` names."""
    return trials[~is_disturbed(trials)]


def trusted(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that neither :func:`is_disturbed` nor :func:`fails_control` names: a headline may rest on them."""
    return trials[~(is_disturbed(trials) | fails_control(trials))]


def without_untrusted_times(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials``, with the times of the rows that :func:`trusted` leaves out as missing."""
    counts = ~(is_disturbed(trials) | fails_control(trials))
    return trials.assign(**{name: trials[name].where(counts) for name in TIMES if name in trials})


def why_untimed(trials: pd.DataFrame, otherwise: str) -> str:
    """Why no time of ``trials`` can be shown: no row's may be compared, or else ``otherwise``."""
    ended = trials[trials.status == "ok"]
    if ended.empty or len(trusted(ended)):
        return otherwise
    if is_disturbed(ended).all():
        return "other work had a part in every time that was measured (protocol, rule 6)"
    return distrust(ended) or otherwise


def distrust(rows: pd.DataFrame) -> str | None:
    """What is said in place of a headline where a control of ``rows`` fails; None where none does."""
    failing = rows[fails_control(rows)]
    if failing.empty:
        return None
    factor = f"differ by a factor of {failing.control_ratio.max():.2f}"
    return f"timings of this run are not to be trusted: networks that must answer equally fast {factor}"
