"""Ways to train, measured against each other: in turn, several times, each with the proof of what was active.

A machine's speed drifts. So a repeat runs every way once, every other repeat in the reverse order, and a speed is
compared with that of the baseline in the same repeat.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from harness import methods, objectives
from harness.execution import Execution, NotActive
from harness.experiment.experiment import Experiment
from harness.measure.processors import disturbed
from harness.measure.training import speed
from harness.training.trainer import Settings

BASELINE = "baseline"


def plus_each(fields: Mapping[str, Any]) -> dict[str, Execution]:
    """The baseline, and then one field after the other added to it: the last one has them all."""
    names = list(fields)
    ways = {BASELINE: Execution()}
    for count, name in enumerate(names, start=1):
        ways[f"+ {written(name, fields[name])}"] = Execution(**{other: fields[other] for other in names[:count]})
    return ways


def minus_each(fields: Mapping[str, Any]) -> dict[str, Execution]:
    """All fields but one, for each of them."""
    return {
        f"without {written(name, value)}": Execution(**{n: v for n, v in fields.items() if n != name})
        for name, value in fields.items()
    }


def written(name: str, value: Any) -> str:
    """A field and its value as people read them: 'packing', 'loss chunked'."""
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value}"


def measure(
    run: Experiment, method: str, args: Mapping[str, Any], ways: Sequence[Execution], repeats: int
) -> pd.DataFrame:
    """A row for each of the ``ways`` and repeats: a short training of a fresh network from the data of ``run``.

    Columns: ``way`` (its place in ``ways``), ``repeat``, ``tokens_per_s``, ``step_s``, ``activations_bytes``,
    ``peak_train_bytes``, ``loss``, ``disturbed``, ``evidence`` and ``reason`` (why it was not active; then the numbers
    are missing).
    """
    rows = []
    for repeat in range(repeats):
        order = list(enumerate(ways))
        for place, way in order[::-1] if repeat % 2 else order:
            rows.append({"way": place, "repeat": repeat, **_trained(run, method, args, way)})
    return pd.DataFrame(rows)


def _trained(run: Experiment, method: str, args: Mapping[str, Any], way: Execution) -> dict[str, Any]:
    base = dataclasses.replace(run.base, attention=way.attention)
    settings = Settings(run.budget, run.learning_rate or 1e-4, run.seed, way)
    try:
        tuned = methods.apply(method, base, **args)
        history = objectives.fit(run.objective, tuned, run.data, settings)
    except NotActive as error:
        return {"reason": str(error)}
    fast = speed(list(history.steps))
    return {
        "tokens_per_s": None if fast is None else fast.tokens_per_s,
        "step_s": None if fast is None else fast.step_s_median,
        "activations_bytes": history.activations_bytes,
        "peak_train_bytes": history.peak_train_bytes,
        "loss": history.losses[-1],
        "disturbed": disturbed(history.processor_share),
        "evidence": dict(history.proof.evidence) if history.proof else {},
        "reason": None,
    }


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A speed over another, with its 95 % interval over repeats; both ends are NaN with a single one."""

    label: str
    value: float
    low: float
    high: float


def ratios(rows: pd.DataFrame, labels: Mapping[str, int], against: int) -> Iterator[Ratio]:
    """The ``tokens_per_s`` of each labelled way over that of the way ``against``, repeat by repeat.

    The geometric mean of the repeats, with Student's t on the logarithms. A way that was not active is left out.
    """
    speeds = rows.pivot_table(index="repeat", columns="way", values="tokens_per_s")
    for label, way in labels.items():
        if way not in speeds or against not in speeds:
            continue
        logs = np.log((speeds[way] / speeds[against]).dropna().to_numpy(float))
        if not len(logs):
            continue
        half = math.nan
        if len(logs) > 1:
            half = float(stdtrit(len(logs) - 1, 0.975)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
        mean = float(logs.mean())
        yield Ratio(label, math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def sentence(some: Sequence[Ratio]) -> str:
    """What the intervals say of the last of some ways against the first: faster, slower, or that it cannot be told."""
    if len(some) < 2:
        return "nothing beside the baseline was active"
    last = some[-1]
    if math.isnan(last.low):
        return f"all together train {last.value:.2f} times as many tokens a second; one repeat tells no interval"
    told = f"{last.value:.2f} times as many tokens a second ({last.low:.2f} to {last.high:.2f})"
    if last.low > 1:
        return f"all together are faster: {told}"
    return (
        f"all together are slower: {told}"
        if last.high < 1
        else f"whether all together are faster cannot be told: {told}"
    )
