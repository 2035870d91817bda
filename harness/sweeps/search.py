"""Settings first, seeds second: which trials of a cell are planned now, which later, and what starts from which.

A *group* is what differs in seed and learning rate alone; its learning rates are its settings. With ``search`` in the
sweep, every setting runs on the first seeds. When all of these trials have ended, the one that validation prefers runs
on the other seeds (protocol, rule 2). So the plan follows from the sweep and from the records; there is no other state,
and a run that was interrupted plans the same again.

* Parents come first: a group whose parents are not decided waits, and then starts from the chosen setting on every
  seed. Without ``search``, every setting of a parent is a candidate, and the child starts from the best on its seed.
* Where no setting ended well, one row on each other seed is skipped, and says so.
* A group with a single setting has nothing to search, and runs on all seeds at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from harness import catalog
from harness.execution import Execution
from harness.results.selection import Ending, best_setting
from harness.sweeps import executions
from harness.sweeps.axes import ModelSpec, TaskSpec
from harness.sweeps.plan import Later, Planned, facts
from harness.trial import Trial

#: How a trial ended, by its id; None if it has no record.
Endings = Callable[[str], Ending | None]


def not_begun(_trial_id: str) -> None:
    """The endings of a sweep of which nothing has run."""


class Cell(executions.Cell, Protocol):
    """What is asked of a cell of the matrix."""

    @property
    def model(self) -> ModelSpec: ...
    @property
    def task(self) -> TaskSpec: ...
    @property
    def parents(self) -> tuple[catalog.Parent, ...]: ...
    def parent(self, parent: catalog.Parent) -> Self: ...
    def restriction(self, trial: Trial) -> str | None: ...


@dataclass(frozen=True)
class _Stage:
    """What is known of one group by now."""

    rows: tuple[Planned, ...] = ()
    candidates: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Seed -> ids of the trials that another one may start from; empty while that is not decided."""
    waits_for: tuple[str, ...] = ()
    """Ids of the trials that decide; empty when all is decided."""

    @property
    def may_be_started_from(self) -> Iterator[str]:
        """Ids of the planned trials that another one starts from, or may start from when that is decided."""
        if self.waits_for:
            return (row.trial_id for row in self.rows)
        return (trial_id for ids in self.candidates.values() for trial_id in ids)


@dataclass(frozen=True)
class _Candidates:
    """A group that other trials may start from."""

    trials: list[Trial]
    usual: list[Trial]
    """Those that ``exclude`` leaves, and the model can take."""


