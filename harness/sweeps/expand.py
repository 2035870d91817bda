"""From a sweep to its plan: every cell of the matrix becomes trials, or one skipped row that says why.

Decisions that are worth knowing:

* A trial holds *every* parameter of its notebook, those at their default too. So a table always says which ``r`` ran,
  ``lora: {}`` and ``lora: {r: 8}`` are one trial, and a changed default makes new trials instead of silently
  renaming old ones.
* A method that trains nothing is deterministic: it is planned once per model and task, with the first seed, the
  task's natural objective and no learning rate, in its own notebook. Examples in its prompt are drawn by every seed.
* A notebook that belongs to an objective takes the method's arguments as a mapping; they are checked against the
  method's own notebook.
* Parents are planned by themselves, once for all of their children. Every setting that the sweep has for a parent's
  method and objective is a candidate, with the child's model, task, seed and number of training examples and, where
  the method is the same, the child's arguments: the child starts from the one that validation prefers. What judges the
  trials of several methods, or is compared with them, is one for all (:attr:`harness.catalog.Parent.shared`).
* What runs now and what later, where the sweep has ``search``, is the matter of :mod:`harness.sweeps.search`.
* An impossible cell (method x objective x model x task) is one skipped row, whatever the number of its arguments
  and seeds; arguments that the model cannot take are skipped rows of their own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from harness import catalog, notebooks
from harness.errors import InputError
from harness.execution import Execution
from harness.sweeps import axes as of_sweep
from harness.sweeps import fairness, given, own_methods
from harness.sweeps.axes import Entry, ModelSpec, TaskSpec
from harness.sweeps.executions import reason_against
from harness.sweeps.grids import default_rates
from harness.sweeps.plan import Plan, Planned, facts, in_order, matches
from harness.sweeps.search import Endings, Stages, not_begun
from harness.sweeps.spec import Arguments, Sweep
from harness.trial import Trial


@dataclass(frozen=True)
class _Cell:
    """One cell of the matrix, before its arguments and seeds are multiplied out."""

    sweep: Sweep
    method: catalog.Method
    objective: catalog.Objective
    of_model: Entry[ModelSpec]
    of_task: Entry[TaskSpec]
    methods: Mapping[str, catalog.Method]
    """Those of the sweep by their names."""
    used_overrides: set[str]
    """The parts of ``overrides`` that changed something, such as 'overrides.0.budget'; all cells of a plan share it."""

    @property
    def model(self) -> ModelSpec:
        return self.of_model.spec

    @property
    def task(self) -> TaskSpec:
        return self.of_task.spec

    @property
    def paths(self) -> dict[str, str]:
        """The paths of own models, tasks and methods, by axis."""
        paths = {"model": self.of_model.path, "task": self.of_task.path, "method": self.method.file}
        return {axis: path for axis, path in paths.items() if path is not None}

    @property
    def notebook(self) -> str:
        return self.of_objective or self.method.notebook

    @property
    def of_objective(self) -> str | None:
        return self.objective.notebook if self.method.trains else None

    def has_seed(self, seed: int, method_args: Mapping[str, Any]) -> bool:
        """Whether a trial with these arguments runs with ``seed``; the first one always does."""
        return bool(self.method.trains or method_args.get(self.method.seeded_by or "") or seed == self.sweep.seeds[0])

    @property
    def parents(self) -> tuple[catalog.Parent, ...]:
        return (*self.method.parents, *(self.objective.parents if self.method.trains else ()))

    def parent(self, parent: catalog.Parent) -> _Cell:
        """The cell of a parent: this cell with the method and objective that ``parent`` names."""
        cell = replace(
            self,
            method=catalog.METHODS[parent.method] if parent.method else self.method,
            objective=catalog.OBJECTIVES[parent.objective or self.objective.name],
        )
        if not parent.shared:
            return cell
        names = sorted(self.sweep.methods, key=lambda name: name != parent.method)
        cells = (replace(cell, method=self.methods[name]) for name in names)
        able = (c for c in cells if c.method.trains and not c.method.parents and c.impossible() is None)
        return next(able, replace(cell, method=self.method))

    def overrides(self) -> Iterator[tuple[int, Any]]:
        names = {"model": self.model.name, "task": self.task.name, "objective": self.objective.name}
        for position, entry in enumerate(self.sweep.overrides):
            if entry.matches(**names):
                yield position, entry

    def overruled(self) -> Iterator[str]:
        """What is given for the cell's method and gives way to what is given for its objective, in words."""
        name, objective = self.method.name, self.objective.name
        of_objective = (self.sweep.objectives or {}).get(objective, {}) if self.method.trains else {}
        for field in given.TRIAL_FIELDS:
            if field in of_objective and field in self.sweep.methods.get(name, {}):
                yield f"methods.{name}.{field} is not used there: objectives.{objective}.{field} goes before it"

    def impossible(self) -> str | None:
        """Why this cell cannot run; None if it can."""
        method, objective, model, task = self.method, self.objective, self.model, self.task
        for what, name, is_, wanted in (
            (f"objective '{objective.name}' is for {{}} tasks", task.name, task.kind, objective.task_kinds),
            (f"objective '{objective.name}' needs {{}} models", model.name, model.kind, objective.model_kinds),
            (f"method '{method.name}' needs {{}} models", model.name, model.kind, method.model_kinds),
            (
                f"method '{method.name}' works on {{}} models",
                model.name,
                model.architecture,
                method.families or (model.architecture,),
            ),
        ):
            if is_ not in wanted:
                return f"{what.format(' or '.join(wanted))}; '{name}' is {is_}"
        if method.objectives and objective.name not in method.objectives:
            because = method.objectives_because
            return f"method '{method.name}' cannot be trained with objective '{objective.name}': {because}"
        if (reason := self.on_one_device()) is not None:
            return reason
        for parent in self.parents:
            if (reason := self.parent(parent).impossible()) is not None:
                return f"its parent ({parent.role}) cannot run: {reason}"
        return None

    def on_one_device(self) -> str | None:
        """Why several devices cannot train together here; None if they can, or if one device was requested."""
        together = self.sweep.resources.together
        if together == 1 or not self.method.trains:
            return None
        kinds: tuple[tuple[str, Any, Mapping[str, Any]], ...] = (
            ("method", self.method, catalog.METHODS),
            ("objective", self.objective, catalog.OBJECTIVES),
        )
        for what, entry, known in kinds:
            if not entry.shards:
                others = ", ".join(name for name, other in known.items() if other.shards)
                return f"{what} '{entry.name}' trains on one device, and is given {together}; on several train {others}"
        return None

    def restriction(self, trial: Trial) -> str | None:
        """Why the arguments of ``trial`` do not fit the cell's model; None if they do."""
        args = {**trial.method_args, **trial.objective_args}
        named = [(entry.name, r) for entry in (self.method, self.objective) for r in entry.restrictions]
        for name, restriction in named:
            given = args.get(restriction.argument, restriction.neutral)
            if given != restriction.neutral and self.model.kind not in restriction.model_kinds:
                kinds, kind = " or ".join(restriction.model_kinds), f"'{self.model.name}' is {self.model.kind}"
                return f"{name}.{restriction.argument}: {given!r} needs {kinds} models: {restriction.because}; {kind}"
        return reason_against(self, trial, self.sweep.resources.together)


