"""A plan: the trials of a sweep in the order in which they run, and those that cannot run, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, Self

from pydantic import JsonValue

from harness.errors import InputError, unknown
from harness.sources.own_files import Aliases
from harness.trial import Trial


@dataclass(frozen=True)
class Planned:
    """One row of a plan."""

    trial: Trial
    reason: str | None = None
    """Why it cannot run; None: it can."""
    task_kind: str | None = None
    model_family: str | None = None
    estimated_bytes: int | None = None
    """Peak memory of a training step (:mod:`harness.estimate.planned`); None: not estimated."""

    @cached_property
    def trial_id(self) -> str:
        """The trial's id."""
        return self.trial.trial_id

    def facts(self) -> dict[str, Any]:
        """Everything that a filter can name: the axes and every argument."""
        return {"trial_id": self.trial_id, **facts(self.trial)}

    def document(self) -> dict[str, Any]:
        """The row as JSON: the whole specification, and what is known besides."""
        return {
            "trial_id": self.trial_id,
            "status": "planned" if self.reason is None else "skipped",
            "reason": self.reason,
            "task_kind": self.task_kind,
            "model_family": self.model_family,
            "estimated_bytes": self.estimated_bytes,
            "trial": self.trial.model_dump(mode="json"),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The row that :meth:`document` wrote. Raises KeyError or ValueError for anything else."""
        trial = Trial.model_validate(document["trial"])
        estimated = document.get("estimated_bytes")
        return cls(trial, document["reason"], document["task_kind"], document["model_family"], estimated)


@dataclass(frozen=True)
class Plan:
    """What a sweep would run. Parents come before their children."""

    sweep: str
    rows: tuple[Planned, ...]
    excluded: tuple[tuple[Mapping[str, JsonValue], int], ...] = ()
    """Each entry of the sweep's ``exclude`` and how many trials it took out."""
    duplicates: int = 0
    """Cells that turned out to be a trial already planned."""
    aliases: Aliases = field(default_factory=Aliases)
    """The paths by which the sweep's own models and tasks can be named as well."""

    @cached_property
    def by_id(self) -> Mapping[str, Planned]:
        """Every row, by the id of its trial."""
        return {row.trial_id: row for row in self.rows}

    @cached_property
    def parents(self) -> frozenset[str]:
        """Ids of the trials that another one starts from, or may start from."""
        return frozenset(parent for row in self.rows for parent in row.trial.parent_ids)

    @property
    def runnable(self) -> tuple[Planned, ...]:
        """The rows that can run."""
        return tuple(row for row in self.rows if row.reason is None)

    @property
    def skipped(self) -> tuple[Planned, ...]:
        """The rows that cannot."""
        return tuple(row for row in self.rows if row.reason is not None)

    def document(self) -> dict[str, Any]:
        """The plan as JSON: what ``plan.json`` holds and ``tunebench plan --json`` prints."""
        return {
            "sweep": self.sweep,
            "runnable": len(self.runnable),
            "skipped": len(self.skipped),
            "duplicates": self.duplicates,
            "excluded": [{"match": dict(match), "trials": count} for match, count in self.excluded],
            "trials": [row.document() for row in self.rows],
        }

    def matching(self, wanted: Mapping[str, Iterable[JsonValue]]) -> frozenset[str]:
        """Ids of the rows whose every named fact is one of the wanted values, and of the parents that they need.

        Own models and tasks are found by their paths as well. Raises :class:`InputError` for a name that no row has.
        """
        known = {name for row in self.rows for name in row.facts()}
        for name in wanted:
            if name not in known:
                raise unknown("--only", name, known)
        choices = self.aliases.in_match({name: list(values) for name, values in wanted.items()})
        hits = {row.trial_id for row in self.rows if matches(row.facts(), choices)}
        if not hits:
            raise InputError("--only: no trial of the sweep matches")
        for row in reversed(self.rows):
            if row.trial_id in hits:
                hits.update(row.trial.parent_ids)
        return frozenset(hits)


def facts(trial: Trial) -> dict[str, Any]:
    """What tells one trial of a sweep from another, by name."""
    return {
        "method": trial.method,
        "objective": trial.objective,
        "model": trial.model,
        "task": trial.task,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "dtype": trial.dtype,
        "device": trial.device,
        **trial.method_args,
        **trial.objective_args,
    }


def matches(found: Mapping[str, Any], wanted: Mapping[str, JsonValue]) -> bool:
    """Whether every wanted name is there with the wanted value, or with one of a list of wanted values."""
    return all(
        name in found and (found[name] == value or (isinstance(value, list) and found[name] in value))
        for name, value in wanted.items()
    )


def in_order(rows: Iterable[Planned]) -> tuple[Planned, ...]:
    """The rows with every parent before its children; apart from that the order is kept."""
    by_id = {row.trial_id: row for row in rows}
    graph = {trial_id: [p for p in row.trial.parent_ids if p in by_id] for trial_id, row in by_id.items()}
    if not any(graph.values()):
        return tuple(by_id.values())
    return tuple(by_id[trial_id] for trial_id in TopologicalSorter(graph).static_order())
