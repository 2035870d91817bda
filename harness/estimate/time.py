"""The time of a trial before it runs: from its FLOPs, this machine's speed, and what earlier rows on it took.

A trial starts, trains, answers the validation and the test split and what probes ask, and measures its latency. Matrix
products run at a share of the measured peak. What moves numbers instead is counted in the operations that the peak
does meanwhile: an update reads and writes a parameter, its gradient and its states; weights of fewer bits are unpacked
in every pass; and a pass that writes one more token has to read every weight. A step of any size costs a little. The
constants are those of ``sweeps/quick.yaml`` on two cores (benchmarks/trial_time.py); what this misses on a machine, its
own rows correct: an estimate is multiplied by what rows like it took over what was estimated for them, those of the
same method before those of the same model and task, and undisturbed ones before others.

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
from typing import Any, NamedTuple

from harness import catalog
from harness.errors import InputError
from harness.estimate import machine
from harness.estimate.unpacked import unpacked_params
from harness.sweeps.plan import Later, Plan, Planned
from harness.trial import Budget, Trial

#: Share of the peak in training and reading, and in writing one text alone, which waits for the weights.
_READING, _ALONE = 0.42, 0.016
#: Operations of the peak in the time of one parameter's update; of unpacking a weight in a step, and in another pass.
_UPDATING, _UNPACKING_TO_TRAIN, _UNPACKING = 700, 1500, 200
#: Seconds that any step costs, that any batch of answers costs, and of a start: kernel, checkpoint, saved and reloaded.
_STEP_S, _BATCH_S, _START_S = 0.05, 0.02, 3.0
#: Texts that are read and written side by side.
_READ_TOGETHER, _WRITTEN_TOGETHER = 32, 64
#: Tokens that the latency is measured on (read, written), and characters a token.
_LATENCY_READ, _LATENCY_WRITTEN, _CHARACTERS = 256, 46, 4
#: A batch is as long as its longest text: of batches that are sorted by length, and of those of training that are not.
_PADDED, _PADDED_AT_RANDOM = 1.3, 1.8

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
    """Whether a language model writes an answer token by token …"""
    longest: int
    """… and the tokens that the task allows it."""
    by_length: bool = True
    """Whether training sorts its batches by length (:mod:`harness.training.batches`)."""


@dataclass(frozen=True)
class Work:
    """What a trial does, in numbers."""

    steps: int
    step_flops: float
    """Of an average step, with texts as long as they are."""
    updated: int
    """Parameters that a step updates."""
    unpacked: float
    """Weights that every pass unpacks from fewer bits."""
    forward_flops: float
    """Of one token through the network."""
    read: float
    """Tokens that are read to answer one example."""
    scored: int
    """Examples of both splits."""
    written: float
    """Tokens of an answer; 0 where none is written."""
    longest: int
    """Tokens of the longest answer."""
    speaks: bool = False
    """Whether the latency is measured in writing tokens too, whatever the task asks."""
    networks: int = 1
    """Those whose latency is measured: two where a change can be folded into the weights."""
    probed: float = 0.0
    """Tokens of all that the probes ask after training. The untouched base is asked once for all trials."""
    latency_batches: tuple[int, ...] = (1,)
    """Sequences that its latency is measured with at a time."""

    def seconds(self, peak: float) -> float:
        """The time at ``peak`` FLOPs per second."""
        step_s = (self.step_flops / _READING + _UPDATING * self.updated + _UNPACKING_TO_TRAIN * self.unpacked) / peak
        token_s = self.forward_flops / peak / _READING
        unpacking_s = _UNPACKING * self.unpacked / peak
        pass_s = self.forward_flops / peak / _ALONE + unpacking_s
        training = self.steps * (_STEP_S + step_s)
        batches = math.ceil(self.scored / _READ_TOGETHER)
        reading = (self.scored * self.read + self.probed) * token_s + batches * (_BATCH_S + unpacking_s)
        passes = math.ceil(self.scored / _WRITTEN_TOGETHER) * self.longest if self.written else 0
        writing = self.scored * self.written * token_s + passes * pass_s
        latency = sum(
            _LATENCY_READ * size * token_s
            + (_LATENCY_WRITTEN * (pass_s + (size - 1) * token_s) if self.speaks else 0.0)
            for size in self.latency_batches
        )
        return _START_S + training + reading + writing + self.networks * latency


def judge(plan: Plan, rows: Iterable[Mapping[str, Any]] = (), peak_of: PeakOf = machine.flops_per_s) -> Plan:
    """``plan`` with the estimated seconds of each trial that can run; ``rows`` are earlier ones, of any machine."""
    earlier = _Earlier(rows, peak_of)
    return replace(plan, rows=tuple(replace(row, estimated_s=earlier.seconds(row)) for row in plan.rows))


def estimated(planned: Planned, rows: Iterable[Mapping[str, Any]], peak_of: PeakOf) -> float | None:
    """Seconds of one trial, as :func:`judge` gives them."""
    return _Earlier(rows, peak_of).seconds(planned)


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


#: What holds of the rows of tables from before there were these columns.
_BEFORE = {"probes": None, "latency_batches": "1"}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of all tables below ``folder``, such as ``results``; what cannot be read is passed over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for file in sorted(folder.rglob("tables/trials.parquet")):
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            rows += [_BEFORE | row for row in pq.read_table(file).to_pylist()]
    return rows


class _Rows:
    """What some rows took: those of each cell, and over what is estimated for them, those that are alike."""

    def __init__(self) -> None:
        self._took: dict[tuple[Any, ...], list[float]] = {}
        self._ratios: dict[tuple[str, ...], list[float]] = {}

    def add(self, row: Mapping[str, Any], estimated_s: float | None) -> None:
        """Count a row, for which ``estimated_s`` is estimated without any row."""
        self._took.setdefault(_cell(row), []).append(row["duration_s"])
        if estimated_s is not None:
            for names in _LIKE:
                self._ratios.setdefault(_key(row, names), []).append(row["duration_s"] / estimated_s)

    def seconds(self, facts: Mapping[str, Any], estimated_s: float | None) -> float | None:
        """What a trial with ``facts`` takes by these rows; None where they say nothing of it."""
        if (same := self._took.get(_cell(facts))) is not None:
            return statistics.median(same)
        if estimated_s is not None:
            for names in _LIKE:
                if ratios := self._ratios.get(_key(facts, names)):
                    return statistics.median(ratios) * estimated_s
        return None


class _Earlier:
    """What rows on this machine took, over what is estimated for them.

    Rows that had the machine to themselves come first: the others tell how busy it was.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], peak_of: PeakOf) -> None:
        self._peak_of = peak_of
        self._quiet, self._disturbed = _Rows(), _Rows()
        for row in rows:
            if row.get("status") == "ok" and row.get("hostname") == platform.node() and row.get("duration_s"):
                device, dtype = str(row.get("requested_device") or "auto"), str(row.get("dtype"))
                shared = row.get("disturbed") or row.get("concurrent_trials")
                (self._disturbed if shared else self._quiet).add(row, self._alone(work_of_row(row), device, dtype))

    def seconds(self, planned: Planned) -> float | None:
        """The estimate for a row of a plan; None for a skipped one, and where too little is known."""
        trial = planned.trial
        if planned.reason is not None:
            return None
        facts, alone = _facts(trial), self._alone(work_of(planned), trial.device, trial.dtype)
        by_rows = (rows.seconds(facts, alone) for rows in (self._quiet, self._disturbed))
        return next((seconds for seconds in by_rows if seconds is not None), alone)

    def _alone(self, work: Work | None, device: str, dtype: str) -> float | None:
        """The estimate without any row; None where the work or the machine's peak is not known."""
        peak = None if work is None else self._peak_of(device, dtype)
        return None if work is None or peak is None else work.seconds(peak)


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
    padded = _PADDED if texts.by_length else _PADDED_AT_RANDOM
    slots = min(1.0, padded * learnt / trial.budget.max_length)
    flops, networks = slots * (planned.estimated_flops or 0), _networks(trial.method)
    step = _Step(flops, planned.updated_params, planned.unpacked_params, networks)
    return _work(trial.address("model"), trial.objective, trial.budget, texts, step, trains)


