"""A task and a sweep for a data file: methods that fit the memory, and seeds, rates and examples that fit the hours.

Every choice is written beside its reason, as a comment of the file, for whoever edits it. What is chosen follows from
the plan itself: a sweep is planned, its memory and time are estimated, and what does not fit is taken back, first what
costs the comparison least (:data:`_STEPS`).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness import catalog, notebooks
from harness.errors import InputError, unknown
from harness.estimate import planned, time
from harness.models.spec import ModelSpec
from harness.models.spec import load_spec as load_model
from harness.sweeps import expand, spec
from harness.sweeps.grids import default_rates
from harness.sweeps.plan import Plan
from harness.tasks import auto, data
from harness.tasks.spec import load_spec as load_task

Goal = Literal["score", "speed", "size"]

#: What is compared for each goal, the most telling first; the last ones are left out first where time is short.
_METHODS: Mapping[str, tuple[str, ...]] = {
    "score": ("baseline", "lora", "full", "adapter", "bitfit", "prefix"),
    "speed": ("baseline", "head", "lora", "bitfit", "adapter"),
    "size": ("baseline", "bitfit", "lora", "head", "prompt"),
}
#: A method that is worth its slower steps only where the other does not fit.
_INSTEAD = {"qlora": "lora"}

_BATCH, _MOST_EXAMPLES, _FEWEST_EXAMPLES, _MOST_SCORED = 8, 2048, 64, 500
_FEWEST_METHODS = 2
_LONGEST, _CHARACTERS = 512, 3
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Advice:
    """The two files as text, and the plan that they make."""

    task: str
    sweep: str
    plan: Plan


@dataclass(frozen=True)
class _Choice:
    """What a sweep has, and what was left out of it and why."""

    methods: tuple[str, ...]
    seeds: int
    rates: int
    train_examples: int
    eval_examples: int
    left_out: Mapping[str, str] = field(default_factory=dict)


def advise(file: Path, model: str, folder: Path, *, memory: str | None, hours: float, goal: str) -> Advice:
    """The task and the sweep for ``file``, to be written into ``folder``; nothing is written here.

    ``memory`` is such as 24GB; None: what this machine has. Raises :class:`harness.errors.InputError` for a file that
    is not recognised, a model that cannot learn it, and a limit that nothing fits.
    """
    if goal not in get_args(Goal):
        raise unknown("--goal", goal, get_args(Goal))
    if not 0 < hours < 10**6:
        raise InputError(f"--hours: {hours:g} is no time; write hours such as 3 or 0.5")
    limit = planned.limits(memory)
    base = load_model(model)
    recognised = auto.recognise(file)
    objective = _objective(base, recognised.keys["kind"])
    with tempfile.TemporaryDirectory(prefix="tunebench-advise-") as temporary:
        place = Path(temporary)
        draft = place / "task.yaml"
        draft.write_text(_task_text(file, file.absolute(), recognised), encoding="utf-8")
        facts = _Facts.of(str(draft), base)

        def plan_of(choice: _Choice) -> Plan:
            path = place / "sweep.yaml"
            path.write_text(_text(_sweep_lines(_name(file), choice, facts, base, objective, [], [])), encoding="utf-8")
            return planned.judge(expand.plan(spec.load(path)), limit)

        choice, plan = _that_fits_memory(plan_of, _first_choice(goal, facts))
        rows = time.rows_of(Path("results"))
        choice, plan = _that_fits_time(plan_of, rows, choice, hours)
    seconds, without = time.total_s(plan)
    spent = [f"{len(plan.runnable)} trials, about {seconds / _HOUR_S:.2g} of {hours:g} hours one after the other"]
    spent += [f"the time of {without} trials is not known, and not in that sum"] if without else []
    spent += ["that is more than the hours given: no smaller comparison is worth its name"] * (
        seconds > hours * _HOUR_S
    )
    shown = Path(os.path.relpath(file.absolute(), folder.absolute()))
    why = [f"for the goal '{goal}'; 'tunebench list methods' has all"]
    sweep = _text(_sweep_lines(_name(file), choice, facts, base, objective, why, spent))
    return Advice(_task_text(file, shown, recognised), sweep, plan)


def _objective(base: ModelSpec, kind: catalog.TaskKind) -> str:
    """The loss that the model can learn the task by. Raises :class:`InputError` where there is none."""
    natural = catalog.OBJECTIVES[catalog.NATURAL_OBJECTIVE[kind]]
    if base.kind in natural.model_kinds:
        return natural.name
    for name, one in catalog.OBJECTIVES.items():
        if kind in one.task_kinds and base.kind in one.model_kinds:
            return name
    kinds = " or ".join(natural.model_kinds)
    raise InputError(f"--model: '{base.name}' is an {base.kind}, and a {kind} task needs a {kinds}")


@dataclass(frozen=True)
class _Facts:
    """What the data says about the budget."""

    train: int
    scored: int
    length: int
    kind: str

    @classmethod
    def of(cls, task: str, base: ModelSpec) -> _Facts:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the plan tells them
            loaded = data.load(task)
        head = base.kind == "encoder"
        sizes = sorted(len(e.text if head else e.prompt + e.completion) / _CHARACTERS for e in loaded.train)
        usual = sizes[(9 * (len(sizes) - 1)) // 10]
        config: Mapping[str, Any] = base.config or {}
        most = min(_LONGEST, config.get("max_position_embeddings", _LONGEST))
        length = next((size for size in (32, 64, 96, 128, 192, 256, 384) if size >= usual), most)
        kind = load_task(task).kind
        return cls(len(loaded.train), min(len(loaded.test), _MOST_SCORED), min(length, most), kind)


def _first_choice(goal: str, facts: _Facts) -> _Choice:
    methods = (*_METHODS[goal], *_INSTEAD)
    return _Choice(
        methods, seeds=3, rates=3, train_examples=min(facts.train, _MOST_EXAMPLES), eval_examples=facts.scored
    )


def _that_fits_memory(plan_of: Callable[[_Choice], Plan], choice: _Choice) -> tuple[_Choice, Plan]:
    """``choice`` without methods that cannot run, and without those that others make needless."""
    plan = plan_of(choice)
    runs = {row.trial.method for row in plan.runnable}
    reasons = {row.trial.method: row.reason for row in plan.skipped if row.reason and row.trial.method not in runs}
    for name, other in _INSTEAD.items():
        if other in runs:
            runs.discard(name)
            reasons[name] = f"{other} fits, and its steps are faster"
    methods = tuple(name for name in choice.methods if name in runs)
    if not any(catalog.METHODS[name].trains for name in methods):
        raise InputError(f"--memory: no method fits: {next(iter(reasons.values()), 'nothing can be planned')}")
    choice = replace(choice, methods=methods, left_out=reasons)
    return choice, plan_of(choice)


def _fewer_examples(choice: _Choice) -> _Choice | None:
    fewer = choice.train_examples // 2
    return replace(choice, train_examples=fewer) if fewer >= _FEWEST_EXAMPLES else None


def _fewer_scored(choice: _Choice) -> _Choice | None:
    fewer = choice.eval_examples // 2
    return replace(choice, eval_examples=fewer) if fewer >= _FEWEST_EXAMPLES else None


def _one_rate(choice: _Choice) -> _Choice | None:
    return replace(choice, rates=1) if choice.rates > 1 else None


def _one_method_less(choice: _Choice) -> _Choice | None:
    if len(choice.methods) <= _FEWEST_METHODS:
        return None
    *methods, last = choice.methods
    return replace(choice, methods=tuple(methods), left_out={**choice.left_out, last: "the hours do not suffice"})


def _one_seed(choice: _Choice) -> _Choice | None:
    return replace(choice, seeds=1) if choice.seeds > 1 else None


#: What is given up for time, in this order, each until there is no more of it.
_STEPS = (_fewer_examples, _fewer_scored, _one_rate, _one_method_less, _one_seed)


def _that_fits_time(
    plan_of: Callable[[_Choice], Plan], rows: Sequence[Mapping[str, Any]], choice: _Choice, hours: float
) -> tuple[_Choice, Plan]:
    plan = time.judge(plan_of(choice), rows)
    for step in _STEPS:
        while time.total_s(plan)[0] > hours * _HOUR_S and (less := step(choice)) is not None:
            choice = less
            plan = time.judge(plan_of(choice), rows)
    return choice, plan


# --- the files -------------------------------------------------------------------------------------------------------


def _name(file: Path) -> str:
    stem = file.name.split(".")[0].lower()
    name = "".join(sign if sign.isalnum() and sign.isascii() else "_" for sign in stem).strip("_")
    return name or "own"


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text


#: The reason for a key of a task, in its comment.
_WHY = {
    "kind": "what the columns say it is",
    "splits": "numbers of different inputs, drawn by a hash of their text; the rest is for training",
    "labels": "value in the column -> the word that a decoder answers with; change the words at will",
    "max_new_tokens": "nine of ten answers are this long or shorter",
    "reader": "how the file is read",
    "prompt": "what a decoder reads; change the words at will",
    "text": "what an encoder reads",
}


def _task_text(file: Path, local: Path, recognised: auto.Recognised) -> str:
    """The YAML of the task, with ``local`` as the place of its data."""
    lines = [f"# {file.name} was taken for {recognised.what}.", f"name: {_name(file)}"]
    keys = {"kind": recognised.keys["kind"], "source": {"local": local.as_posix()}, **recognised.keys}
    for key, value in keys.items():
        why = f"   # {_WHY[key]}" if key in _WHY else ""
        lines.append(f"{key}: {_flow(value)}{why}")
    return _text(lines)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _sweep_lines(
    name: str,
    choice: _Choice,
    facts: _Facts,
    base: ModelSpec,
    objective: str,
    why: Sequence[str],
    spent: Sequence[str],
) -> Iterator[str]:
    yield from (f"# {line}" for line in spent)
    yield f"name: {name}"
    yield f"models: {_flow([base.address])}"
    yield "tasks: [task.yaml]   # beside this file"
    seeds = (
        "an interval needs three" if choice.seeds > 1 else "the hours allow no more; nothing is called better on one"
    )
    yield f"seeds: {_flow(list(range(choice.seeds)))}   # {seeds}"
    of_train = f"{choice.train_examples} of {facts.train} examples to train on"
    yield f"# {of_train}; {facts.length} tokens hold nine of ten texts, by three characters a token"
    budget = {"train_examples": choice.train_examples, "batch_size": _BATCH, "max_length": facts.length}
    yield f"budget: {_flow({**budget, 'eval_examples': choice.eval_examples})}"
    if objective != catalog.NATURAL_OBJECTIVE[facts.kind]:  # type: ignore[index]
        yield f"objectives: [{objective}]   # what a model of this kind can learn from such a task"
    yield from (f"# {line}" for line in why)
    yield "methods:"
    for method in choice.methods:
        args: dict[str, Any] = {}
        if catalog.METHODS[method].trains:
            usual = notebooks.parameters(catalog.METHODS[method].notebook)["learning_rate"]
            rates = default_rates(method, base.kind, catalog.OBJECTIVES[objective], usual)
            args["learning_rate"] = rates if choice.rates > 1 else rates[len(rates) // 2]
        yield f"  {method}: {_flow(args)}   # {catalog.METHODS[method].description}"
    yield from (f"  # left out: {method}: {reason}" for method, reason in choice.left_out.items())
