"""What the built-in control says of a run's timings: that it holds, fails, or that there is none (protocol, rule 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.judgement.timings import TIMES, TOLERANCE, distrust
from harness.results.control import PLACE, Control, controls
from harness.results.files import Tables, once, where

_PER = {"decode": "for a token", "prefill": "for a prompt", "predict": "for a prediction"}


@dataclass(frozen=True)
class Said:
    """What is said of the times at one place."""

    place: str
    """Task and model, with what else tells it from the others, such as the number format."""
    sentence: str
    holds: bool | None
    """None: nothing there had to be equally fast."""


def control_sentences(tables: Tables) -> list[Said]:
    """For each place where something was timed, what its control shows."""
    return once(tables, "control_sentences", lambda: _sentences(tables))


def _sentences(tables: Tables) -> list[Said]:
    trials = tables["trials"]
    ended = trials[trials.status == "ok"]
    timed = ended[ended[[name for name in TIMES if name in ended]].notna().any(axis=1)]
    latency = where(tables, "latency", ended.trial_id) if "latency" in tables else pd.DataFrame()
    known = controls(ended.to_dict("records"), latency.to_dict("records"))
    keys = timed[list(PLACE)].astype("object").where(timed[list(PLACE)].notna(), None).drop_duplicates()
    shown = ["task", "model", *(name for name in PLACE if name not in ("task", "model") and _varies(keys, name))]
    return [_said(key, shown, known.get(tuple(key[name] for name in PLACE))) for key in keys.to_dict("records")]


def _varies(keys: pd.DataFrame, name: str) -> bool:
    """Whether places of one task and model differ in this column."""
    return bool((keys.groupby(["task", "model"], dropna=False)[name].nunique(dropna=False) > 1).any())


def _said(key: Mapping[Any, Any], shown: list[str], control: Control | None) -> Said:
    place = " · ".join(str(key[name]) for name in shown if key[name] is not None)
    if control is None:
        what = "no two networks that must answer equally fast were timed undisturbed"
        return Said(place, f"there is no control of these timings: {what}", None)
    if control.ratio > TOLERANCE:
        doubt = distrust(pd.DataFrame({"control_ratio": [control.ratio]}))
        return Said(place, f"{doubt}. {_compared(control)}, and no speed or latency is compared", False)
    return Said(
        place, f"the control of these timings holds. {_compared(control)}; smaller differences mean nothing", True
    )


def _compared(control: Control) -> str:
    """Such as 'At batch 1, full fine-tuning takes 1.04 times as long for a token as the untrained model'."""
    per = _PER.get(control.phase, f"in {control.phase}")
    spread = f" ({control.low:.2f} to {control.high:.2f} between their {control.trials} trials)"
    said = (
        f"At batch {control.batch_size}, {control.slow} takes {control.ratio:.2f} times as long {per} as {control.fast}"
    )
    return said + (spread if control.trials > 2 else "")