def work_of_row(row: Mapping[str, Any]) -> Work | None:
    """What a trial did whose row this is, with the FLOPs that its steps had; None where they are not known."""
    trains = bool(row.get("train_steps"))
    if row.get("method") in catalog.STUDIES or (trains and row.get("train_flops") is None):
        return None
    try:
        texts, budget = _texts(row["task"]), Budget.from_columns(row)
        if texts is None:
            return None
        return _work(row["model"], row["objective"], budget, texts, _step_of_row(row), trains)
    except (InputError, ValueError, LookupError):  # an own model or task, or a row of another version
        return None


class _Step(NamedTuple):
    """What a training step does; of :class:`Work`."""

    flops: float
    updated: int
    unpacked: int
    networks: int


def _networks(method: str) -> int:
    return 2 if catalog.method_of_row(method).merges else 1


def _step_of_row(row: Mapping[str, Any]) -> _Step:
    total, stored = row.get("total_params"), row.get("weights_bytes")
    unpacked = unpacked_params(total, stored, row["dtype"]) if total and stored else 0
    updated = row.get("trainable_params") or 0
    return _Step(row.get("train_flops") or 0.0, updated, unpacked, _networks(row["method"]))


def _work(model: str, objective: str, budget: Budget, texts: Texts, step: _Step, trains: bool) -> Work | None:
    # A head gives labels or a number instead of the next token.
    has_head = _is_encoder(model) or catalog.objective(objective).scalar
    forward_flops = _forward_flops(model)
    if forward_flops is None:
        return None
    most = budget.eval_examples
    scored = sum(size if most is None else min(size, most) for size in texts.scored)
    longest = min(texts.longest, budget.max_new_tokens or texts.longest)
    # What was not trained to stop writes on.
    written = min(texts.answer if trains else 2 * texts.answer, longest)
    return Work(
        steps=budget.train_steps if trains else 0,
        step_flops=step.flops,
        updated=step.updated,
        unpacked=step.unpacked,
        forward_flops=forward_flops,
        read=min(_PADDED * (texts.by_head if _is_encoder(model) else texts.prompt), budget.max_length),
        scored=scored,
        written=written if texts.writes and not has_head else 0.0,
        longest=longest,
        speaks=not has_head,
        networks=step.networks,
        probed=0.0 if has_head else sum(map(_probe_tokens, budget.probes)),
        latency_batches=budget.latency_batches,
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
        writes=spec.is_written,
        longest=spec.max_new_tokens,
        by_length=not spec.has_one_answer,
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


def _key(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return str(len(names)), *(str(row.get(name)) for name in names)


def _facts(trial: Trial) -> dict[str, Any]:
    names = ("model", "task", "task_version", "objective", "method", "method_version", "dtype", "method_args")
    return {**{name: getattr(trial, name) for name in names}, **trial.budget.columns()}


_SAME = ("model", "task", "task_version", "objective", "method", "method_version", "dtype")


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two trials share that take the same time: everything but seed, learning rate and arguments."""
    return tuple(row.get(name) for name in (*_SAME, *Budget.model_fields))