def plan(sweep: Sweep, endings: Endings = not_begun) -> Plan:
    """All trials of ``sweep`` that can be planned now, checked, in the order of their run.

    ``endings`` tell how trials ended: where the sweep searches, the further seeds of a setting follow from them.
    Methods that train nothing come first, and parents come before their children. Raises :class:`InputError` for a
    name that does not exist, and for an argument that the notebook does not take.
    """
    axes = of_sweep.load(sweep)
    for name in sweep.objectives or ():
        catalog.objective(name, f"{sweep.where}: objectives")
    of_sweep.check_names(sweep, axes)
    written, sweep = sweep, sweep.with_short_names(axes.aliases)
    given.check(sweep, axes.methods)

    rows: dict[str, Planned] = {}
    tries = None if sweep.search is None else sweep.search.seeds
    stages = Stages(tries, endings, rows, lambda cell: list(_trials(cell)), lambda t: bool(_excluding(sweep, t)))
    excluded: Counter[int] = Counter()
    idle, used = set(range(len(sweep.exclude))), set[str]()
    duplicates = 0
    cells = [
        _Cell(sweep, method, objective, model, task, axes.methods, used)
        for model in axes.models
        for task in axes.tasks
        for method in axes.methods.values()
        for objective in _objectives(sweep, task.spec, method.trains)
    ]
    cells.sort(key=lambda cell: cell.method.trains)
    for cell in cells:
        impossible = cell.impossible()
        trials = []
        for trial in _trials(cell):
            entries = _excluding(sweep, trial)
            idle -= set(entries)
            if entries:
                excluded[entries[0]] += 1
                continue
            trials.append(trial)
            if impossible is not None:
                break
        if impossible is not None:
            planned = [Planned(trial, impossible, cell.task.kind, cell.model.family) for trial in trials]
        else:
            planned = list(stages.rows_of(cell, trials))
        for row in planned:
            duplicates += row.trial_id in rows
            rows.setdefault(row.trial_id, row)
    return Plan(
        sweep=sweep.name,
        rows=in_order(rows.values()),
        excluded=tuple((match, excluded[position]) for position, match in enumerate(written.exclude)),
        duplicates=duplicates,
        aliases=axes.aliases,
        later=stages.later,
        grids=fairness.default_grids(sweep, rows.values(), stages.later),
        unmatched=(
            *(f"exclude.{position}" for position in sorted(idle)),
            *(part for parts in _parts(sweep) for part in _unused(parts, used)),
        ),
        overruled=tuple(dict.fromkeys(text for cell in cells for text in cell.overruled())),
    )


