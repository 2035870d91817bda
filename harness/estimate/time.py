"""The time of a trial before it runs: from its FLOPs, this machine's speed, and what earlier rows on it took.

A trial starts, trains, answers the validation and the test split and what probes ask, and measures its latency. Matrix
products run at a share of the measured peak, writing a token has to read every weight once, and a step of any size
costs a little. The shares are those of ``sweeps/quick.yaml`` on two cores (benchmarks/trial_time.py); what this misses
on a machine, its own rows correct: an estimate is multiplied by what rows like it took over what was estimated for
them, those of the same method before those of the same model and task.

Without rows of the same cell there is no estimate where a step is more than one pass over the batch
(:data:`harness.estimate.planned.ONE_PASS`). What is planned later takes as long as the planned trials of its cell.
"""

from __future__ import annotations

import contextlib
import math
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import catalog
from harness.errors import InputError
from harness.estimate import machine
from harness.sweeps.plan import Later, Plan, Planned
from harness.trial import Budget, Trial

#: Share of the peak in training and reading; in writing tokens side by side; and in writing one text alone, which waits
#: for the weights.
_READING, _WRITING, _ALONE = 0.42, 0.13, 0.02
#: Seconds that any step costs, that any batch of answers costs, and of a start: kernel, libraries, checkpoint.
_STEP_S, _BATCH_S, _START_S = 0.05, 0.02, 4.5
#: Texts that are answered side by side, tokens that the latency is measured on (read, written), and characters a token.
_SIDE_BY_SIDE, _LATENCY_READ, _LATENCY_WRITTEN, _CHARACTERS = 32, 256, 48, 4
#: A batch is as long as its longest text.
_PADDED = 1.3

#: Columns of a row that say how alike it is, from what tells most to what tells least.
_LIKE = (("model", "task", "objective", "method"), ("model", "task", "objective"), ("model",), ())

#: Peak FLOPs per second of a device and a number format; None where it is not known.
PeakOf = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Texts:
    """The size of a task's texts, in tokens by their characters."""

    prompt: float
    by_head: float
    """Of what an encoder's head reads instead."""
    answer: float
    scored: Sequence[int]
    """Examples of validation and test."""
    writes: bool
    """Whether an answer is written token by token."""


@dataclass(frozen=True)
class Work:
    """What a trial does, in numbers."""

    steps: int
    step_flops: float
    """Of an average step, with texts as long as they are."""
    forward_flops: float
    """Of one token through the network."""
    read: float
    """Tokens that are read to answer one example."""
    scored: int
    """Examples of both splits."""
    written: float
    """Tokens of an answer; 0 where none is written."""
    probed: float = 0.0
    """Tokens of all that the probes ask after training. The untouched base is asked once for all trials."""

    def seconds(self, peak: float) -> float:
        """The time at ``peak`` FLOPs per second."""
        training = self.steps * (_STEP_S + self.step_flops / (_READING * peak))
        token = self.forward_flops / peak
        batches = math.ceil(self.scored / _SIDE_BY_SIDE)
        reading = (self.scored * self.read + self.probed) * token / _READING + batches * _BATCH_S
        writing = self.written * token * (batches / _ALONE + self.scored / _WRITING)
        latency = _LATENCY_READ * token / _READING + (_LATENCY_WRITTEN * token / _ALONE if self.written else 0.0)
        return _START_S + training + reading + writing + latency


def judge(plan: Plan, rows: Iterable[Mapping[str, Any]] = (), peak_of: PeakOf = machine.flops_per_s) -> Plan:
    """``plan`` with the estimated seconds of each trial that can run; ``rows`` are earlier ones, of any machine."""
    earlier = _Earlier(rows, peak_of)
    return replace(plan, rows=tuple(replace(row, estimated_s=earlier.seconds(row)) for row in plan.rows))


