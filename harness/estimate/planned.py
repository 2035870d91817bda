"""The memory estimates of a plan: what every trial needs at most, and which trials cannot fit.

Decisions that are worth knowing:

* Planning imports no torch. Another process, and its forks, trace each distinct setting once
  (:mod:`harness.estimate.worker`), and the cache stores the result. Learning rates, seeds and tasks of equal length
  share a setting. A plan of ten thousand rows therefore traces a few dozen, and the next plan of the same sweep none.
* The key of a cached estimate covers everything that determines it: the setting, the model's shape, the versions of
  the libraries, and the source of the rooms that estimate. A changed method is estimated anew.
* A step is that of the whole batch at the budget's full length with a loss on every token. Shorter texts need less:
  ``--force`` runs trials that would be skipped.
* A trial without an estimate is never skipped for its size. There is none for objectives whose step is more than one
  pass over the batch, for methods that train nothing or cannot be traced, and for optimisers whose states may leave the
  device. Whether the model takes the method's arguments is asked of all that trains.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from harness import catalog
from harness.errors import InputError
from harness.estimate.fits import GB, parse_bytes
from harness.estimate.limit import MemoryLimit, limit_of
from harness.files import source_digest, write_atomically
from harness.processes.tied import tied
from harness.sources import cache
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial

#: Objectives whose optimiser step is one pass over the batch. The others score pairs, sample, or hold more networks.
ONE_PASS = ("classification", "regression", "sft", "clm")

#: The optimiser that the estimate knows.
_ADAMW = "adamw_torch_fused"

_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
#: Rooms of the package that an estimate follows from.
_ROOMS = ("estimate", "methods", "networks", "models", "measure", "training")

#: The memory of a device, such as 'auto'; None: no trial is skipped for its size.
LimitOf = Callable[[str], MemoryLimit | None]
#: Hears how many settings are estimated, of how many: first 0 of them.
Watch = Callable[[int, int], None]


class Step(NamedTuple):
    """A training step."""

    bytes: int
    """Its peak."""
    flops: int
    """Operations of a whole batch at the full length, forward and backward."""
    updated_params: int = 0
    """Parameters that train."""
    unpacked_params: int = 0
    """Weights that are kept in fewer bits than they are computed with."""


#: The step of a setting; None where it cannot be traced; a text says why the method refuses its arguments.
Peak = Step | str | None
#: The peak of each setting. It tells the watch of each.
Estimator = Callable[[list["Setting"], Watch], dict["Setting", Peak]]


@dataclass(frozen=True)
class Setting:
    """Everything that the memory of a training step depends on."""

    model: str
    method: str
    """Its name, or the path of an own file."""
    method_args: str
    """The arguments of the method as JSON with sorted keys."""
    batch_size: int
    length: int
    dtype: str
    labels: int
    execution: str = "{}"
    """How it trains, as JSON: the fields that are not usual."""
    method_version: str | None = None
    """Of an own file, a digest; None for a method of the package, whose source :func:`_code` covers."""
    has_step: bool = True
    """False: its step cannot be estimated, and the question is whether the model takes the arguments."""
    scalar: bool = False
    """Whether the network ends in a single number."""

    @classmethod
    def of(cls, trial: Trial) -> Setting | None:
        """The setting of a trial; None if nothing is trained."""
        if not catalog.method_of_row(trial.method).trains:
            return None
        leaves = trial.execution.optimizer.startswith("paged")
        has_step = trial.objective in ONE_PASS and not leaves and trial.method_args.get("optimizer", _ADAMW) == _ADAMW
        return cls(
            model=trial.address("model"),
            method=trial.address("method"),
            method_args=json.dumps(trial.method_args, sort_keys=True),
            batch_size=trial.budget.batch_size,
            length=trial.budget.max_length,
            dtype=trial.dtype,
            labels=_labels(trial.address("task")),
            execution=trial.execution.model_dump_json(),
            method_version=trial.method_version,
            has_step=has_step,
            scalar=catalog.objective(trial.objective).scalar,
        )

    def key(self) -> str:
        """Name of this setting's file in the cache."""
        inputs = json.dumps([asdict(self), _shape(self.model), _code()], sort_keys=True)
        return hashlib.sha256(inputs.encode()).hexdigest()[:24]


def _unwatched(estimated: int, of: int) -> None:
    return


def judge(plan: Plan, limit: LimitOf = limit_of, estimator: Estimator | None = None, watch: Watch = _unwatched) -> Plan:
    """``plan`` with the estimated peak of each trial; trials above the ``limit`` of their device are skipped.

    A trial is skipped too if all candidates for one of its parents are, and if its model cannot take the method's
    arguments. ``watch`` hears of what the cache lacks. Raises :class:`harness.errors.InputError` if that leaves nothing
    to run.
    """
    estimates = _estimates([row.trial for row in plan.runnable], estimator or _in_processes, watch)
    limit = once(limit)
    skipped: set[str] = set()
    refused: list[str] = []
    rows = []
    for row in plan.rows:
        if row.reason is None:
            estimate = estimates.get(row.trial_id)
            if isinstance(estimate, str):
                row = replace(row, reason=estimate)
                refused.append(estimate)
            else:
                if estimate is not None:
                    row = _with(row, estimate)
                row = replace(row, reason=_lost_parent(row, skipped) or _too_large(row, limit))
        if row.reason is not None:
            skipped.add(row.trial_id)
        rows.append(row)
    judged = replace(plan, rows=tuple(rows))
    if refused and not judged.runnable:
        raise InputError(f"no trial of the sweep can run: {refused[0]}")
    return judged