class Stages:
    """Plans the trials of cells, with what they start from. Parents are added to ``rows`` by themselves."""

    def __init__(
        self,
        seeds: int | None,
        endings: Endings,
        rows: dict[str, Planned],
        trials_of: Callable[[Any], Sequence[Trial]],
        is_excluded: Callable[[Trial], bool],
    ) -> None:
        """``seeds`` try every setting; None: all do. ``trials_of`` multiplies a cell out, without parents."""
        self._seeds = seeds
        self._endings = endings
        self._rows = rows
        self._trials_of = trials_of
        self._is_excluded = is_excluded
        self._stages: dict[tuple[Any, ...], _Stage] = {}
        self._parents: dict[tuple[str, ...], list[_Candidates]] = {}
        self._later: list[Later] = []

    @property
    def later(self) -> tuple[Later, ...]:
        """What could not be planned yet."""
        return tuple(self._later)

    def rows_of(self, cell: Cell, trials: Sequence[Trial]) -> Iterator[Planned]:
        """The rows of ``trials`` of ``cell`` that can be planned now, with the ids of their parents."""
        for group in _groups(trials):
            yield from self._stage(cell, group).rows

    def _stage(self, cell: Cell, group: Sequence[Trial]) -> _Stage:
        key = (*_place(cell), _group_key(group[0]), len(group))
        if key not in self._stages:
            self._stages[key] = self._planned(cell, group)
        return self._stages[key]

    def _planned(self, cell: Cell, group: Sequence[Trial]) -> _Stage:
        if (reason := cell.restriction(group[0])) is not None:
            return _Stage(tuple(self._row(cell, trial, reason) for trial in group), _by_seed(group))
        sources = {parent.role: self._sources(cell, parent, group) for parent in cell.parents}
        stages = [stage for several in sources.values() for stage in several]
        if waits_for := tuple(dict.fromkeys(trial_id for stage in stages for trial_id in stage.waits_for)):
            self._postpone(group, group, waits_for, (one for stage in stages for one in stage.may_be_started_from))
            return _Stage(waits_for=waits_for)
        return self._searched(cell, [_with_parents(trial, sources) for trial in group])

    def _searched(self, cell: Cell, group: Sequence[Trial]) -> _Stage:
        """The stage of a group whose parents are known."""
        rates = sorted({trial.learning_rate for trial in group}, key=lambda rate: rate or 0.0)
        if self._seeds is None or len(rates) == 1:
            return _Stage(tuple(self._row(cell, trial) for trial in group), _by_seed(group))
        first = _seeds(group)[: self._seeds]
        tries = [trial for trial in group if trial.seed in first]
        rows = [self._row(cell, trial) for trial in tries]
        endings = {trial.trial_id: self._endings(trial.trial_id) for trial in tries}
        if None in endings.values():
            waits_for = tuple(endings)
            if rest := [trial for trial in group if trial.seed not in first]:
                self._postpone(group, rest, waits_for, (one for trial in rest for one in trial.parent_ids))
            return _Stage(tuple(rows), waits_for=waits_for)
        ordered = sorted(tries, key=lambda trial: rates.index(trial.learning_rate))
        runs = [(trial.learning_rate, trial.seed, endings[trial.trial_id]) for trial in ordered]
        best = best_setting((rate, seed, ending) for rate, seed, ending in runs if ending is not None)
        reason = None if best is not None else _none_ended_well(len(rates), first)
        chosen = _of_setting(group, rates[0] if best is None else best)
        rows += [self._row(cell, trial, reason) for trial in chosen if trial.seed not in first]
        return _Stage(tuple(rows), _by_seed(chosen))

    def _sources(self, cell: Cell, parent: catalog.Parent, children: Sequence[Trial]) -> list[_Stage]:
        """The stages of the groups that may be the ``parent`` of ``children``, which are one group.

        The rows that the children need are planned. If ``exclude`` removes all candidates on a seed, they are the
        parents on it nevertheless.
        """
        place = cell.parent(parent)
        groups = self._groups_of(place)
        if place.method == cell.method and not parent.shared:
            groups = [group for group in groups if group.trials[0].method_args == children[0].method_args] or groups
        size = children[0].budget.train_examples
        groups = [group for group in groups if group.trials[0].budget.train_examples == size] or groups
        groups = _of_execution(groups, None if parent.shared else children[0].execution)
        needed = set(_seeds(children))
        lost = needed - {trial.seed for group in groups for trial in group.usual}
        stages = []
        for group in groups:
            trials = [*group.usual, *(trial for trial in group.trials if trial.seed in lost)]
            stages.append(self._stage(place, trials))
            wanted = needed.union(_seeds(trials)[: self._seeds or 0])
            for row in stages[-1].rows:
                if row.trial.seed in wanted:
                    self._rows.setdefault(row.trial_id, row)
        return stages

    def _groups_of(self, place: Cell) -> list[_Candidates]:
        """The groups of ``place`` of which a trial should run; all if none should. Multiplied out once."""
        if (key := _place(place)) not in self._parents:
            able = [
                _Candidates(
                    group, [] if place.restriction(group[0]) else [t for t in group if not self._is_excluded(t)]
                )
                for group in _groups(self._trials_of(place))
            ]
            self._parents[key] = [group for group in able if group.usual] or able
        return self._parents[key]

    def _postpone(
        self, group: Sequence[Trial], rest: Sequence[Trial], waits_for: tuple[str, ...], starts_from: Iterable[str]
    ) -> None:
        """Note the trials ``rest`` of ``group``, which are planned when others have ended.

        All of the group wait for their parents, or the further seeds for the choice of their learning rate.
        """
        known = {**facts(rest[0]), "seed": _seeds(rest)}
        count = len(_seeds(rest))
        del known["learning_rate"]
        if rest is group:
            rates = known["learning_rate"] = list(dict.fromkeys(trial.learning_rate for trial in group))
            count += (len(rates) - 1) * len(_seeds(group)[: self._seeds])
        self._later.append(Later(known, count, waits_for, tuple(dict.fromkeys(starts_from))))

    def _row(self, cell: Cell, trial: Trial, reason: str | None = None) -> Planned:
        return Planned(trial, reason, cell.task.kind, cell.model.family)


def _of_execution(groups: list[_Candidates], wanted: Execution | None) -> list[_Candidates]:
    """The ``groups`` that train as ``wanted``; without such, and for None, those that train as the first does.

    A child starts from a parent that trained in the same way. What serves several children is one for all.
    """
    executions = [group.trials[0].execution for group in groups]
    chosen = wanted if wanted in executions else executions[0]
    return [group for group, execution in zip(groups, executions, strict=True) if execution == chosen]


def _with_parents(trial: Trial, sources: Mapping[str, Sequence[_Stage]]) -> Trial:
    if not sources:
        return trial
    parents = {
        role: tuple(dict.fromkeys(one for stage in stages for one in stage.candidates.get(trial.seed, ())))
        for role, stages in sources.items()
    }
    return trial.model_copy(update={"parents": parents})


def _of_setting(group: Sequence[Trial], rate: object) -> list[Trial]:
    """The trials with this learning rate; all of them on a seed from which ``exclude`` removes it."""
    seeds = {trial.seed for trial in group if trial.learning_rate == rate}
    return [trial for trial in group if trial.learning_rate == rate or trial.seed not in seeds]


def _by_seed(trials: Iterable[Trial]) -> dict[int, tuple[str, ...]]:
    ids: dict[int, tuple[str, ...]] = {}
    for trial in trials:
        ids[trial.seed] = (*ids.get(trial.seed, ()), trial.trial_id)
    return ids


def _groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_group_key(trial), []).append(trial)
    return list(groups.values())


def _group_key(trial: Trial) -> str:
    """What the trials of a group share, beside the place of their cell."""
    return repr((trial.method_args, trial.objective_args, trial.budget, trial.dtype, trial.device, trial.execution))


def _place(cell: Cell) -> tuple[str, ...]:
    return cell.method.name, cell.objective.name, cell.model.name, cell.task.name


def _seeds(trials: Iterable[Trial]) -> list[int]:
    return list(dict.fromkeys(trial.seed for trial in trials))


def _none_ended_well(settings: int, seeds: Sequence[int]) -> str:
    tried = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"none of the {settings} settings that were tried on {tried} ended well"