def _parts(sweep: Sweep) -> Iterator[tuple[str, ...]]:
    """What each entry of ``overrides`` would change, such as ('overrides.0.budget', 'overrides.0.methods.lora')."""
    for position, entry in enumerate(sweep.overrides):
        where = f"overrides.{position}"
        yield (*([f"{where}.budget"] if entry.budget else ()), *(f"{where}.methods.{name}" for name in entry.methods))


def _unused(parts: tuple[str, ...], used: Collection[str]) -> Iterator[str]:
    """The parts of one entry that changed nothing, or the entry where that is all of it."""
    unused = [part for part in parts if part not in used]
    yield from [".".join(unused[0].split(".")[:2])] if unused and len(unused) == len(parts) else unused


def _objectives(sweep: Sweep, task: TaskSpec, trains: bool) -> list[catalog.Objective]:
    natural = catalog.NATURAL_OBJECTIVE.get(task.kind)  # type: ignore[call-overload]
    if sweep.objectives is None:
        if natural is None:
            raise InputError(
                f"{sweep.where}: objectives: task '{task.name}' ({task.kind}) has no natural objective; name one"
            )
        return [catalog.OBJECTIVES[natural]]
    if not trains:
        fitting = [name for name in sweep.objectives if task.kind in catalog.OBJECTIVES[name].task_kinds]
        return [catalog.OBJECTIVES[natural or next(iter(fitting or sweep.objectives))]]
    return [catalog.OBJECTIVES[name] for name in sweep.objectives]


