"""A plan: the trials of a sweep in the order of their run, and the cells that cannot run, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, Self

from pydantic import JsonValue

from harness.errors import InputError, hint, shown, unknown
from harness.sources.own_files import Aliases
from harness.trial import Trial


@dataclass(frozen=True)
class Planned:
    """One row of a plan."""

    trial: Trial
    reason: str | None = None
    """Why the row cannot run; None if it can."""
    task_kind: str | None = None
    model_family: str | None = None
    estimated_bytes: int | None = None
    """Peak memory of a training step (:mod:`harness.estimate.planned`); None if it was not estimated."""
    estimated_flops: int | None = None
    """Operations of a training step at the budget's full length; None if they were not estimated."""
    updated_params: int = 0
    """Parameters that a training step updates, as far as they were estimated."""
    unpacked_params: int = 0
    """Weights that every pass unpacks from fewer bits, as far as they were estimated."""
    estimated_s: float | None = None
    """Seconds of the trial (:mod:`harness.estimate.time`); None if they were not estimated."""

    @cached_property
    def trial_id(self) -> str:
        """The trial's id."""
        return self.trial.trial_id

    def facts(self) -> dict[str, Any]:
        """Every name that a filter can use: the axes and every argument."""
        return {"trial_id": self.trial_id, **facts(self.trial)}

    def document(self) -> dict[str, Any]:
        """The row as JSON: the whole specification, its status and its estimate."""
        return {
            "trial_id": self.trial_id,
            "status": "planned" if self.reason is None else "skipped",
            "reason": self.reason,
            "task_kind": self.task_kind,
            "model_family": self.model_family,
            "estimated_bytes": self.estimated_bytes,
            "estimated_s": self.estimated_s,
            "trial": self.trial.model_dump(mode="json"),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read the row that :meth:`document` wrote. Raises KeyError or ValueError for anything else."""
        trial = Trial.model_validate(document["trial"])
        return cls(
            trial,
            document["reason"],
            document["task_kind"],
            document["model_family"],
            estimated_bytes=document.get("estimated_bytes"),
            estimated_s=document.get("estimated_s"),
        )


@dataclass(frozen=True)
class Later:
    """Trials of one cell that are planned when others have ended (:mod:`harness.sweeps.search`)."""

    facts: Mapping[str, Any]
    """What all of them have, by name; of a name that they differ in, the list. What will be chosen is left out."""
    trials: int
    """How many they will be."""
    waits_for: tuple[str, ...]
    """Ids of the planned trials whose endings decide."""
    starts_from: tuple[str, ...] = ()
    """Ids of the planned trials that one of them may start from."""

    def document(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {
            "facts": dict(self.facts),
            "trials": self.trials,
            "waits_for": list(self.waits_for),
            "starts_from": list(self.starts_from),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`document` wrote. Raises KeyError or TypeError for anything else."""
        ids = {name: tuple(map(str, document[name])) for name in ("waits_for", "starts_from")}
        return cls(dict(document["facts"]), int(document["trials"]), ids["waits_for"], ids["starts_from"])


@dataclass(frozen=True)
class Plan:
    """The trials that a sweep would run. Parents come before their children."""

    sweep: str
    rows: tuple[Planned, ...]
    excluded: tuple[tuple[Mapping[str, JsonValue], int], ...] = ()
    """Each entry of the sweep's ``exclude`` and how many trials it took out."""
    duplicates: int = 0
    """How many cells repeated a trial that was already planned."""
    aliases: Aliases = field(default_factory=Aliases)
    """The paths of the sweep's own models and tasks, as other names for them."""
    later: tuple[Later, ...] = ()
    """What is planned when settings have been tried; empty without ``search``, and when all of it is planned."""
    grids: tuple[Mapping[str, JsonValue], ...] = ()
    """The learning rates that a cell took because the sweep gives none (:mod:`harness.sweeps.fairness`)."""
    unmatched: tuple[str, ...] = ()
    """Entries of the sweep's ``exclude`` that match nothing, and of ``overrides`` that change nothing, or their parts,
    such as 'exclude.0' and 'overrides.1.methods.lora'."""
    overruled: tuple[str, ...] = ()
    """What the sweep gives for a method and another for its objective, in words."""

    @cached_property
    def by_id(self) -> Mapping[str, Planned]:
        """Every row, by the id of its trial."""
        return {row.trial_id: row for row in self.rows}

    @cached_property
    def parents(self) -> frozenset[str]:
        """Ids of all trials that another one starts from, or may start from when it is planned."""
        planned = {parent for row in self.rows for parent in row.trial.parent_ids}
        return frozenset(planned.union(*(one.starts_from for one in self.later)))

    @property
    def runnable(self) -> tuple[Planned, ...]:
        """The rows that can run."""
        return tuple(row for row in self.rows if row.reason is None)

    @property
    def skipped(self) -> tuple[Planned, ...]:
        """The rows that cannot run."""
        return tuple(row for row in self.rows if row.reason is not None)

    def document(self) -> dict[str, Any]:
        """The plan as JSON: what ``plan.json`` holds and ``tunebench plan --json`` prints."""
        return {
            "sweep": self.sweep,
            "runnable": len(self.runnable),
            "skipped": len(self.skipped),
            "duplicates": self.duplicates,
            "excluded": [{"match": dict(match), "trials": count} for match, count in self.excluded],
            "later": [one.document() for one in self.later],
            "grids": [dict(grid) for grid in self.grids],
            "unmatched": list(self.unmatched),
            "overruled": list(self.overruled),
            "trials": [row.document() for row in self.rows],
        }

    def only(self, wanted: Mapping[str, Iterable[JsonValue]]) -> Self:
        """The part of the plan that :meth:`matching` chooses, and what may follow from it later."""
        ids = self.matching(wanted)
        choices = self.aliases.in_match({name: list(values) for name, values in wanted.items()})
        grids = [g for g in self.grids if may_match(g, {name: choices[name] for name in choices.keys() & g.keys()})]
        rows = tuple(row for row in self.rows if row.trial_id in ids)
        later = tuple(one for one in self.later if may_match(one.facts, choices))
        return replace(self, rows=rows, later=later, grids=tuple(grids))

    def matching(self, wanted: Mapping[str, Iterable[JsonValue]]) -> frozenset[str]:
        """Ids of the rows with a wanted value for every named fact, and of the parents that they need.

        For trials that are planned later, the rows that they wait for. A path also selects an own model or task. Raises
        :class:`InputError` for a name that no row has.
        """
        known = {name for row in self.rows for name in row.facts()}.union(*(one.facts for one in self.later))
        for name in wanted:
            if name not in known:
                raise unknown("--only", name, known)
        choices = self.aliases.in_match({name: list(values) for name, values in wanted.items()})
        hits = {row.trial_id for row in self.rows if matches(row.facts(), choices)}
        hits |= {trial_id for one in self.later if may_match(one.facts, choices) for trial_id in one.waits_for}
        if not hits:
            raise self._no_trial(choices)
        for row in reversed(self.rows):
            if row.trial_id in hits:
                hits.update(row.trial.parent_ids)
        return frozenset(hits)

    def _no_trial(self, wanted: Mapping[str, list[JsonValue]]) -> InputError:
        """Why no row matches: a value that no row has, or values that no row has together."""
        for name, values in wanted.items():
            there = {shown(row.facts()[name]).strip("'") for row in self.rows if name in row.facts()}
            there |= {shown(value).strip("'") for one in self.later for value in _several(one.facts.get(name, []))}
            if not there.intersection(texts := [shown(value).strip("'") for value in values]):
                return InputError(
                    f"--only {name}={'|'.join(texts)}: no trial of the sweep has it; {hint(texts[0], there)}"
                )
        return InputError("--only: no trial of the sweep matches all of it at once; ask for less")


def facts(trial: Trial) -> dict[str, Any]:
    """The facts that distinguish the trials of a sweep, by name."""
    return {
        "method": trial.method,
        "objective": trial.objective,
        "model": trial.model,
        "task": trial.task,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "dtype": trial.dtype,
        "device": trial.device,
        **{f"execution.{name}": value for name, value in trial.execution},
        "train_examples": trial.budget.train_examples,
        **trial.method_args,
        **trial.objective_args,
    }


def matches(named_facts: Mapping[str, Any], wanted: Mapping[str, JsonValue]) -> bool:
    """Whether the facts contain every wanted name with the wanted value, or with one value of a wanted list."""
    return all(name in named_facts and _wanted(named_facts[name], value) for name, value in wanted.items())


def _wanted(fact: Any, value: JsonValue) -> bool:
    return _is(fact, value) or (isinstance(value, list) and any(_is(fact, one) for one in value))


def _is(fact: Any, value: JsonValue) -> bool:
    """Whether they are equal; true is no 1, though Python says so."""
    return bool(fact == value) and isinstance(fact, bool) == isinstance(value, bool)


def may_match(facts_of_several: Mapping[str, Any], wanted: Mapping[str, list[JsonValue]]) -> bool:
    """Whether one of several trials may have a wanted value for every name (:attr:`Later.facts`)."""
    return all(
        name in facts_of_several
        and any(_wanted(fact, values) for fact in (facts_of_several[name], *_several(facts_of_several[name])))
        for name, values in wanted.items()
    )


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def in_order(rows: Iterable[Planned]) -> tuple[Planned, ...]:
    """The rows with every parent before its children, otherwise in the given order."""
    by_id = {row.trial_id: row for row in rows}
    graph = {trial_id: [p for p in row.trial.parent_ids if p in by_id] for trial_id, row in by_id.items()}
    if not any(graph.values()):
        return tuple(by_id.values())
    return tuple(by_id[trial_id] for trial_id in TopologicalSorter(graph).static_order())
