"""Ways to train, measured against each other: in turn, several times, each with the proof of what was active.

A machine's speed drifts. So a repeat runs every way once, every other repeat in the reverse order, and a speed is
compared with that of the baseline in the same repeat (:mod:`harness.judgement.ways`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness import methods, objectives
from harness.arguments import Count, Fields
from harness.execution import Execution, NotActive
from harness.experiment.experiment import Experiment
from harness.measure.processors import disturbed
from harness.measure.training import speed
from harness.results.ways_table import BASELINE
from harness.training.trainer import Settings

#: What trains in every way, with its usual arguments.
Trained = Literal["full", "bitfit", "adapter", "lora", "dora", "ia3", "qlora"]

#: The fields that are added where nobody names others.
USUAL = {"packing": True, "loss": "chunked", "gradient_checkpointing": True, "accumulation": 2}

_RATE = 1e-4
"""A learning rate that no way diverges with: what a step costs does not depend on it."""


@dataclass(frozen=True)
class Way:
    """A way to train, and its places in the comparison."""

    label: str
    execution: Execution
    added: int | None = None
    """How many fields were added one by one until here."""
    without: str | None = None
    """The field that alone of all is left out."""


def ways(fields: Mapping[str, Any]) -> list[Way]:
    """The baseline, one field after the other added to it, and all fields but one; each way once.

    The fields are added in the order of :class:`harness.execution.Execution`.
    """
    asked = Execution(**fields).asked
    names = list(asked)
    found = [Way(BASELINE, Execution(), added=0)]
    for count, name in enumerate(names, start=1):
        execution = Execution(**{other: asked[other] for other in names[:count]})
        found.append(Way(f"+ {written(name, asked[name])}", execution, added=count))
    for left_out in names if len(names) > 1 else ():
        execution = Execution(**{name: value for name, value in asked.items() if name != left_out})
        text = written(left_out, asked[left_out])
        place = next((n for n, way in enumerate(found) if way.execution == execution), None)
        if place is None:
            found.append(Way(f"all without {text}", execution, without=text))
        else:
            found[place] = replace(found[place], without=text)
    return found


def written(name: str, value: Any) -> str:
    """A field and its value as people read them: 'packing', 'loss chunked'."""
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value}"


def study(
    run: Experiment, tuned_by: Trained = "lora", fields: Fields | None = None, repeats: Count = 3
) -> Iterator[dict[str, Any]]:
    """Rows of the table ``ways``, without ``trial_id``: a short training of a fresh network for each way and repeat.

    ``fields`` are those of the block ``execution`` that are added, by default chunked loss, packing, checkpointing and
    two parts of a batch. Where a way was not active its row says why, and has no numbers.
    """
    every = ways(USUAL if fields is None else dict(fields))
    for repeat in range(repeats):
        for way in every[::-1] if repeat % 2 else every:
            yield {
                "model": run.base.spec.name,
                "method": tuned_by,
                "way": way.label,
                "execution": json.dumps(way.execution.asked),
                "added": way.added,
                "without": way.without,
                "repeat": repeat,
                **_trained(run, tuned_by, way.execution),
            }


def _trained(run: Experiment, method: str, execution: Execution) -> dict[str, Any]:
    base = dataclasses.replace(run.base, attention=execution.attention)
    settings = Settings(run.budget, run.learning_rate or _RATE, run.seed, execution)
    try:
        history = objectives.fit(run.objective, methods.apply(method, base), run.data, settings)
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
        "evidence": json.dumps(dict(history.proof.evidence) if history.proof else {}),
        "reason": None,
    }