def total_s(plan: Plan) -> tuple[float, int]:
    """Seconds of all trials that can run, now and later, one after the other, and how many have no estimate."""
    seconds = [row.estimated_s for row in plan.runnable]
    for later in plan.later:
        seconds += [_of_its_cell(later, plan)] * later.trials
    return sum(one for one in seconds if one is not None), seconds.count(None)


def _of_its_cell(later: Later, plan: Plan) -> float | None:
    """Seconds of a planned trial that differs from ``later`` in seed and learning rate alone."""
    alike = {name: value for name, value in later.facts.items() if name not in ("seed", "learning_rate")}
    rows = (plan.by_id[trial_id] for trial_id in later.waits_for if trial_id in plan.by_id)
    known = [row.estimated_s for row in rows if row.estimated_s is not None and alike.items() <= row.facts().items()]
    return statistics.median(known) if known else None


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of all tables below ``folder``, such as ``results``; what cannot be read is passed over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*/tables/trials.parquet")):
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            rows += pq.read_table(file).to_pylist()
    return rows


class _Earlier:
    """What rows on this machine took, over what is estimated for them."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], peak_of: PeakOf) -> None:
        self._peak_of = peak_of
        self._ratios: dict[tuple[str, ...], list[float]] = {}
        self._took: dict[tuple[Any, ...], list[float]] = {}
        for row in rows:
            if row.get("status") == "ok" and row.get("hostname") == platform.node() and row.get("duration_s"):
                self._add(row)

    def _add(self, row: Mapping[str, Any]) -> None:
        self._took.setdefault(_cell(row), []).append(row["duration_s"])
        peak = self._peak_of(str(row.get("requested_device") or "auto"), str(row.get("dtype")))
        work = work_of_row(row)
        if work is None or peak is None:
            return
        for names in _LIKE:
            key = tuple(str(row.get(name)) for name in names)
            self._ratios.setdefault((str(len(names)), *key), []).append(row["duration_s"] / work.seconds(peak))

    def seconds(self, planned: Planned) -> float | None:
        """The estimate for a row of a plan; None for a skipped one, and where too little is known."""
        trial = planned.trial
        if planned.reason is not None:
            return None
        facts = _facts(trial)
        if (same := self._took.get(_cell(facts))) is not None:
            return statistics.median(same)
        work = work_of(planned)
        peak = self._peak_of(trial.device, trial.dtype) if work is not None else None
        return None if work is None or peak is None else self._ratio(facts) * work.seconds(peak)

    def _ratio(self, facts: Mapping[str, Any]) -> float:
        for names in _LIKE:
            ratios = self._ratios.get((str(len(names)), *(str(facts[name]) for name in names)))
            if ratios:
                return statistics.median(ratios)
        return 1.0


def work_of(planned: Planned) -> Work | None:
    """What a planned trial does; None where a step's FLOPs, the model's size or the data are not known.

    And for a study, which does what no other trial does.
    """
    trial = planned.trial
    if trial.method in catalog.STUDIES:
        return None
    trains = catalog.method_of_row(trial.method).trains
    texts = _texts(trial.address("task"))
    if texts is None or (trains and planned.estimated_flops is None):
        return None
    learnt = texts.by_head if _is_encoder(trial.address("model")) else texts.prompt + texts.answer
    slots = min(1.0, _PADDED * learnt / trial.budget.max_length)
    step_flops = slots * (planned.estimated_flops or 0)
    return _work(trial.address("model"), trial.budget, texts, step_flops, trains)


def work_of_row(row: Mapping[str, Any]) -> Work | None:
    """What a trial did whose row this is, with the FLOPs that its steps had; None where they are not known."""
    trains = bool(row.get("train_steps"))
    names = ("train_examples", "batch_size", "epochs", "max_length", "eval_examples", "max_new_tokens")
    if row.get("method") in catalog.STUDIES or (trains and row.get("train_flops") is None):
        return None
    try:
        asked = tuple(row["probes"].split(", ")) if row.get("probes") else ()
        budget = Budget(**{name: row[name] for name in names}, probes=asked)
        texts = _texts(row["task"])
        return None if texts is None else _work(row["model"], budget, texts, row.get("train_flops") or 0.0, trains)
    except (InputError, ValueError, LookupError):  # an own model or task, or a row of another version
        return None


def _work(model: str, budget: Budget, texts: Texts, step_flops: float, trains: bool) -> Work | None:
    forward_flops = _forward_flops(model)
    if forward_flops is None:
        return None
    most = budget.eval_examples
    scored = sum(size if most is None else min(size, most) for size in texts.scored)
    # What was not trained to stop writes on to the end.
    written = min(texts.answer if trains else 2 * texts.answer, budget.max_new_tokens or math.inf)
    return Work(
        steps=budget.train_steps if trains else 0,
        step_flops=step_flops,
        forward_flops=forward_flops,
        read=min(_PADDED * (texts.by_head if _is_encoder(model) else texts.prompt), budget.max_length),
        scored=scored,
        written=written if texts.writes else 0.0,
        probed=0.0 if _is_encoder(model) else sum(map(_probe_tokens, budget.probes)),
    )


def _is_encoder(model: str) -> bool:
    from harness.models.spec import load_spec

    return load_spec(model).kind == "encoder"


@lru_cache(maxsize=64)
def _forward_flops(model: str) -> float | None:
    """Two operations for each parameter that a token meets; the table of an encoder's words is only looked up."""
    from harness.models.facts import stored_params
    from harness.models.spec import load_spec

    spec = load_spec(model)
    params = spec.params or stored_params(spec)
    if params is None:
        return None
    config: Mapping[str, Any] = spec.config or {}
    looked_up = config.get("vocab_size", 0) * config.get("hidden_size", 0) if spec.kind == "encoder" else 0
    return 2.0 * (params - looked_up)