def limits(memory: str | None = None, *, force: bool = False, elsewhere: bool = False) -> LimitOf:
    """The memory limit for :func:`judge`: ``memory``, such as 24GB, or what each device of this machine has.

    Nothing is skipped with ``force``, nor if the trials run ``elsewhere`` and ``memory`` is not given. Raises
    :class:`harness.errors.InputError` when ``memory`` is not a size.
    """
    given = None if memory is None else MemoryLimit("--memory", parse_bytes(memory, "--memory"))
    if given is None and not elsewhere and not force:
        return limit_of
    return lambda device: None if force else given


def _with(row: Planned, step: Step) -> Planned:
    return replace(
        row,
        estimated_bytes=step.bytes,
        estimated_flops=step.flops,
        updated_params=step.updated_params,
        unpacked_params=step.unpacked_params,
    )


def _too_large(row: Planned, limit: LimitOf) -> str | None:
    """Why the row cannot fit; None if it can, or if its needs or the limit are unknown."""
    if row.estimated_bytes is None:
        return None
    memory = limit(row.trial.device)
    if memory is None or row.estimated_bytes <= memory.bytes:
        return None
    budget = row.trial.budget
    return (
        f"a step of {budget.batch_size} x {budget.max_length} tokens is estimated to need "
        f"{row.estimated_bytes / GB:.3g} GB, more than the {memory.bytes / GB:.3g} GB of {memory.place}; "
        f"--force runs it all the same"
    )


def _lost_parent(row: Planned, skipped: Collection[str]) -> str | None:
    for role, candidates in row.trial.parents.items():
        if all(parent in skipped for parent in candidates):
            return f"its parent ({role}, trial {' or '.join(candidates)}) is skipped"
    return None


def _estimates(trials: Iterable[Trial], estimator: Estimator, watch: Watch) -> dict[str, Peak]:
    """Id of each trial -> estimated bytes; one call of ``estimator`` covers whatever the cache lacks."""
    settings = {trial.trial_id: setting for trial in trials if (setting := Setting.of(trial)) is not None}
    files = {
        setting: cache.root() / "estimates" / f"{setting.key()}.json" for setting in dict.fromkeys(settings.values())
    }
    known = {setting: size for setting, file in files.items() for size in _cached(file)}
    if missing := [setting for setting in files if setting not in known]:
        watch(0, len(missing))
        for setting, size in estimator(missing, watch).items():
            known[setting] = size
            # A refusal by a file of one's own may hang on what lies beside it, or on a package that is to come.
            if setting.method_version is None or isinstance(size, Step):
                _store(files[setting], size)
    return {trial_id: known.get(setting) for trial_id, setting in settings.items()}


def _in_processes(settings: list[Setting], watch: Watch = _unwatched) -> dict[Setting, Peak]:
    """Trace ``settings`` in other processes; what they have not traced when one dies stays out of the answer."""
    process = subprocess.Popen(
        tied([sys.executable, "-P", "-m", "harness.estimate.worker"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # No estimate needs a GPU, and a process that has opened one must not fork, as this does.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    sizes: dict[Setting, Peak] = {}
    try:
        for setting, size in zip(settings, _answers(process, settings), strict=False):
            sizes[setting] = size
            watch(len(sizes), len(settings))
    finally:
        process.kill()
        process.wait()
    return sizes


def _answers(process: subprocess.Popen[str], settings: list[Setting]) -> Iterator[Peak]:
    """The size of one setting after the other, as the process tells them; it may end early."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError), process.stdin as questions:
        json.dump([asdict(setting) for setting in settings], questions)
    for line in process.stdout:
        yield _peak(json.loads(line))


def _cached(file: Path) -> list[Peak]:
    """The estimate in a cache file, as a list of one; empty if the file is missing or unreadable."""
    try:
        return [_peak(json.loads(file.read_text(encoding="utf-8"))["step"])]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _peak(answer: Any) -> Peak:
    """A step as JSON writes it: a list."""
    return Step(*answer) if isinstance(answer, list) else answer


def _store(file: Path, size: Peak) -> None:
    """Write an estimate to the cache; if that fails, the next plan computes it again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"step": size}), durable=False)


@once
def _labels(task: str) -> int:
    """Number of outputs of an encoder's head; 2 for a task without one."""
    from harness.tasks.spec import load_spec

    spec = load_spec(task)
    return 1 if spec.kind == "regression" else len(spec.labels) or 2


@once
def _shape(model: str) -> str:
    """The model's shape, as far as its files show it without a library."""
    from harness.models.spec import load_spec

    spec = load_spec(model)
    local = Path(getattr(spec.source, "local", ""), "config.json")
    return spec.model_dump_json() + (local.read_text(encoding="utf-8") if local.is_file() else "")


@once
def _code() -> list[str]:
    """Versions of the libraries, and a digest of the rooms that estimate."""
    return [*map(_version, _LIBRARIES), source_digest(_ROOMS)]


def _version(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return f"{library} missing"