def _trials(cell: _Cell) -> Iterator[Trial]:
    """Every combination of the cell's axes and seeds, without parents."""
    sweep, method, objective = cell.sweep, cell.method, cell.objective
    declared = _declared(cell)
    of_method = given.parameters(method)
    axes = {"learning_rate": _usual_rates(cell, of_method)} if "learning_rate" in declared else {}
    axes |= {name: [value] for name, value in _arguments(of_method).items()}
    objective_axes = {name: [value] for name, value in _arguments(declared).items()} if cell.of_objective else {}
    of_function, of_fit = given.kinds(method=method.address), given.kinds(objective=objective.name)
    known = {**of_method, **declared}
    here = {name: value for name, value in sweep.defaults.items() if name in of_method or name in objective_axes}
    defaults = _axes(cell, here, known, {**of_fit, **of_function}, "defaults")
    axes |= {name: values for name, values in defaults.items() if name in of_method}
    objective_axes |= {name: values for name, values in defaults.items() if name in objective_axes}
    axes |= _axes(cell, sweep.methods.get(method.name, {}), of_method, of_function, f"methods.{method.name}")
    if method.trains:
        of_objective = (sweep.objectives or {}).get(objective.name, {})
        wanted = _axes(cell, of_objective, given.of_objective(objective), of_fit, f"objectives.{objective.name}")
        axes |= {name: wanted.pop(name) for name in given.TRIAL_FIELDS if name in wanted}
        objective_axes |= wanted
    if double := sorted(axes.keys() & objective_axes.keys()):
        raise InputError(
            f"{sweep.where}: methods.{method.name}: its argument '{double[0]}' is one of objective '{objective.name}' "
            "too; give it another name"
        )
    budget, budget_where = sweep.budget.model_dump(), "budget"
    asked = objective.probes if method.trains else ()
    budget["probes"] = (*sweep.budget.probes, *sweep.probes, *asked)
    for position, entry in cell.overrides():
        where = f"overrides.{position}.methods.{method.name}"
        axes |= _axes(cell, entry.methods.get(method.name, {}), of_method, of_function, where)
        if method.name in entry.methods:
            cell.used_overrides.add(where)
        if entry.budget:
            cell.used_overrides.add(f"overrides.{position}.budget")
            budget |= entry.budget
            budget_where = f"overrides.{position}.budget"
            budget["probes"] = (*dict.fromkeys((*budget["probes"], *asked)),)
    if not method.trains:
        axes["learning_rate"] = [None]
    budgets = given.budgets(budget, f"{sweep.where}: {budget_where}")
    if not method.trains:  # what reads the training split at most draws examples for its prompt from it
        budgets = [max(budgets, key=lambda one: one.train_examples)]
    executions = list(sweep.execution.combinations()) if method.trains else [Execution()]
    for values in itertools.product(*axes.values(), *objective_axes.values(), executions, budgets, cell.sweep.seeds):
        method_args = dict(zip(axes, values, strict=False))
        fields = {name: method_args.pop(name) for name in given.TRIAL_FIELDS if name in method_args}
        if not cell.has_seed(values[-1], method_args):
            continue
        yield Trial(
            notebook=cell.notebook,
            method=method.name,
            method_args=method_args,
            method_version=own_methods.version(method),
            objective=objective.name,
            objective_args=dict(zip(objective_axes, values[len(axes) :], strict=False)),
            model=cell.model.name,
            task=cell.task.name,
            model_revision=cell.of_model.version,
            task_version=cell.of_task.version,
            paths=cell.paths,
            seed=values[-1],
            budget=values[-2],
            execution=values[-3],
            **fields,
        )


def _usual_rates(cell: _Cell, of_method: Mapping[str, Any]) -> list[JsonValue]:
    """The learning rates of a cell for which the sweep gives none; it matters to what trains alone."""
    usual = of_method.get("learning_rate")
    names = {"model": cell.model.name, "task": cell.task.name, "objective": cell.objective.name}
    if not isinstance(usual, float) or fairness.gives_rates(cell.sweep, cell.method.name, **names):
        return [usual]
    return [*default_rates(cell.method.name, cell.model.kind, cell.objective, usual)]


def _axes(
    cell: _Cell, arguments: Arguments, declared: Mapping[str, Any], kinds: Mapping[str, Any], place: str
) -> dict[str, list[JsonValue]]:
    """The arguments as checked axes; a learning rate has no meaning where nothing trains."""
    if not cell.method.trains:
        arguments = {name: value for name, value in arguments.items() if name != "learning_rate"}
    return given.as_axes(arguments, declared, kinds, f"{cell.sweep.where}: {place}")


def _declared(cell: _Cell) -> dict[str, Any]:
    """The parameters of the cell's notebook; raises :class:`InputError` if it lacks a required one."""
    declared = notebooks.parameters(cell.notebook)
    needed = [name for name in notebooks.COMMON if cell.method.trains or name != "learning_rate"]
    for name in (*needed, *(notebooks.METHOD if cell.of_objective else ())):
        if name not in declared:
            raise InputError(f"{notebooks.path(cell.notebook)}: the cell tagged 'parameters' lacks '{name}'")
    return declared


def _arguments(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a notebook that are arguments of its method or objective."""
    return {
        name: value for name, value in declared.items() if name not in given.RESERVED and name not in given.TRIAL_FIELDS
    }


def _excluding(sweep: Sweep, trial: Trial) -> list[int]:
    """The indices of the ``exclude`` entries that remove the trial."""
    trial_facts = facts(trial)
    return [n for n, match in enumerate(sweep.exclude) if matches(trial_facts, match)]