@lru_cache(maxsize=64)
def _texts(task: str) -> Texts | None:
    """The texts of a task; None where its data is not on this machine."""
    import warnings

    from harness.tasks import check, data
    from harness.tasks.spec import load_spec

    spec = load_spec(task)
    if not check.is_here(spec):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = data.load(task)
    some = loaded.train[:500]
    return Texts(
        prompt=_tokens(example.prompt or example.completion for example in some),
        by_head=_tokens(example.text for example in some),
        answer=0.0 if spec.is_corpus else _tokens(example.completion for example in some),
        scored=(len(loaded.validation), len(loaded.test)),
        writes=spec.kind in ("generation", "preference"),
    )


@lru_cache(maxsize=8)
def _probe_tokens(name: str) -> float:
    """Tokens that a model reads to answer a suite of probes; 0 where its data is not on this machine."""
    from harness.tasks import check, data
    from harness.tasks.probes import SUITES
    from harness.tasks.spec import load_spec

    suite = SUITES[name]
    if not all(check.is_here(load_spec(task)) for task in suite.tasks):
        return 0.0
    asked = [example for task in suite.tasks for example in data.load(task).test[: suite.examples]]
    texts = [example.prompt + answer for example in asked for answer in example.candidates or (example.completion,)]
    return _PADDED * sum(min(len(text) / _CHARACTERS, suite.max_length) for text in texts)


def _tokens(texts: Iterable[str]) -> float:
    """Tokens of an average text."""
    return statistics.fmean(map(len, texts)) / _CHARACTERS


def _facts(trial: Trial) -> dict[str, Any]:
    names = ("model", "task", "task_version", "objective", "method", "method_version", "dtype", "method_args")
    return {
        **{name: getattr(trial, name) for name in names},
        **trial.budget.model_dump(),
        "max_new_tokens": trial.budget.max_new_tokens,
        "probes": ", ".join(trial.budget.probes) or None,
    }


_SAME = ("model", "task", "task_version", "objective", "method", "method_version", "dtype")


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two trials share that take the same time: everything but seed, learning rate and arguments."""
    return tuple(row.get(name) for name in (*_SAME, *Budget.model_fields))
